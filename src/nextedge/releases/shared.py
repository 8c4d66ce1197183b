"""Releases in a bucket: many machines publish, promote and serve the same ones.

The bucket holds ``releases/ID/…`` with its manifest written last, and one object, ``CURRENT``,
that names what is served, what was served before, the trial and the releases that are being
deleted. It changes only from the version that was read, so no change is ever lost, and it never
names a release that is not whole. The local folder holds copies of what was served here.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import secrets
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from nextedge.config import Config
from nextedge.errors import ReleaseError, UnknownReleaseError, nearest
from nextedge.progress import Progress, quiet
from nextedge.releases.current import NAME as CURRENT
from nextedge.releases.current import Current, Record
from nextedge.releases.erased_users import ForgottenObject
from nextedge.releases.lease import Lease, held_lease, lease_is_held
from nextedge.releases.manifest import MANIFEST, Release, parsed
from nextedge.releases.pointers import Pointers, Trial
from nextedge.releases.repository import Releases
from nextedge.storage.bucket import Bucket
from nextedge.storage.files import writing
from nextedge.storage.transfer import download_folder, files_below, upload_folder

_log = logging.getLogger("nextedge")
FOLDER = "releases"


class SharedReleases(Releases):
    """The releases of a bucket, over a local folder of copies."""

    def __init__(self, state: Path, bucket: Bucket) -> None:
        super().__init__(state)
        self.bucket = bucket
        self.forgotten = ForgottenObject(bucket.brief(), state)
        self._current = Current(bucket, self.directory, self.forgotten.pull, self.drop_copies)
        self._lease: Lease | None = None

    @contextlib.contextmanager
    def building(self, wait_seconds: float = 0.0, progress: Progress = quiet) -> Iterator[None]:
        """Hold the lock of the local folder and the lease of the bucket."""
        local = super().building(wait_seconds, progress)
        lease = held_lease(self.bucket, self.state, wait_seconds, progress)
        with local, lease as self._lease:
            try:
                self.forgotten.pull(clean=True)
                self.drop_copies()
                yield
            finally:
                self._lease = None

    def names(self) -> list[str]:
        """Ids of all whole releases of the bucket, oldest first; one listing."""
        whole, _ = self._listed()
        return whole

    def announce_forgotten(self) -> None:
        """Let every machine read the list of forgotten people that is here; under the build lock."""
        self.forgotten.push()
        self._current.write(lambda record: replace(record, writer=""))

    def clear_work(self) -> None:
        """Remove what builds made on the way, here and in the bucket."""
        super().clear_work()
        self.bucket.delete(entry.name for entry in self.bucket.entries("work"))

    def all(self) -> list[Release]:
        """All whole releases, oldest first; their files may not be here yet."""
        found = []
        for name in self.names():
            with contextlib.suppress(UnknownReleaseError):  # deleted meanwhile
                found.append(self._described(name))
        return found

    def get(self, release_id: str) -> Release:
        """A release by its id, its files downloaded where they are not here yet."""
        self._require_name(release_id)
        path = self.directory / release_id
        if not (path / MANIFEST).exists():
            self._download(release_id)
        return self._open(path)

    def verify(self, release: Release, below: Collection[str] | None = None) -> None:
        """Check files; a damaged copy is downloaded anew."""
        try:
            super().verify(release, below)
        except ReleaseError as error:
            _log.warning("%s: it is downloaded again", error)
            super()._remove(release.id)
            super().verify(self.get(release.id), below)

    def version(self, release_id: str) -> int:
        """The files of an id never change here."""
        return 0

    def current_id(self) -> str | None:
        """Id of the served release, as of the last look at the bucket."""
        return self._current.look().pointers.current

    def trial(self) -> Trial | None:
        """The trial that runs, as of the last look at the bucket."""
        return self._current.look().trial

    def in_use(self) -> set[str]:
        """Ids of the releases that answer somebody, as of now."""
        return self._current.fresh()[0].in_use

    def add(self, partial: Path, release_id: str, progress: Progress = quiet) -> None:
        """Upload a sealed folder, its manifest last; from then on it is a release."""
        prefix = f"{FOLDER}/{release_id}"
        names = [name for name in files_below(partial) if name != MANIFEST]
        upload_folder(self.bucket, prefix, partial, names, f"upload {release_id}", progress)
        if self._lease is not None:
            self._lease.check()
        manifest = (partial / MANIFEST).read_bytes()
        if self.bucket.create(f"{prefix}/{MANIFEST}", manifest) is None:
            raise ReleaseError(f"{self.bucket.url}/{prefix}: there is such a release already")
        super().add(partial, release_id)

    def clear(self) -> None:
        """Remove what killed builds left, here and, while the lease is held, in the bucket."""
        super().clear()
        if self._lease is not None:
            self._clear_bucket()

    def prune(self, keep: int = 3) -> list[str]:
        """Delete old releases, and the parts of those that were never whole."""
        self._delete(self._current.fresh()[0].doomed)  # by a run that was stopped
        pruned = super().prune(keep)
        if self._lease is None and not lease_is_held(self.bucket):
            self._clear_bucket()
        self.drop_copies()
        return pruned

    def drop_copies(self) -> None:
        """Remove local copies of releases that the bucket has no more."""
        there = set(self.names())
        for copy in self.directory.glob(f"*/{MANIFEST}"):
            if copy.parent.name not in there:
                super()._remove(copy.parent.name)

    def _new_id(self) -> str:
        """By the millisecond, and by chance: machines do not see each other's folders."""
        now = time.time()
        stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(now))
        return f"{stamp}-{int(now % 1 * 1000):03}-{secrets.token_hex(2)}"

    def _clear_bucket(self) -> None:
        _, parts = self._listed()
        self.bucket.delete(parts)

    def _listed(self) -> tuple[list[str], list[str]]:
        """Ids of whole releases, and objects of those that are not."""
        entries = [e.name for e in self.bucket.entries(FOLDER) if e.name != CURRENT]
        owner = {name: name.split("/")[1] for name in entries}
        whole = {owner[n] for n in entries if n == f"{FOLDER}/{owner[n]}/{MANIFEST}"}
        return sorted(whole), [name for name in entries if owner[name] not in whole]

    def _described(self, release_id: str) -> Release:
        """A release by its manifest alone."""
        path = self.directory / release_id
        if (path / MANIFEST).exists():
            return self._open(path)
        found = self.bucket.read(f"{FOLDER}/{release_id}/{MANIFEST}")
        if found is None:
            raise self._unknown(release_id)
        return parsed(path, found.data)

    def _unknown(self, release_id: str) -> UnknownReleaseError:
        near = nearest(release_id, self.names())
        return UnknownReleaseError(f"{self.bucket.url}: no release {release_id!r}; {near}")

    def _download(self, release_id: str) -> None:
        """Bring a release here, once, however many processes ask for it."""
        folder = self.state / "downloads"
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self.directory.mkdir(parents=True, exist_ok=True)
            lock = (folder / f"{release_id}.lock").open("w")
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if (self.directory / release_id / MANIFEST).exists():
                return
            found = self.bucket.read(f"{FOLDER}/{release_id}/{MANIFEST}")
            if found is None:
                raise self._unknown(release_id)
            release, partial = parsed(folder, found.data), folder / release_id
            shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
            _log.info("release %s: download from %s", release_id, self.bucket.url)
            download_folder(
                self.bucket,
                f"{FOLDER}/{release_id}",
                release.manifest["files"],
                partial,
                f"download {release_id}",
                quiet,
            )
            with writing(partial):
                (partial / MANIFEST).write_bytes(found.data)
            super().add(partial, release_id)

    def _delete(self, release_ids: Sequence[str]) -> list[str]:
        """Delete those that answer nobody; none of them is promoted from the first moment on."""
        if not release_ids:
            return []

        def doom(record: Record) -> Record:
            doomed = {*record.doomed, *release_ids} - record.in_use
            history = tuple(n for n in record.pointers.history if n not in doomed)
            pointers = replace(record.pointers, history=history)
            return replace(record, doomed=tuple(sorted(doomed)), pointers=pointers)

        doomed = self._current.write(doom).doomed
        gone = [name for name in release_ids if name in doomed]
        for name in gone:
            prefix = f"{FOLDER}/{name}"
            self.bucket.delete([f"{prefix}/{MANIFEST}"])
            self.bucket.delete(entry.name for entry in self.bucket.entries(prefix))
            super()._remove(name)
        self._current.write(
            lambda r: replace(r, doomed=tuple(n for n in r.doomed if n not in gone))
        )
        return gone

    def _read(self) -> Pointers:
        return self._current.look().pointers

    def _change(self, change: Callable[[Pointers], Pointers]) -> Pointers:
        def changed(record: Record) -> Record:
            pointers = change(record.pointers)
            self._require_whole(pointers.current, record)
            return replace(record, pointers=pointers)

        return self._current.write(changed).pointers

    def _set_trial(self, trial: Trial | None) -> None:
        def changed(record: Record) -> Record:
            self._require_whole(trial.release if trial else None, record)
            return replace(record, trial=trial)

        self._current.write(changed)

    def _require_whole(self, release_id: str | None, record: Record) -> None:
        """A release that is named must be in the bucket, with all its files."""
        if release_id is None or release_id in record.in_use:
            return
        prefix = f"{FOLDER}/{release_id}"
        there = {entry.name.removeprefix(f"{prefix}/") for entry in self.bucket.entries(prefix)}
        if release_id in record.doomed or MANIFEST not in there:
            raise UnknownReleaseError(
                f"{self.bucket.url}: no release {release_id!r}: it was deleted meanwhile"
            )
        missing = sorted(set(self._described(release_id).manifest["files"]) - there)
        if missing:
            raise ReleaseError(
                f"{self.bucket.url}: release {release_id}: the file {missing[0]} is missing"
            )


def open_releases(config: Config) -> Releases:
    """The releases of a tenant: of its state folder, or of its bucket."""
    bucket = open_bucket(config)
    return (
        Releases(config.state_path) if bucket is None else SharedReleases(config.state_path, bucket)
    )


def open_bucket(config: Config) -> Bucket | None:
    """The bucket of a tenant's state, or None where the state is a folder."""
    return None if config.state_url is None else Bucket(config.state_url)
