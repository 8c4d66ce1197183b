"""Snapshots of the overlay: its state as of a position, so that only the rest is folded.

A file holds JSON lines, compressed: what it is of, the state in parts, and last a checksum of all
of it. One that is damaged, of another log or of another version is ignored: the whole log is
folded instead, which gives the same.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import logging
import os
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nextedge.errors import NextEdgeError
from nextedge.storage.files import writing

if TYPE_CHECKING:
    from nextedge.events.state.overlay import Overlay

_log = logging.getLogger("nextedge")
OVERLAY = "overlay"
"""Folder of the snapshots in the state folder."""
FORMAT = 1
_FACTS = ""
"""Name of the overlay's own state among the folds'."""
_PART = 2000
"""Rows a line: no line takes so long that other threads wait for it."""
_KEPT = 2
_EVERY_EVENTS = 20_000
_LOOK_SECONDS = 5.0
_NICE = 10
State = dict[str, dict[str, Any]]
"""By fold and part what ``dump`` gave."""


@dataclass(frozen=True)
class Header:
    """What a snapshot is of.

    Attributes:
        generation: of the log.
        position, previous: of the last event in it, and of the one before.
        event_id: of the last event in it.
        micros: when it was written.
        shown_days: how long impressions are kept in it.
        folds: version of every fold by name.
        format: of the file.
    """

    generation: str
    position: str
    previous: str
    event_id: str
    micros: int
    shown_days: float
    folds: dict[str, int]
    format: int = FORMAT


class Snapshots:
    """The snapshots in one folder; one process at a time writes or deletes them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def paths(self) -> list[Path]:
        """The files, newest first."""
        return sorted(self.directory.glob("*.json.gz"), reverse=True)

    @contextlib.contextmanager
    def lock(self, *, wait: bool = True) -> Iterator[bool]:
        """Keep others from writing; gives whether it is held, which it always is after waiting."""
        import fcntl

        with writing(self.directory):
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            file = (self.directory / "lock").open("a")
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
                return
            yield True

    def loaded(self, empty: Overlay) -> Overlay:
        """An overlay as of the newest snapshot that fits its log; the empty one where none does.

        Raises:
            LiveStateError: the log cannot be read.
        """
        for path in self.paths():
            fresh = empty.emptied()
            fresh.generation = empty.generation
            try:
                header, state = _read(path)
            except FileNotFoundError:  # a newer one has replaced it
                continue
            except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError) as error:
                _log.warning("%s is damaged and ignored: %s", path, error)
                continue
            if fault := _unfit(header, fresh):
                _log.info("%s is ignored: %s", path, fault)
                continue
            try:
                fresh.load(state.pop(_FACTS))
                for name, fold in fresh.folds.items():
                    fold.load(state[name])
            except Exception as error:  # each fold's own; the log has it all
                _log.warning("%s is ignored: %s: %s", path, type(error).__name__, error)
                continue
            fresh.position, fresh.previous = header.position, header.previous
            fresh.last_event_id = header.event_id
            return fresh
        return empty

    def write(self, overlay: Overlay) -> Path | None:
        """Keep the state of an overlay that no other thread uses; None where it has no event.

        Those of another generation of the log go: they may hold somebody who was forgotten.

        Raises:
            StorageError: the disk refuses.
        """
        if not overlay.last_event_id:
            return None
        header = Header(
            _generation(overlay), overlay.position, overlay.previous, overlay.last_event_id,
            time.time_ns() // 1000, overlay.shown_days, _folds(overlay),
        )
        older = self.paths()
        number = 1 + max((int(path.name.split(".")[0]) for path in older), default=0)
        path = self.directory / f"{number:012d}.json.gz"
        with writing(self.directory):
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            partial = path.with_suffix(".partial")
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                with gzip.GzipFile(fileobj=file, mode="wb", compresslevel=1, mtime=0) as packed:
                    _write(packed, header, overlay)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
            _sync(self.directory)
        for place, old in enumerate(older, 1):
            if place >= _KEPT or _generation_of(old) != header.generation:
                old.unlink(missing_ok=True)
        return path

    def drop(self, where: Callable[[Header], bool] = lambda header: True) -> int:
        """Delete the snapshots that a condition holds of, and the damaged; returns how many."""
        dropped = 0
        for path in self.paths():
            header = _header_of(path)
            if header is None or where(header):
                path.unlink(missing_ok=True)
                dropped += 1
        for partial in self.directory.glob("*.partial"):
            partial.unlink(missing_ok=True)
        if dropped:
            _sync(self.directory)
        return dropped


def renew(make: Callable[[], Overlay], snapshots: Snapshots) -> bool:
    """Write a snapshot of now; whether it was, as somebody else may be at it.

    The state is folded apart from the one that serves, so that no request waits.

    Raises:
        LiveStateError: the log cannot be read.
        StorageError: the disk refuses.
    """
    with snapshots.lock(wait=False) as held:
        if not held:
            return False
        overlay = make()
        overlay.catch_up()
        snapshots.write(overlay)
        return True


class SnapshotKeeper:
    """A thread that renews the snapshot whenever a serving process has folded many events.

    Args:
        serving: the overlay that answers.
        make: a new one of the same log.
    """

    def __init__(
        self, serving: Overlay, make: Callable[[], Overlay], every: int = _EVERY_EVENTS
    ) -> None:
        self.serving = serving
        self.make = make
        self.every = every
        self._since = 0
        self._generation = serving.generation
        self._newest = self._found()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="nextedge-overlay", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()
        self._thread.join()

    def _keep(self) -> None:
        with contextlib.suppress(OSError, AttributeError):  # where threads have no priority
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        while not self._stopping.wait(_LOOK_SECONDS):
            try:
                self.look()
            except NextEdgeError as error:
                _log.warning("no snapshot of the overlay: %s", error)
            except Exception:  # without the thread there would never be one again
                _log.exception("writing a snapshot of the overlay")
        self.serving.log.close()

    def look(self) -> bool:
        """Write a snapshot if it is time to; whether it was written."""
        snapshots, serving = self.serving.snapshots, self.serving
        if snapshots is None:
            return False
        newest = self._found()
        purged = self._generation is not None and serving.generation != self._generation
        if newest != self._newest and not purged:  # another process has written one meanwhile
            self._newest, self._since = newest, serving.folded
        self._generation = serving.generation
        if not purged and serving.folded - self._since < self.every:
            return False
        written = renew(self.make, snapshots)
        self._newest, self._since = self._found(), serving.folded
        return written

    def _found(self) -> Path | None:
        snapshots = self.serving.snapshots
        return None if snapshots is None else next(iter(snapshots.paths()), None)


def canonical(overlay: Overlay) -> State:
    """The whole state of an overlay, rows in an order of their own: equal where the states are."""
    state = {
        _FACTS: overlay.dump(),
        **{name: fold.dump() for name, fold in overlay.folds.items()},
    }
    in_order = {part: sorted(rows) for part, rows in state[_FACTS].items()}
    return {**json.loads(json.dumps(state)), _FACTS: json.loads(json.dumps(in_order))}


def _unfit(header: Header, overlay: Overlay) -> str | None:
    """Why a snapshot is none of the overlay's log, or None."""
    if header.generation != _generation(overlay):
        return "events were taken out of the log since, or it is another log"
    if header.folds != _folds(overlay):
        return "another version of NextEdge wrote it"
    if header.shown_days < overlay.shown_days:
        return "impressions are to be kept for longer"
    found = next(iter(overlay.log.read(header.previous, 1)), None)
    if found is None or (found[0], found[1].event_id) != (header.position, header.event_id):
        return "the log has another event where it ends"
    return None


def _generation(overlay: Overlay) -> str:
    return json.dumps(overlay.generation, default=str)


def _folds(overlay: Overlay) -> dict[str, int]:
    return {name: fold.version for name, fold in overlay.folds.items()}


def _write(file: gzip.GzipFile, header: Header, overlay: Overlay) -> None:
    checksum = hashlib.sha256()
    for row in _rows(header, overlay):
        line = json.dumps(row, separators=(",", ":")).encode() + b"\n"
        checksum.update(line)
        file.write(line)
    file.write(json.dumps({"sha256": checksum.hexdigest()}).encode() + b"\n")


def _rows(header: Header, overlay: Overlay) -> Iterator[Any]:
    """The lines of a file but the last: the header, then [fold, part, some of its content]."""
    yield vars(header)
    dumps = [(_FACTS, overlay.dump), *((name, fold.dump) for name, fold in overlay.folds.items())]
    for name, dump in dumps:
        for part, content in dump().items():
            if isinstance(content, list | dict) and content:
                yield from ([name, part, some] for some in _parts(content))
            else:
                yield [name, part, content]


def _parts(content: list[Any] | dict[str, Any]) -> Iterator[Any]:
    """A long list or table in parts of about equal length, lists inside it counted."""
    some: list[Any] = []
    weight = 0
    for each in content.items() if isinstance(content, dict) else content:
        some.append(each)
        weight += 1 + _length(each)
        if weight >= _PART:
            yield dict(some) if isinstance(content, dict) else some
            some, weight = [], 0
    if some:
        yield dict(some) if isinstance(content, dict) else some


def _length(row: Any) -> int:
    parts = row if isinstance(row, list | tuple) else ()
    return sum(len(each) for each in parts if isinstance(each, list | dict))


def _read(path: Path) -> tuple[Header, State]:
    """A snapshot; raises ValueError and what reading raises where it is damaged."""
    checksum = hashlib.sha256()
    state: State = {}
    with gzip.open(path) as file:
        first = file.readline()
        header = _header(first)
        checksum.update(first)
        for line in file:
            row = json.loads(line)
            if isinstance(row, dict):
                if row["sha256"] != checksum.hexdigest() or file.read(1):
                    raise ValueError("its checksum is not that of its content")
                break
            checksum.update(line)
            name, part, content = row
            parts = state.setdefault(name, {})
            if part not in parts:
                parts[part] = content
            elif isinstance(content, list):
                parts[part].extend(content)
            else:
                parts[part].update(content)
        else:
            raise ValueError("its end is missing")
    for name in (_FACTS, *header.folds):
        state.setdefault(name, {})
    return header, state


def _header(line: bytes) -> Header:
    found = json.loads(line)
    if found["format"] != FORMAT:
        raise ValueError(f"its format is {found['format']}; this version reads {FORMAT}")
    return Header(**found)


def _header_of(path: Path) -> Header | None:
    """What a file is of, None where that cannot be read."""
    try:
        with gzip.open(path) as file:
            return _header(file.readline())
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError):
        return None


def _generation_of(path: Path) -> str | None:
    header = _header_of(path)
    return None if header is None else header.generation


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
