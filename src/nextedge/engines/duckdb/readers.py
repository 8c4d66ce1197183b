"""Read one location into an Ibis table on the local session.

Parquet and DuckDB tables become views. Text, SQLite and PostgreSQL are copied into typed tables of
DuckDB, because every later query would parse or fetch them again.
"""

from __future__ import annotations

import glob
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb

from nextedge.engines.duckdb.databases import read_database
from nextedge.engines.duckdb.objects import find_objects, register, store_fault
from nextedge.engines.duckdb.session import DuckDBSession, literal
from nextedge.engines.duckdb.text import read_csv, read_jsonl
from nextedge.errors import DataError
from nextedge.storage.duckdb_errors import refuses_writing
from nextedge.storage.locations import DatabaseTable, Files, parse_location, public_url
from nextedge.storage.opening import is_bucket

if TYPE_CHECKING:
    import ibis.expr.types as ir


def read_location(session: DuckDBSession, location: str, base: Path) -> ir.Table:
    """Open a table; ``nextedge.storage.locations`` lists the forms of a location.

    Raises:
        DataError: the file is missing, unreadable, broken at a row, or not UTF-8.
        BucketError: its store is not reached or fails temporarily.
        MissingDependencyError: a driver that the URL needs is not installed.
    """
    source = parse_location(location, base)
    try:
        if isinstance(source, DatabaseTable):
            return read_database(session, source)
        if source.remote:
            source = _find_objects(session, source)
        return _read_files(session, source)
    except FileNotFoundError as error:
        raise DataError(f"{public_url(location)}: no such file ({error})") from None
    except PermissionError as error:
        raise DataError(f"{public_url(location)}: may not be read ({error}); allow it") from None
    except duckdb.Error as error:
        # the engine reports a full disk: the file itself is intact
        if refuses_writing(error):
            raise
        fault = store_fault(location, error) if is_bucket(location) else None
        raise fault or DataError(unreadable(public_url(location), error)) from None


def unreadable(where: str, error: Exception) -> str:
    """Error message for a file that DuckDB refuses."""
    reason = str(error).strip().splitlines()[0].split("Error: ", 1)[-1]
    reason = reason.split(" Detail: Python exception")[0].rstrip(". ")
    return (
        f"{where}: cannot be read: {reason}; expected an intact file of the format that its name "
        f"says: write it again"
    )


def _read_files(session: DuckDBSession, files: Files) -> ir.Table:
    if files.format == "csv":
        return read_csv(session, files)
    if files.format == "jsonl":
        return read_jsonl(session, files)
    listed = ", ".join(map(literal, files.paths))
    return session.define(f"SELECT * FROM read_parquet([{listed}], union_by_name = true)")


def _find_objects(session: DuckDBSession, files: Files) -> Files:
    """The objects of a URL or a pattern, sorted by name."""
    (location,) = files.paths
    store = register(session.connection, files.remote)
    if is_bucket(location):
        return replace(files, paths=tuple(url for url, _ in find_objects(location)))
    try:
        pattern = glob.has_magic(location)
        names = store.glob(location) if pattern else [location] * store.exists(location)
    except Exception as error:  # each store's library has errors of its own
        raise DataError(
            f"{public_url(location)}: the store cannot be asked: {error}; check the name, the "
            f"credentials and the network"
        ) from error
    if not names:
        raise DataError(f"{public_url(location)}: no such object; check the setting in [data]")
    return replace(files, paths=tuple(store.unstrip_protocol(name) for name in sorted(names)))
