"""Objects under a URL of S3, Google Cloud Storage or Azure, through the library obstore.

Endpoint and credentials come from the environment, as for the stores' own tools; no configuration
and no message contains them. A reader gets a whole object or none. The store decides ``create`` and
``replace`` atomically, so one of two writers gets None.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nextedge.errors import BucketError, MissingDependencyError
from nextedge.storage.faults import fault, names_no_bucket
from nextedge.storage.files import writing
from nextedge.storage.opening import (
    BRIEF_SECONDS,
    PATIENT_SECONDS,
    check_fork,
    checked_url,
    open_store,
)

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_PART = 8 << 20
_PARTS_AT_ONCE = 2  # so 16 MB of a file are in memory


@dataclass(frozen=True)
class Version:
    """The version of an object, as its store names it."""

    etag: str | None
    number: str | None = None

    @classmethod
    def of(cls, metadata: Mapping[str, Any]) -> Version:
        """The version in the library's metadata of an object."""
        return cls(metadata.get("e_tag"), metadata.get("version"))


@dataclass(frozen=True)
class Blob:
    """A small object's content and version."""

    data: bytes
    version: Version


@dataclass(frozen=True)
class Entry:
    """An object of a listing; its name is relative to the bucket's URL, its size in bytes."""

    name: str
    size: int
    version: Version = field(repr=False)
    modified: datetime = field(repr=False)


class Unchanged(Exception):  # noqa: N818 - an answer, not a fault
    """The object has the known version."""


class Bucket:
    """The objects under a URL.

    Args:
        url: ``s3://bucket/prefix``, ``gs://…`` or ``az://container/prefix``.
        seconds: how long a failing request is repeated.

    Raises:
        ConfigError: the URL is not the URL of a bucket.
        MissingDependencyError: the library is not installed.
    """

    def __init__(self, url: str, seconds: float = PATIENT_SECONDS) -> None:
        self.url = checked_url(url)
        if importlib.util.find_spec("obstore") is None:
            raise MissingDependencyError("obstore", "s3", f"{self.url}:")
        self._seconds = seconds
        self._opened: ObjectStore | None = None

    def brief(self) -> Bucket:
        """The same objects, with requests that fail sooner."""
        return Bucket(self.url, BRIEF_SECONDS)

    @property
    def _store(self) -> Any:
        check_fork(self.url)
        if self._opened is None:
            self._opened = open_store(self.url, self._seconds)
        return self._opened

    def read(self, name: str, unless: Version | None = None) -> Blob | None:
        """Read a small object; None if there is none.

        Args:
            unless: a known version, which the store does not send again.

        Raises:
            Unchanged: the object is of this version.
            BucketError: the store refuses or is not reached.
        """
        from obstore.exceptions import NotModifiedError

        options = {"if_none_match": unless.etag} if unless and unless.etag else None
        try:
            with self._errors(name, "read"):
                answer = self._store.get(name, options=options)
                return Blob(bytes(answer.bytes()), Version.of(answer.meta))
        except NotModifiedError:
            raise Unchanged(name) from None
        except FileNotFoundError:
            return None

    def write(self, name: str, data: bytes) -> Version:
        """Write or overwrite a small object."""
        with self._errors(name, "written"):
            return Version.of(self._store.put(name, data))

    def create(self, name: str, data: bytes) -> Version | None:
        """Write a new object; None if it exists, which does not change it."""
        from obstore.exceptions import AlreadyExistsError

        try:
            with self._errors(name, "written"):
                return Version.of(self._store.put(name, data, mode="create"))
        except AlreadyExistsError:
            return self._version_of(name, data)

    def replace(self, name: str, data: bytes, known: Version) -> Version | None:
        """Overwrite a known version of an object; None if the object has another version."""
        from obstore.exceptions import PreconditionError

        versions = {"e_tag": known.etag, "version": known.number}
        mode = {name: value for name, value in versions.items() if value is not None}
        try:
            with self._errors(name, "written"):
                return Version.of(self._store.put(name, data, mode=mode))
        except PreconditionError:
            return self._version_of(name, data)
        except FileNotFoundError:  # it was deleted meanwhile
            return None

    def _version_of(self, name: str, data: bytes) -> Version | None:
        """The version of the object if its content is ``data``.

        So two writers who compete must write different content.
        """
        # a request may succeed and lose its answer: its repeat then meets its own object
        blob = self.read(name)
        return blob.version if blob is not None and blob.data == data else None

    def entries(self, prefix: str) -> list[Entry]:
        """All objects below a prefix (without a slash at its end), by name."""
        with self._errors(prefix, "listed"):
            entries = [
                Entry(row["path"], row["size"], Version.of(row), row["last_modified"])
                for chunk in self._store.list(prefix, chunk_size=1000)
                for row in chunk
            ]
        return sorted(entries, key=lambda entry: entry.name)

    def delete(self, names: Iterable[str]) -> None:
        """Delete objects; missing ones are no error."""
        doomed = list(names)
        if not doomed:
            return
        with self._errors(doomed[0], "deleted"):
            try:
                self._store.delete(doomed)
            except FileNotFoundError:  # some stores stop at a missing one
                for name in doomed:
                    with contextlib.suppress(FileNotFoundError):
                        self._store.delete(name)

    def modified(self, name: str) -> datetime | None:
        """Time of an object's last write, by the clock of the store; None if there is no object."""
        entry = self.entry(name)
        return None if entry is None else entry.modified

    def entry(self, name: str) -> Entry | None:
        """The listing entry of one object; None if there is none."""
        try:
            with self._errors(name, "read"):
                head = self._store.head(name)
        except FileNotFoundError:
            return None
        return Entry(name, head["size"], Version.of(head), head["last_modified"])

    def now(self) -> datetime:
        """The time by the clock of the store, as clocks of machines differ; costs three requests."""
        name = f"clock/{secrets.token_hex(8)}"
        self.write(name, b"")
        time_written = self.modified(name)
        self.delete([name])
        if time_written is None:
            raise BucketError(f"{self.url}/{name}: was written and is not there")
        return time_written

    def upload(self, name: str, path: Path) -> None:
        """Upload a file, a large one in parts; at most 16 MB are in memory."""
        with self._errors(name, "written"):
            self._store.put(name, path, chunk_size=_PART, max_concurrency=_PARTS_AT_ONCE)

    def download(self, name: str, path: Path) -> str:
        """Download an object; returns the SHA-256 of its bytes.

        Raises:
            BucketError: there is none, or the store refuses.
            StorageError: the disk refuses.
        """
        ends = time.monotonic() + self._seconds
        while True:
            try:
                return self._download(name, path)
            except FileNotFoundError:
                raise BucketError(f"{self.url}/{name}: no such object") from None
            except BucketError as error:
                if not error.passing or time.monotonic() > ends:
                    raise
                time.sleep(0.2)

    def _download(self, name: str, path: Path) -> str:
        digest = hashlib.sha256()
        with self._errors(name, "read"):
            stream = iter(self._store.get(name).stream(min_chunk_size=_PART))
        with writing(path), path.open("wb") as file:
            while True:
                with self._errors(name, "read"):
                    part = next(stream, None)
                if part is None:
                    return digest.hexdigest()
                digest.update(part)
                file.write(part)

    @contextlib.contextmanager
    def _errors(self, name: str, what: str) -> Iterator[None]:
        """Raise errors of the library as BucketError, except those that callers handle."""
        from obstore.exceptions import (
            AlreadyExistsError,
            BaseError,
            NotModifiedError,
            PreconditionError,
        )

        try:
            yield
        except (AlreadyExistsError, NotModifiedError):
            raise
        except (PreconditionError, FileNotFoundError) as error:
            if names_no_bucket(error):
                raise fault(f"{self.url}/{name}", what, error) from None
            raise
        except BaseError as error:
            raise fault(f"{self.url}/{name}", what, error) from None
