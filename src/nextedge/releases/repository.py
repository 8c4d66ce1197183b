"""The releases of a state folder: publish, list, promote, roll back, verify, prune.

A release is a directory that never changes once it has its name. ``CURRENT`` is one small
file that names the served one and is replaced atomically; ``HISTORY`` keeps what was served.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from nextedge.config import Config
from nextedge.errors import InputError, NoReleaseError, ReleaseError, UnknownReleaseError, nearest
from nextedge.progress import Progress, quiet
from nextedge.releases.lock import build_lock
from nextedge.releases.manifest import MANIFEST, Release, described, file_hash, parsed, seal
from nextedge.releases.pointers import Pointers, Trial
from nextedge.storage.files import replace_file, writing

MADE_ANEW = ("work", "text", "spill")
"""Folders of the state that a build makes anew."""
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class Releases:
    """The releases under ``<state>/releases``."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.directory = state / "releases"

    @contextlib.contextmanager
    def building(self, wait_seconds: float = 0.0, progress: Progress = quiet) -> Iterator[None]:
        """Hold the right to build and to rewrite releases.

        Args:
            wait_seconds: how long to wait for whoever holds it.
            progress: told whom it waits for.

        Raises:
            BuildLockedError: another process holds it; says which, and since when.
        """
        with build_lock(self.state, wait_seconds, progress):
            yield

    def names(self) -> list[str]:
        """Ids of all whole releases, oldest first."""
        found = sorted(self.directory.glob(f"*/{MANIFEST}")) if self.directory.exists() else []
        return [path.parent.name for path in found if not path.parent.name.startswith(".")]

    def all(self) -> list[Release]:
        """All whole releases, oldest first."""
        return [self._open(self.directory / name) for name in self.names()]

    def get(self, release_id: str) -> Release:
        """A release by its id."""
        self._require_name(release_id)
        path = self.directory / release_id
        if not (path / MANIFEST).exists():
            raise self._unknown(release_id)
        return self._open(path)

    def version(self, release_id: str) -> int:
        """Differs where the files of a release were replaced; 0 where there are none."""
        try:
            return (self.directory / release_id / MANIFEST).stat().st_ino
        except FileNotFoundError:
            return 0

    def _require_name(self, release_id: str) -> None:
        """An id is one name: with a slash it would be a path to files elsewhere."""
        if not _ID.fullmatch(release_id):
            raise self._unknown(release_id)

    def _unknown(self, release_id: str) -> UnknownReleaseError:
        return UnknownReleaseError(
            f"no release {release_id!r}; {nearest(release_id, self.names())}"
        )

    def current_id(self) -> str | None:
        """Id of the served release, or None."""
        try:
            return (self.directory / "CURRENT").read_text().strip() or None
        except FileNotFoundError:
            return None

    def current(self) -> tuple[Release, list[str]]:
        """The served release, verified, and why others that should be served are not.

        A release that fails verification is refused, and the one served before it is used.

        Raises:
            NoReleaseError: nothing was promoted yet.
            ReleaseError: no release of the history passes verification.
        """
        faults: list[str] = []
        for release_id in dict.fromkeys([self.current_id(), *reversed(self._read().history)]):
            if release_id is None:
                continue
            try:
                release = self.get(release_id)
                self.verify(release)
                return release, faults
            except ReleaseError as error:
                faults.append(f"refused: {error}")
        if faults:
            raise ReleaseError("\n".join(faults))
        raise NoReleaseError(f"{self.state}: no release yet; run: nextedge build")

    def _open(self, path: Path) -> Release:
        try:
            return parsed(path, (path / MANIFEST).read_bytes())
        except OSError as error:
            raise ReleaseError(f"{path / MANIFEST}: cannot be read: {error}") from None

    def announce_forgotten(self) -> None:
        """Let whoever builds know whom the list names; they read the folder's own."""

    def clear_work(self) -> None:
        """Remove what builds made on the way, and make anew."""
        for name in MADE_ANEW:
            shutil.rmtree(self.state / name, ignore_errors=True)

    def verify(self, release: Release, below: Collection[str] | None = None) -> None:
        """Check files against their hashes in the manifest.

        Args:
            below: only the files of these folders of the release; None = all.

        Raises:
            ReleaseError: a file is missing or was altered; names it.
        """
        for name, expected in release.manifest["files"].items():
            if below is not None and str(Path(name).parent) not in below:
                continue
            path = release.path / name
            if not path.is_file():
                raise ReleaseError(f"release {release.id}: the file {name} is missing")
            if file_hash(path) != expected:
                raise ReleaseError(f"release {release.id}: the file {name} was altered")

    def publish(
        self,
        config: Config,
        surfaces: tuple[str, ...],
        parts: Mapping[str, Path],
        *,
        promote: bool,
        progress: Progress = quiet,
    ) -> str:
        """Put the parts into a new release and, when asked, serve it from now on.

        Raises:
            StorageError: the disk is full; nothing is left behind, and what was served stays.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        self.clear()
        release_id = self._new_id()
        partial = self.directory / f".{release_id}.{os.getpid()}"
        try:
            with writing(partial):
                for place, source in parts.items():
                    _copy(source, partial / place)
                seal(partial, described(config, surfaces, partial))
                self.add(partial, release_id, progress)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        if promote:
            self.promote(release_id)
        return release_id

    def clear(self) -> None:
        """Remove what builds left that were killed; whoever holds the build lock is alone."""
        for left in self.directory.glob("*/"):
            if left.name.startswith(".") or not (left / MANIFEST).exists():
                shutil.rmtree(left, ignore_errors=True)

    def add(self, partial: Path, release_id: str, progress: Progress = quiet) -> None:
        """Let a sealed folder be a release from now on."""
        os.replace(partial, self.directory / release_id)

    def _new_id(self) -> str:
        stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
        number = 0
        while (self.directory / (name := f"{stamp}{f'-{number}' if number else ''}")).exists():
            number += 1
        return name

    def succeed(self, old: str, new: str) -> None:
        """Let one release stand wherever another stood; the old one goes."""
        while old in self.names():
            self._change(lambda pointers: pointers.replaced(old, new))
            with contextlib.suppress(ReleaseError):  # of a trial that cannot be read
                trial = self.trial()
                if trial is not None and trial.release == old:
                    self._set_trial(replace(trial, release=new))
            self._delete([old])

    def promote(self, release_id: str) -> None:
        """Serve a release from now on; one atomic swap.

        Raises:
            ReleaseError: there is no such release, or a file of it was altered.
        """
        self.verify(self.get(release_id))
        self._change(lambda pointers: pointers.promoted(release_id))

    def rollback(self) -> str:
        """Serve what was served before; returns its id."""

        def back(pointers: Pointers) -> Pointers:
            there = set(self.names())
            earlier = [n for n in pointers.history if n != pointers.current and n in there]
            if not earlier:
                raise ReleaseError("nothing to roll back to: no other release was served before")
            self.verify(self.get(earlier[-1]))
            return Pointers(earlier[-1], tuple(earlier))

        return str(self._change(back).current)

    def prune(self, keep: int = 3) -> list[str]:
        """Delete all but the newest ``keep`` releases and the served one; returns the deleted."""
        return self._delete(self.names()[:-keep])

    def _delete(self, release_ids: Sequence[str]) -> list[str]:
        """Delete those of some releases that answer nobody; returns them."""
        used = self.in_use()
        doomed = [name for name in release_ids if name not in used]
        for name in doomed:
            self._remove(name)
        return doomed

    def _remove(self, release_id: str) -> None:
        """Take a folder away: as a release at once, and then its files."""
        doomed = self.directory / f".{release_id}.doomed"
        with contextlib.suppress(FileNotFoundError):
            os.replace(self.directory / release_id, doomed)
            shutil.rmtree(doomed)

    def trial(self) -> Trial | None:
        """The trial that runs, or None."""
        try:
            return Trial(**json.loads((self.directory / "TRIAL").read_text()))
        except FileNotFoundError:
            return None
        except (TypeError, ValueError) as error:
            raise ReleaseError(f"{self.directory / 'TRIAL'}: cannot be read: {error}") from None

    def in_use(self) -> set[str]:
        """Ids of the releases that answer somebody."""
        trial = self.trial()
        return {name for name in (self.current_id(), trial and trial.release) if name}

    def start_trial(self, release_id: str, share: float, name: str | None = None) -> Trial:
        """Let a release answer a share of the users, beside the served one.

        Raises:
            InputError: the share is not between 0 and 1.
            ReleaseError: there is no such release, or a file of it was altered.
        """
        if not 0 < share < 1:
            raise InputError(f"share = {share}: expected more than 0 and less than 1")
        self.verify(self.get(release_id))
        trial = Trial(name or release_id, release_id, share)
        self._set_trial(trial)
        return trial

    def end_trial(self) -> None:
        """Let the served release answer everyone again."""
        self._set_trial(None)

    def _set_trial(self, trial: Trial | None) -> None:
        if trial is None:
            (self.directory / "TRIAL").unlink(missing_ok=True)
        else:
            self._replace("TRIAL", json.dumps(asdict(trial)))

    def _read(self) -> Pointers:
        try:
            history = tuple((self.directory / "HISTORY").read_text().split())
        except FileNotFoundError:
            history = ()
        return Pointers(self.current_id(), history)

    def _change(self, change: Callable[[Pointers], Pointers]) -> Pointers:
        """Change what is served; the history first, so that it knows all that ever was."""
        before = self._read()
        after = change(before)
        if after.history != before.history:
            self._replace("HISTORY", "\n".join(after.history) + "\n")
        if after.current is not None and after.current != before.current:
            self._replace("CURRENT", after.current)
        return after

    def _replace(self, name: str, text: str) -> None:
        replace_file(self.directory / name, text.encode())


def _copy(source: Path, target: Path) -> None:
    files = [source] if source.is_file() else sorted(f for f in source.rglob("*") if f.is_file())
    for file in files:
        if file.name != "done.json":
            place = target if file == source else target / file.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, place)  # no link: an altered release must not alter the work
