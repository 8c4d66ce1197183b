"""Read files of events line by line: JSON lines and CSV (also .gz), and Parquet.

An unreadable line is returned with its fault, and the next lines follow; a truncated file raises at
its line. A line without an ``event_id`` gets one.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import itertools
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from nextedge.errors import DataError, InputError

_SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".parquet", "")
_ROWS = 2000


@dataclass(frozen=True)
class EventLine:
    """One line of a file: its number from 1, and its fields or its fault."""

    number: int
    raw: Mapping[str, Any] | None
    fault: str | None = None


def read_events(path: Path) -> Iterator[EventLine]:
    """The non-empty lines of a file, with event ids.

    Raises:
        InputError: the file does not exist, or its name has no known format.
        DataError: the file is damaged; the lines before the damage are valid.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected events as JSON lines, CSV or Parquet")
    packed = path.suffix == ".gz"
    suffix = path.with_suffix("").suffix if packed else path.suffix
    if suffix not in _SUFFIXES or (packed and suffix == ".parquet"):
        raise InputError(
            f"{path}: expected a name that ends in .jsonl, .csv (or those with .gz), or .parquet"
        )
    content = content_hash(path)
    number = 0
    try:
        if suffix == ".parquet":
            lines = _parquet(path)
        else:
            lines = (_csv if suffix == ".csv" else _json_lines)(_opened(path, packed))
        for line in lines:
            number = line.number
            yield line if line.raw is None else _identified(line, content)
    except (EOFError, OSError, zlib.error, pa.ArrowException, csv.Error) as error:
        raise DataError(f"{path}: damaged after line {number}: {error}; write it again") from None


def content_hash(path: Path) -> str:
    """A short hash of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:32]


def _identified(line: EventLine, content: str) -> EventLine:
    raw = line.raw or {}
    if raw.get("event_id") is not None:
        return line
    # An id of content and line: a file that is recorded twice adds nothing.
    return EventLine(line.number, {**raw, "event_id": f"file-{content}-{line.number}"})


def _opened(path: Path, packed: bool) -> IO[bytes]:
    return gzip.open(path) if packed else path.open("rb")  # type: ignore[return-value]


def _json_lines(file: IO[bytes]) -> Iterator[EventLine]:
    with file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                # Some editors begin a file with a byte order mark.
                raw = json.loads(line.removeprefix(b"\xef\xbb\xbf").decode())
            except (ValueError, RecursionError) as error:
                yield EventLine(number, None, f"no JSON: {error}")
                continue
            if isinstance(raw, dict):
                yield EventLine(number, raw)
            else:
                yield EventLine(number, None, "expected one JSON object a line")


def _csv(file: IO[bytes]) -> Iterator[EventLine]:
    """Rows by the names in the first line, without empty fields."""
    with file:
        # A byte that is not UTF-8 must not hide the lines after it.
        text = (line.decode("utf-8-sig", "surrogateescape") for line in file)
        rows = csv.reader(text)
        header = next(rows, [])
        for row in rows:
            if not row:
                continue
            if len(row) != len(header):
                fault = f"{len(row)} fields; expected {len(header)}, as in the first line"
                yield EventLine(rows.line_num, None, fault)
                continue
            named = zip(header, row, strict=True)
            yield EventLine(rows.line_num, {name: value for name, value in named if value != ""})


def _parquet(path: Path) -> Iterator[EventLine]:
    """Rows by the names of the columns, without nulls."""
    with pq.ParquetFile(path) as file:
        batches = (batch.to_pylist() for batch in file.iter_batches(_ROWS))
        for number, row in enumerate(itertools.chain.from_iterable(batches), 1):
            fields = {name: value for name, value in row.items() if value is not None}
            yield EventLine(number, fields)
