"""The fingerprint of a build's inputs: it changes whenever their content may have changed."""

from __future__ import annotations

import glob
import hashlib
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from nextedge.config import Config
from nextedge.engines.duckdb.objects import find_objects
from nextedge.events.to_tables.connections import last_event
from nextedge.storage.opening import is_bucket

if TYPE_CHECKING:
    import pyarrow as pa

_BLOCK = 1 << 22


def fingerprint(config: Config, frames: dict[str, pa.Table] | None = None) -> str:
    """Hash of all input files' bytes, of frames' rows, and of the recorded events.

    A database counts by its file; one without a file (Postgres) is read anew each time. Objects of
    a bucket count by ``objects_fingerprint``.
    """
    digest = hashlib.sha256()
    for table, location in config.data.sources():
        if frames and table in frames:
            continue
        # The same bytes as another table are another input.
        digest.update(table.encode())
        for path in _files(config.base, location):
            _hash_file(path, digest)
    for table, rows in sorted((frames or {}).items()):  # whatever order the caller gives
        digest.update(table.encode())
        _hash_rows(rows, digest)
    digest.update(objects_fingerprint(config, frames).encode())
    digest.update(last_event(config).encode())
    return digest.hexdigest()[:20]


def objects_fingerprint(config: Config, frames: dict[str, pa.Table] | None = None) -> str:
    """Hash of the names, sizes and versions of all input objects; empty where there are none.

    Raises:
        DataError: a location names no object, or its store refuses.
    """
    objects = [
        (table, url, entry.size, entry.version.etag, entry.version.number)
        for table, location in config.data.sources()
        if is_bucket(location) and table not in (frames or {})
        for url, entry in find_objects(location)
    ]
    return hashlib.sha256(repr(objects).encode()).hexdigest() if objects else ""


def _files(base: Path, location: str) -> list[Path]:
    parts = urlsplit(location)
    if parts.scheme in ("duckdb", "sqlite"):
        return [base / (parts.netloc + parts.path)[1:]]
    if parts.scheme:
        return []
    return [Path(path) for path in sorted(glob.glob(str(base / location)))]


def _hash_rows(rows: pa.Table, digest: hashlib._Hash) -> None:
    import pyarrow as pa

    # As an Arrow stream: buffers alone have neither names nor types, and a slice of a frame shares
    # those of the whole frame.
    with (
        pa.PythonFile(_Digest(digest), mode="w") as sink,
        pa.ipc.new_stream(sink, rows.schema) as stream,
    ):
        stream.write_table(rows)


class _Digest(io.RawIOBase):
    """A file that hashes what is written to it."""

    def __init__(self, digest: hashlib._Hash) -> None:
        self._hash = digest

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._hash.update(data)
        return len(data)


def _hash_file(path: Path, digest: hashlib._Hash) -> None:
    digest.update(path.name.encode())
    if path.is_file():
        with path.open("rb") as file:
            while block := file.read(_BLOCK):  # a file may exceed the memory
                digest.update(block)
