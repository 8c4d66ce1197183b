"""Releases in a bucket: many machines publish, promote and serve the same releases.

The bucket has ``releases/ID/…``, each with its manifest written last, and one object,
``CURRENT``: the served release, its predecessors, the trial and the releases being deleted.
``CURRENT`` changes by compare-and-swap and never names an incomplete release. The local folder
has copies of the releases served on this machine.
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
from nextedge.releases.erased_users import ErasedUsersObject
from nextedge.releases.lease import Lease, acquire_lease, lease_is_held
from nextedge.releases.manifest import MANIFEST, Release, parsed
from nextedge.releases.pointers import Pointers, Trial
from nextedge.releases.repository import Releases
from nextedge.storage.bucket import Bucket
from nextedge.storage.files import writing
from nextedge.storage.transfer import download_folder, files_below, upload_folder

_log = logging.getLogger("nextedge")
FOLDER = "releases"


class SharedReleases(Releases):
    """The releases of a bucket, with a local folder of copies."""

    def __init__(self, state: Path, bucket: Bucket) -> None:
        super().__init__(state)
        self.bucket = bucket
        self._erased = ErasedUsersObject(bucket.brief(), state)
        self._current = Current(bucket, self.directory, self._erased.pull, self.drop_copies)
        self._lease: Lease | None = None

    @contextlib.contextmanager
    def building(self, wait_seconds: float = 0.0, progress: Progress = quiet) -> Iterator[None]:
        """Hold the lock of the local folder and the lease of the bucket."""
        local = super().building(wait_seconds, progress)
        lease = acquire_lease(self.bucket, self.state, wait_seconds, progress)
        # The local lock first: it proves that a lease of this folder belongs to a dead build.
        with local, lease as self._lease:
            try:
                self._erased.pull(clean=True)
                self.drop_copies()
                yield
            finally:
                self._lease = None

    def names(self) -> list[str]:
        """Ids of all complete releases of the bucket, oldest first; one listing."""
        return self._list()[0]

    def announce_erased_users(self) -> None:
        """Upload the local list of erased users; needs the build lock."""
        self._erased.push()
        # A new writer token makes every machine read ``CURRENT``, and with it the list.
        self._current.write(lambda record: replace(record, writer=""))

    def clear_work(self) -> None:
        """Remove intermediate files of builds, local and in the bucket."""
        super().clear_work()
        self.bucket.delete(entry.name for entry in self.bucket.entries("work"))

    def all(self) -> list[Release]:
        """All complete releases, oldest first; downloads only their manifests."""
        releases = []
        for name in self.names():
            with contextlib.suppress(UnknownReleaseError):  # deleted meanwhile
                releases.append(self._read_manifest(name))
        return releases

    def get(self, release_id: str) -> Release:
        """A release by its id; downloads its files if there is no local copy."""
        self._require_valid_id(release_id)
        path = self.directory / release_id
        if not (path / MANIFEST).exists():
            self._download(release_id)
        return self._open(path)

    def verify(self, release: Release, below: Collection[str] | None = None) -> None:
        """Check files against the manifest; downloads a damaged copy again."""
        try:
            super().verify(release, below)
        except ReleaseError as error:
            _log.warning("%s: it is downloaded again", error)
            super()._remove(release.id)
            super().verify(self.get(release.id), below)

    def version(self, release_id: str) -> int:
        """0: the files of a release in a bucket never change."""
        return 0

    def current_id(self) -> str | None:
        """Id of the served release, at most a few seconds old."""
        return self._current.look().pointers.current

    def trial(self) -> Trial | None:
        """The running trial, at most a few seconds old."""
        return self._current.look().trial

    def in_use(self) -> set[str]:
        """Ids of the served release and of the release on trial, as of now."""
        return self._current.fresh()[0].in_use

    def add(self, partial: Path, release_id: str, progress: Progress = quiet) -> None:
        """Upload a sealed folder, which then is a release."""
        # The manifest last: a release without one is incomplete and ignored.
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
        """Remove partial releases: local ones and, during a build, those of the bucket."""
        super().clear()
        if self._lease is not None:
            self._clear_bucket()

    def prune(self, keep: int = 3) -> list[str]:
        """Delete old releases and partial ones; returns the ids of the deleted."""
        self._delete(self._current.fresh()[0].doomed)  # left by a stopped run
        pruned = super().prune(keep)
        # Without a running build, objects without a manifest belong to a killed one.
        if self._lease is None and not lease_is_held(self.bucket):
            self._clear_bucket()
        self.drop_copies()
        return pruned

    def drop_copies(self) -> None:
        """Remove local copies of releases that are no longer in the bucket."""
        names = set(self.names())
        for copy in self.directory.glob(f"*/{MANIFEST}"):
            if copy.parent.name not in names:
                super()._remove(copy.parent.name)

    def _new_id(self) -> str:
        # Milliseconds and a random part: machines do not see each other's folders.
        now = time.time()
        stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(now))
        return f"{stamp}-{int(now % 1 * 1000):03}-{secrets.token_hex(2)}"

    def _clear_bucket(self) -> None:
        self.bucket.delete(self._list()[1])

    def _list(self) -> tuple[list[str], list[str]]:
        """Ids of complete releases, and the objects of incomplete ones."""
        entries = [e.name for e in self.bucket.entries(FOLDER) if e.name != CURRENT]
        owner = {name: name.split("/")[1] for name in entries}
        complete = {owner[n] for n in entries if n == f"{FOLDER}/{owner[n]}/{MANIFEST}"}
        return sorted(complete), [name for name in entries if owner[name] not in complete]

    def _read_manifest(self, release_id: str) -> Release:
        """A release without its files: from the local copy, or from the bucket's manifest."""
        path = self.directory / release_id
        if (path / MANIFEST).exists():
            return self._open(path)
        return parsed(path, self._manifest_bytes(release_id))

    def _manifest_bytes(self, release_id: str) -> bytes:
        blob = self.bucket.read(f"{FOLDER}/{release_id}/{MANIFEST}")
        if blob is None:
            raise self._unknown(release_id)
        return blob.data

    def _unknown(self, release_id: str) -> UnknownReleaseError:
        near = nearest(release_id, self.names())
        return UnknownReleaseError(f"{self.bucket.url}: no release {release_id!r}; {near}")

    def _download(self, release_id: str) -> None:
        """Download a release; concurrent processes download it once."""
        folder = self.state / "downloads"
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self.directory.mkdir(parents=True, exist_ok=True)
            lock = (folder / f"{release_id}.lock").open("w")
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if (self.directory / release_id / MANIFEST).exists():
                return
            manifest = self._manifest_bytes(release_id)
            files, partial = parsed(folder, manifest).manifest["files"], folder / release_id
            shutil.rmtree(partial, ignore_errors=True)  # left by a killed process
            _log.info("release %s: download from %s", release_id, self.bucket.url)
            prefix, label = f"{FOLDER}/{release_id}", f"download {release_id}"
            download_folder(self.bucket, prefix, files, partial, label, quiet)
            with writing(partial):
                (partial / MANIFEST).write_bytes(manifest)
            super().add(partial, release_id)

    def _delete(self, release_ids: Sequence[str]) -> list[str]:
        """Delete the releases that are not in use; returns their ids."""
        if not release_ids:
            return []

        def doom(record: Record) -> Record:
            doomed = {*record.doomed, *release_ids} - record.in_use
            history = tuple(n for n in record.pointers.history if n not in doomed)
            pointers = replace(record.pointers, history=history)
            return replace(record, doomed=tuple(sorted(doomed)), pointers=pointers)

        # Doomed in ``CURRENT`` first: no machine promotes a release that loses its files.
        doomed = self._current.write(doom).doomed
        gone = [name for name in release_ids if name in doomed]
        for name in gone:
            prefix = f"{FOLDER}/{name}"
            # The manifest first: what remains after a crash is a partial release.
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
            self._require_complete(pointers.current, record)
            return replace(record, pointers=pointers)

        return self._current.write(changed).pointers

    def _set_trial(self, trial: Trial | None) -> None:
        def changed(record: Record) -> Record:
            self._require_complete(trial.release if trial else None, record)
            return replace(record, trial=trial)

        self._current.write(changed)

    def _require_complete(self, release_id: str | None, record: Record) -> None:
        """Raise unless the bucket has the release with all its files."""
        if release_id is None or release_id in record.in_use:
            return
        prefix = f"{FOLDER}/{release_id}"
        files = {entry.name.removeprefix(f"{prefix}/") for entry in self.bucket.entries(prefix)}
        if release_id in record.doomed or MANIFEST not in files:
            raise UnknownReleaseError(
                f"{self.bucket.url}: no release {release_id!r}: it was deleted meanwhile"
            )
        missing = sorted(set(self._read_manifest(release_id).manifest["files"]) - files)
        if missing:
            raise ReleaseError(
                f"{self.bucket.url}: release {release_id}: the file {missing[0]} is missing"
            )


def open_releases(config: Config) -> Releases:
    """The releases of a tenant's state folder or bucket."""
    bucket, state = open_bucket(config), config.state_path
    return Releases(state) if bucket is None else SharedReleases(state, bucket)


def open_bucket(config: Config) -> Bucket | None:
    """The bucket of a tenant's state; None if the state is a folder."""
    return None if config.state_url is None else Bucket(config.state_url)
