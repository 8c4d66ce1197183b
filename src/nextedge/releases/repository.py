"""The releases of a state folder: publish, list, promote, roll back, verify, prune.

A release is a directory that never changes once it has its name. The file ``CURRENT`` names the
served release and is replaced atomically; ``HISTORY`` lists the releases served so far.
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
from nextedge.releases.manifest import MANIFEST, Release, file_hash, new_manifest, parsed, seal
from nextedge.releases.pointers import Pointers, Trial
from nextedge.storage.files import replace_file, writing

WORK_FOLDERS = ("work", "text", "spill")
"""Folders of the state that a build creates again when they are missing."""
# A release id is one name: an id with a slash would be a path to files outside the folder.
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class Releases:
    """The releases under ``<state>/releases``."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.directory = state / "releases"

    @contextlib.contextmanager
    def building(self, wait_seconds: float = 0.0, progress: Progress = quiet) -> Iterator[None]:
        """Hold the build lock, which also allows rewriting releases.

        Args:
            wait_seconds: how long to wait for the process that holds the lock.
            progress: reports that process while waiting.

        Raises:
            BuildLockedError: another process holds the lock; names it, and since when.
        """
        with build_lock(self.state, wait_seconds, progress):
            yield

    def names(self) -> list[str]:
        """Ids of all complete releases, oldest first."""
        folders = sorted(path.parent.name for path in self.directory.glob(f"*/{MANIFEST}"))
        return [name for name in folders if not name.startswith(".")]

    def all(self) -> list[Release]:
        """All complete releases, oldest first."""
        return [self._open(self.directory / name) for name in self.names()]

    def get(self, release_id: str) -> Release:
        """A release by its id."""
        self._require_valid_id(release_id)
        path = self.directory / release_id
        if not (path / MANIFEST).exists():
            raise self._unknown(release_id)
        return self._open(path)

    def version(self, release_id: str) -> int:
        """A number that changes when the files of a release are replaced; 0 without files."""
        try:
            return (self.directory / release_id / MANIFEST).stat().st_ino
        except FileNotFoundError:
            return 0

    def _require_valid_id(self, release_id: str) -> None:
        if not _ID.fullmatch(release_id):
            raise self._unknown(release_id)

    def _unknown(self, release_id: str) -> UnknownReleaseError:
        return UnknownReleaseError(
            f"no release {release_id!r}; {nearest(release_id, self.names())}"
        )

    def current_id(self) -> str | None:
        """Id of the served release; None before the first promotion."""
        try:
            return (self.directory / "CURRENT").read_text().strip() or None
        except FileNotFoundError:
            return None

    def current(self) -> tuple[Release, list[str]]:
        """The served release, verified, and the faults of the releases refused before it.

        Raises:
            NoReleaseError: no release was promoted yet.
            ReleaseError: no release of the history passes verification.
        """
        faults: list[str] = []
        # A damaged release must not stop serving: the one served before it answers instead.
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

    def announce_erased_users(self) -> None:
        """Publish the list of erased users to other machines; a local folder has none."""

    def clear_work(self) -> None:
        """Remove intermediate files of builds; the next build creates them again."""
        for name in WORK_FOLDERS:
            shutil.rmtree(self.state / name, ignore_errors=True)

    def verify(self, release: Release, below: Collection[str] | None = None) -> None:
        """Check files against their hashes in the manifest.

        Args:
            below: check only the files of these folders of the release; None = all.

        Raises:
            ReleaseError: a file is missing or altered; names it.
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
        """Create a release from its parts and return its id; promote it if ``promote``.

        Raises:
            StorageError: the disk is full; no partial release stays, and serving does not change.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        self.clear()
        release_id = self._new_id()
        partial = self.directory / f".{release_id}.{os.getpid()}"
        try:
            with writing(partial):
                for name, source in parts.items():
                    _copy(source, partial / name)
                seal(partial, new_manifest(config, surfaces, partial))
                self.add(partial, release_id, progress)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        if promote:
            self.promote(release_id)
        return release_id

    def clear(self) -> None:
        """Remove the partial releases of killed builds; needs the build lock."""
        for folder in self.directory.glob("*/"):
            if folder.name.startswith(".") or not (folder / MANIFEST).exists():
                shutil.rmtree(folder, ignore_errors=True)

    def add(self, partial: Path, release_id: str, progress: Progress = quiet) -> None:
        """Turn a sealed folder into a release."""
        # One rename: a reader sees the whole release or none.
        os.replace(partial, self.directory / release_id)

    def _new_id(self) -> str:
        stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
        number = 0
        while (self.directory / (name := f"{stamp}{f'-{number}' if number else ''}")).exists():
            number += 1
        return name

    def succeed(self, old: str, new: str) -> None:
        """Replace a release by another in all pointers, and delete the old one."""
        # ``_delete`` leaves a release that is in use, so repeat if another process promoted it.
        while old in self.names():
            self._change(lambda pointers: pointers.replaced(old, new))
            with contextlib.suppress(ReleaseError):  # an unreadable trial names no release
                trial = self.trial()
                if trial is not None and trial.release == old:
                    self._set_trial(replace(trial, release=new))
            self._delete([old])

    def promote(self, release_id: str) -> None:
        """Serve a release from now on, by one atomic swap.

        Raises:
            ReleaseError: the release does not exist, or one of its files is altered.
        """
        self.verify(self.get(release_id))
        self._change(lambda pointers: pointers.promoted(release_id))

    def rollback(self) -> str:
        """Serve the previously served release again; returns its id."""

        def back(pointers: Pointers) -> Pointers:
            names = set(self.names())
            earlier = [n for n in pointers.history if n != pointers.current and n in names]
            if not earlier:
                raise ReleaseError("nothing to roll back to: no other release was served before")
            self.verify(self.get(earlier[-1]))
            return Pointers(earlier[-1], tuple(earlier))

        return str(self._change(back).current)

    def prune(self, keep: int = 3) -> list[str]:
        """Delete all but the newest ``keep`` releases and those in use; returns the deleted ids."""
        return self._delete(self.names()[:-keep])

    def _delete(self, release_ids: Sequence[str]) -> list[str]:
        """Delete the releases that are not in use; returns their ids."""
        used = self.in_use()
        unused = [name for name in release_ids if name not in used]
        for name in unused:
            self._remove(name)
        return unused

    def _remove(self, release_id: str) -> None:
        doomed = self.directory / f".{release_id}.doomed"
        with contextlib.suppress(FileNotFoundError):
            # Rename first: no reader opens a release of which some files are deleted already.
            os.replace(self.directory / release_id, doomed)
            shutil.rmtree(doomed)

    def trial(self) -> Trial | None:
        """The running trial, or None."""
        try:
            return Trial(**json.loads((self.directory / "TRIAL").read_text()))
        except FileNotFoundError:
            return None
        except (TypeError, ValueError) as error:
            raise ReleaseError(f"{self.directory / 'TRIAL'}: cannot be read: {error}") from None

    def in_use(self) -> set[str]:
        """Ids of the served release and of the release on trial."""
        trial = self.trial()
        return {name for name in (self.current_id(), trial and trial.release) if name}

    def start_trial(self, release_id: str, share: float, name: str | None = None) -> Trial:
        """Serve a share of the users from another release.

        Raises:
            InputError: the share is not between 0 and 1.
            ReleaseError: the release does not exist, or one of its files is altered.
        """
        if not 0 < share < 1:
            raise InputError(f"share = {share}: expected more than 0 and less than 1")
        self.verify(self.get(release_id))
        trial = Trial(name or release_id, release_id, share)
        self._set_trial(trial)
        return trial

    def end_trial(self) -> None:
        """Serve all users from the served release again."""
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
        before = self._read()
        after = change(before)
        # The history first: a crash between the two files then loses no release that was served.
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
            copy = target if file == source else target / file.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)  # no link: an altered release must not alter the work
