"""Objects under one URL of S3, Google Cloud Storage or Azure, by one library (obstore).

Endpoint and credentials come from the environment, as the stores' own tools read them; none is
in a configuration, and none is in a message. What is written whole is seen whole or not at all;
``create`` and ``replace`` are decided by the store, so that of two writers one is told it lost.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import re
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nextedge.errors import BucketError, ConfigError, MissingDependencyError
from nextedge.storage import writing

if TYPE_CHECKING:
    from obstore.store import ObjectStore

SCHEMES = ("s3", "gs", "az")
PATIENT_SECONDS = 60.0
"""How long a request of a build or of a download is tried again, with growing pauses."""
BRIEF_SECONDS = 3.0
"""The same for those that are made again anyway: looks for promotions, renewals of a lease."""
_PART = 8 << 20
_PARTS_AT_ONCE = 2
_URL = re.compile(r"(s3|gs|az)://([A-Za-z0-9][A-Za-z0-9._-]*)(/.*)?")
_TAG = re.compile(r"<Code>(\w+)</Code>")
_CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (AWS_SESSION_TOKEN, too, where there is one)",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}
_ENDPOINT = {
    "s3": "AWS_ENDPOINT_URL (http:// also needs AWS_ALLOW_HTTP=true) and AWS_REGION",
    "gs": "the network",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ENDPOINT",
}
_ENDPOINTS = (
    "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT", "AZURE_STORAGE_ENDPOINT",
    "AZURE_ENDPOINT",
)  # fmt: skip
_used_by: set[int] = set()


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


def is_bucket(location: str) -> bool:
    """Whether a location is a URL of an object store."""
    return "://" in location and location.partition("://")[0] in SCHEMES


def checked_url(url: str) -> str:
    """The URL of a bucket, or of a prefix in one, without a slash at its end.

    Raises:
        ConfigError: it is none; a login in it is not repeated.
    """
    if "@" in url:
        raise ConfigError(
            f"{url.partition('://')[0]}://…: a URL of a bucket holds no credentials; they come "
            f"from the environment (docs/storage.md)"
        )
    if not _URL.fullmatch(url) or "?" in url or "#" in url:
        raise ConfigError(f"{url}: expected s3://bucket/prefix, gs://… or az://container/prefix")
    return url.rstrip("/")


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
        _check_fork(self.url)
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
        with self._told(doomed[0], "deleted"), contextlib.suppress(FileNotFoundError):
            self._store.delete(doomed)

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
            if _says(error, "NoSuchBucket", "ContainerNotFound", "bucket does not exist"):
                raise fault(f"{self.url}/{name}", what, error) from None
            raise
        except BaseError as error:
            raise fault(f"{self.url}/{name}", what, error) from None


class Unchanged(Exception):  # noqa: N818 - an answer, not a fault
    """An object is as it was."""


def open_store(url: str, seconds: float) -> ObjectStore:
    """The library's store of a URL, with the environment's settings.

    Raises:
        ConfigError: the environment's settings are refused.
    """
    from obstore.exceptions import BaseError
    from obstore.store import from_url

    for name in _ENDPOINTS:  # the library ends the process at one that is no URL
        if not re.match(r"https?://[^/]", os.environ.get(name, "http://host")):
            raise ConfigError(f"{name} = {os.environ[name]!r}: expected http://… or https://…")
    try:
        return from_url(url, client_options=client_options(), retry_config=retry_config(seconds))
    except BaseError as error:
        scheme = url.partition("://")[0]
        raise ConfigError(
            f"{url}: cannot be opened: {_first_line(error)}; check {_CREDENTIALS.get(scheme)}"
        ) from None


def client_options() -> Any:
    """Waits of a request: for a connection, and for more of an answer; any size may take its time.

    The environment's word on plain HTTP is not looked at where options are given, so it is here.
    """
    plain = (os.environ.get(f"{name}_ALLOW_HTTP", "") for name in ("AWS", "GOOGLE", "AZURE"))
    return {
        "allow_http": any(each.lower() in ("true", "1", "yes") for each in plain),
        "connect_timeout": timedelta(seconds=5),
        "read_timeout": timedelta(seconds=30),
        "timeout": timedelta(hours=6),
    }


def retry_config(seconds: float) -> Any:
    """How often a request is made again that was refused with 5xx, or whose connection broke."""
    backoff = {
        "init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=5), "base": 2,
    }  # fmt: skip
    retries = 2 if seconds <= BRIEF_SECONDS else 12
    return {
        "max_retries": retries, "retry_timeout": timedelta(seconds=seconds), "backoff": backoff,
    }  # fmt: skip


def fault(where: str, what: str, error: Exception) -> BucketError:
    """What the library says, in words that name the object and what to do."""
    scheme = where.partition("://")[0]
    name = type(error).__name__
    if _says(error, "NoSuchBucket", "ContainerNotFound", "bucket does not exist"):
        return BucketError(f"{where}: there is no such bucket; create it, or correct its name")
    if _says(error, "169.254.169.254", "/latest/api/token", "metadata.google.internal", "/oauth2/token", "No credentials", "MissingToken"):  # fmt: skip
        return BucketError(
            f"{where}: cannot be {what}: no credentials were found; set {_CREDENTIALS.get(scheme)}"
        )
    if name == "UnauthenticatedError" or _says(error, "InvalidAccessKeyId", "SignatureDoesNotMatch"):  # fmt: skip
        return BucketError(
            f"{where}: cannot be {what}: the credentials are refused ({_code(error)}); check "
            f"{_CREDENTIALS.get(scheme)}"
        )
    if name == "PermissionDeniedError" or _says(error, "AccessDenied", "403 Forbidden"):
        return BucketError(
            f"{where}: cannot be {what}: access denied ({_code(error)}); let these credentials "
            f"list, read, write and delete there"
        )
    if _says(error, "builder error"):
        return BucketError(
            f"{where}: cannot be {what}: the endpoint is plain HTTP or no URL; check "
            f"{_ENDPOINT.get(scheme)}"
        )
    if _says(error, "error sending request", "dns error", "Connect"):
        return BucketError(
            f"{where}: cannot be {what}: the store is not reached; check {_ENDPOINT.get(scheme)}",
            passing=True,
        )
    passing = _says(error, " 500 ", " 502 ", " 503 ", " 504 ", "429", "body", "timed out")
    return BucketError(
        f"{where}: cannot be {what}: {_code(error)}; try again, or look at the store's own state",
        passing=passing,
    )


def _says(error: Exception, *words: str) -> bool:
    text = str(error)
    return any(word in text for word in words)


def _code(error: Exception) -> str:
    """The store's own code of an error, or its status, or the library's first line."""
    text = str(error)
    if found := _TAG.search(text):
        return found[1]
    if status := re.search(r"status code: (\d{3} [A-Za-z ]+)", text):
        return status[1].strip()
    return _first_line(error)


def _first_line(error: Exception) -> str:
    """Without the query of a URL, where a signature may stand."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return re.sub(r"\?\S+", "", line)[:300]


def _check_fork(url: str) -> None:
    """A child of a process that has used the library would wait for ever."""
    _used_by.add(os.getpid())
    if len(_used_by) > 1:
        raise BucketError(
            f"{url}: cannot be used in a process that was forked from one that had used it; make "
            f"the Recommender after the fork"
        )
