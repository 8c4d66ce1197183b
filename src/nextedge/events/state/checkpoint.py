"""Checkpoints of the overlay: its state at a position, so that a restart folds only the rest.

A file has compressed JSON lines: a header, the state in parts, and a checksum of all before. The
overlay ignores a file that is damaged, or of another log or version; folding the whole log gives
the same state.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import logging
import os
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from nextedge.events.state.folded_log import FoldedLog
from nextedge.storage.files import writing

_log = logging.getLogger("nextedge")
OVERLAY = "overlay"  # folder of the checkpoints in the state folder
FORMAT = 1
_STATE = ""  # name of the folded state among those of the projections
_ROWS_A_LINE = 2000  # so few that encoding a line does not make other threads wait
_NEWEST = 2  # files that stay, in case the newest is damaged
State = dict[str, dict[str, Any]]  # results of ``dump`` by projection and part
Folded = TypeVar("Folded", bound=FoldedLog)


@dataclass(frozen=True)
class Header:
    """Description of a checkpoint.

    Attributes:
        position, previous: of its last event and the one before.
        event_id: of its last event.
        micros: time of writing.
        shown_days: days for which it has impressions.
        folds: versions of the projections by name.
    """

    generation: str
    position: str
    previous: str
    event_id: str
    micros: int
    shown_days: float
    folds: dict[str, int]
    format: int = FORMAT


class Checkpoints:
    """The checkpoints of a folder; one process at a time writes or deletes them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def paths(self) -> list[Path]:
        """The files, newest first."""
        return sorted(self.directory.glob("*.json.gz"), reverse=True)

    @contextlib.contextmanager
    def lock(self, *, wait: bool = True) -> Iterator[bool]:
        """Lock the folder; gives False if another process has the lock and ``wait`` is off."""
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

    def load(self, make: Callable[[], Folded]) -> Folded | None:
        """The state of the newest checkpoint that fits the log, or None.

        Args:
            make: makes an empty state with the generation of its log.

        Raises:
            LiveStateError: the log cannot be read.
        """
        for path in self.paths():
            fresh = make()
            try:
                header, state = _read(path)
            except FileNotFoundError:  # another process has deleted it for a newer one
                continue
            except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError) as error:
                _log.warning("%s is damaged and ignored: %s", path, error)
                continue
            if fault := _unfit(header, fresh):
                _log.info("%s is ignored: %s", path, fault)
                continue
            try:
                fresh.load(state.pop(_STATE))
                for name, projection in fresh.projections.items():
                    projection.load(state[name])
            except Exception as error:  # of any projection; the log has all events anyway
                _log.warning("%s is ignored: %s: %s", path, type(error).__name__, error)
                continue
            fresh.position, fresh.previous = header.position, header.previous
            fresh.last_event_id = header.event_id
            return fresh
        return None

    def write(self, folded: FoldedLog) -> Path | None:
        """Write a state that no other thread changes; None if it has no event.

        Raises:
            StorageError: the disk refuses.
        """
        if not folded.last_event_id:
            return None
        header = Header(
            generation=_generation(folded),
            position=folded.position,
            previous=folded.previous,
            event_id=folded.last_event_id,
            micros=time.time_ns() // 1000,
            shown_days=folded.shown_days,
            folds=_versions(folded),
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
                    _write(packed, header, folded)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
            _sync(self.directory)
        # checkpoints of another generation may have the data of a user who was erased
        for rank, old in enumerate(older, 1):
            if rank >= _NEWEST or _generation_of(old) != header.generation:
                old.unlink(missing_ok=True)
        return path

    def drop(self, where: Callable[[Header], bool] = lambda header: True) -> int:
        """Delete matching and damaged checkpoints; returns how many."""
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


def canonical(folded: FoldedLog) -> State:
    """A state with sorted rows, to compare two states."""
    state = {name: dump() for name, dump in _dumps(folded)}
    in_order = {part: sorted(rows) for part, rows in state[_STATE].items()}
    plain: State = json.loads(json.dumps({**state, _STATE: in_order}))
    return plain


def _unfit(header: Header, folded: FoldedLog) -> str | None:
    """Why a checkpoint does not fit the log, or None."""
    if header.generation != _generation(folded):
        return "events were erased from the log since, or it is another log"
    if header.folds != _versions(folded):
        return "another version of NextEdge wrote it"
    if header.shown_days < folded.shown_days:
        return "it has impressions of fewer days than configured"
    # the same generation alone does not prove the same events
    last = next(iter(folded.log.read(header.previous, 1)), None)
    if last is None or (last[0], last[1].event_id) != (header.position, header.event_id):
        return "the log has another event at its position"
    return None


def _generation(folded: FoldedLog) -> str:
    return json.dumps(folded.generation, default=str)


def _versions(folded: FoldedLog) -> dict[str, int]:
    return {name: projection.version for name, projection in folded.projections.items()}


def _dumps(folded: FoldedLog) -> list[tuple[str, Callable[[], dict[str, Any]]]]:
    """Names and ``dump`` methods of the state and of every projection."""
    projections = folded.projections.items()
    return [(_STATE, folded.dump), *((name, state.dump) for name, state in projections)]


def _write(file: gzip.GzipFile, header: Header, folded: FoldedLog) -> None:
    checksum = hashlib.sha256()
    for row in _rows(header, folded):
        line = json.dumps(row, separators=(",", ":")).encode() + b"\n"
        checksum.update(line)
        file.write(line)
    file.write(json.dumps({"sha256": checksum.hexdigest()}).encode() + b"\n")


def _rows(header: Header, folded: FoldedLog) -> Iterator[Any]:
    """Lines of a file without the checksum: the header, then [projection, part, rows]."""
    yield vars(header)
    for name, dump in _dumps(folded):
        for part, content in dump().items():
            if isinstance(content, list | dict) and content:
                yield from ([name, part, rows] for rows in _parts(content))
            else:
                yield [name, part, content]


def _parts(content: list[Any] | dict[str, Any]) -> Iterator[Any]:
    """Split a long list or table into parts of about equal size."""
    table = isinstance(content, dict)
    rows: list[Any] = []
    weight = 0
    for row in content.items() if isinstance(content, dict) else content:
        rows.append(row)
        weight += 1 + _length(row)
        if weight >= _ROWS_A_LINE:
            yield dict(rows) if table else rows
            rows, weight = [], 0
    if rows:
        yield dict(rows) if table else rows


def _length(row: Any) -> int:
    parts = row if isinstance(row, list | tuple) else ()
    return sum(len(part) for part in parts if isinstance(part, list | dict))


def _read(path: Path) -> tuple[Header, State]:
    """Read a checkpoint; raises ValueError or the reader's error if it is damaged."""
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
    for name in (_STATE, *header.folds):
        state.setdefault(name, {})
    return header, state


def _header(line: bytes) -> Header:
    fields = json.loads(line)
    if fields["format"] != FORMAT:
        raise ValueError(f"its format is {fields['format']}; this version reads {FORMAT}")
    return Header(**fields)


def _header_of(path: Path) -> Header | None:
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
