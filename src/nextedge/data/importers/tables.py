"""Helpers of importers: a DuckDB connection in UTC, and atomic Parquet files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from nextedge.errors import DataError, StorageError


@contextmanager
def importing(source: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection whose read errors name ``source``."""
    connection = duckdb.connect()
    try:
        # Otherwise times without a zone would be those of this machine.
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("SET enable_progress_bar = false")
        yield connection
    except duckdb.Error as error:
        reason = " ".join(str(error).strip().splitlines()[:3])
        if "no space left" in reason.lower() or "could not write" in reason.lower():
            raise StorageError(f"{reason}; free some space, then import again") from error
        raise DataError(f"{source}: cannot be imported: {reason}") from error
    finally:
        connection.close()


def write_parquet(connection: duckdb.DuckDBPyConnection, select: str, path: Path) -> int:
    """Write a SELECT as one Parquet file, whole or not at all; returns its rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        rows = connection.execute(
            f"COPY ({select}) TO {literal(str(part))} (FORMAT parquet, CODEC zstd)"
        ).fetchone()
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return int(rows[0]) if rows else 0


def literal(text: str) -> str:
    """A SQL string literal."""
    return "'" + text.replace("'", "''") + "'"
