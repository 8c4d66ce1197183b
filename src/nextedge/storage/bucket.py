"""Objects under one URL of S3, Google Cloud Storage or Azure, by one library (obstore).

Endpoint and credentials come from the environment, as the stores' own tools read them; none is
in a configuration, and none is in a message. What is written whole is seen whole or not at all;
``create`` and ``replace`` are decided by the store, so that of two writers one is told it lost.
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
_PARTS_AT_ONCE = 2


@dataclass(frozen=True)
class Version:
    """Which state of an object was read or written, as its store tells them apart."""

    etag: str | None
    number: str | None = None

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> Version:
        """Of what the library says of an object."""
        return cls(found.get("e_tag"), found.get("version"))


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
    """An object is as it was."""


class Bucket:
    """The objects under a URL.

    Args:
        url: ``s3://bucket/prefix``, ``gs://…`` or ``az://container/prefix``.
        seconds: for how long a request that fails is tried again.

    Raises:
        ConfigError: it is no such URL.
        MissingDependencyError: the library is not installed.
    """

    def __init__(self, url: str, seconds: float = PATIENT_SECONDS) -> None:
        self.url = checked_url(url)
        if importlib.util.find_spec("obstore") is None:
            raise MissingDependencyError("obstore", "s3", f"{self.url}:")
        self._seconds = seconds
        self._opened: ObjectStore | None = None

    def brief(self) -> Bucket:
        """The same objects, by requests that give up soon."""
        return Bucket(self.url, BRIEF_SECONDS)

    @property
    def _store(self) -> Any:
        check_fork(self.url)
        if self._opened is None:
            self._opened = open_store(self.url, self._seconds)
        return self._opened

    def read(self, name: str, unless: Version | None = None) -> Blob | None:
        """A small object, or None where there is none.

        Args:
            unless: the version that is known; it is not sent again.

        Raises:
            Unchanged: the object is of the version that is known.
            BucketError: the store refuses or is not reached.
        """
        from obstore.exceptions import NotModifiedError

        options = {"if_none_match": unless.etag} if unless and unless.etag else None
        try:
            with self._told(name, "read"):
                found = self._store.get(name, options=options)
                return Blob(bytes(found.bytes()), Version.of(found.meta))
        except NotModifiedError:
            raise Unchanged(name) from None
        except FileNotFoundError:
            return None

    def write(self, name: str, data: bytes) -> Version:
        """Write a small object, whether there is one or not."""
        with self._told(name, "written"):
            return Version.of(self._store.put(name, data))

    def create(self, name: str, data: bytes) -> Version | None:
        """Write an object that is not there; None where it is, and stays."""
        from obstore.exceptions import AlreadyExistsError

        try:
            with self._told(name, "written"):
                return Version.of(self._store.put(name, data, mode="create"))
        except AlreadyExistsError:
            return self._mine(name, data)

    def replace(self, name: str, data: bytes, known: Version) -> Version | None:
        """Write an object over the version that is known; None where it is another by now."""
        from obstore.exceptions import PreconditionError

        given = {"e_tag": known.etag, "version": known.number}
        mode = {name: value for name, value in given.items() if value is not None}
        try:
            with self._told(name, "written"):
                return Version.of(self._store.put(name, data, mode=mode))
        except PreconditionError:
            return self._mine(name, data)
        except FileNotFoundError:  # it was deleted meanwhile
            return None

    def _mine(self, name: str, data: bytes) -> Version | None:
        """The version of what stands there if it is ``data``.

        A request may be done though its answer was lost; made again, it meets its own work.
        Writers that must be told apart write something that differs.
        """
        found = self.read(name)
        return found.version if found is not None and found.data == data else None

    def entries(self, prefix: str) -> list[Entry]:
        """All objects below a prefix (without a slash at its end), by name."""
        with self._told(prefix, "listed"):
            found = [
                Entry(each["path"], each["size"], Version.of(each), each["last_modified"])
                for chunk in self._store.list(prefix, chunk_size=1000)
                for each in chunk
            ]
        return sorted(found, key=lambda entry: entry.name)

    def delete(self, names: Iterable[str]) -> None:
        """Delete objects; those that are gone are no fault."""
        doomed = list(names)
        if not doomed:
            return
        with self._told(doomed[0], "deleted"):
            try:
                self._store.delete(doomed)
            except FileNotFoundError:  # some stores end at one that is gone
                for name in doomed:
                    with contextlib.suppress(FileNotFoundError):
                        self._store.delete(name)

    def modified(self, name: str) -> datetime | None:
        """When an object was written, by the clock of the store; None where there is none."""
        found = self.entry(name)
        return None if found is None else found.modified

    def entry(self, name: str) -> Entry | None:
        """What a listing says of one object; None where there is none."""
        try:
            with self._told(name, "read"):
                found = self._store.head(name)
        except FileNotFoundError:
            return None
        return Entry(name, found["size"], Version.of(found), found["last_modified"])

    def now(self) -> datetime:
        """The clock of the store: clocks of machines differ. Costs three requests."""
        name = f"clock/{secrets.token_hex(8)}"
        self.write(name, b"")
        found = self.modified(name)
        self.delete([name])
        if found is None:
            raise BucketError(f"{self.url}/{name}: was written and is not there")
        return found

    def upload(self, name: str, path: Path) -> None:
        """Put a file into an object, in parts where it is large; at most 16 MB are in memory."""
        with self._told(name, "written"):
            self._store.put(name, path, chunk_size=_PART, max_concurrency=_PARTS_AT_ONCE)

    def download(self, name: str, path: Path) -> str:
        """Put an object into a file; returns the SHA-256 of its bytes.

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
        with self._told(name, "read"):
            stream = iter(self._store.get(name).stream(min_chunk_size=_PART))
        with writing(path), path.open("wb") as file:
            while True:
                with self._told(name, "read"):
                    part = next(stream, None)
                if part is None:
                    return digest.hexdigest()
                digest.update(part)
                file.write(part)

    @contextlib.contextmanager
    def _told(self, name: str, what: str) -> Iterator[None]:
        """Say the library's errors in words; those that are answers pass."""
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
