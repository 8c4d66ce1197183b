"""Tables of DuckDB, SQLite and PostgreSQL databases.

DuckDB would fetch its own extensions for the last two from the network. SQLite is therefore read
by Python's module, PostgreSQL by its ADBC driver.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa

from nextedge.engines.duckdb.session import DuckDBSession, quoted
from nextedge.errors import DataError, MissingDependencyError, nearest
from nextedge.storage.locations import DatabaseTable

if TYPE_CHECKING:
    import ibis.expr.types as ir

_BATCH_ROWS = 100_000


def read_database(session: DuckDBSession, source: DatabaseTable) -> ir.Table:
    """Open a table of a database; raises DataError where either is missing."""
    readers = {"duckdb": _read_duckdb, "sqlite": _read_sqlite, "postgresql": _read_postgresql}
    return readers[source.kind](session, source)


def _read_duckdb(session: DuckDBSession, source: DatabaseTable) -> ir.Table:
    alias = f"attached_{abs(hash(source.url))}"
    path = source.url.replace("'", "''")
    schema, _, name = source.table.rpartition(".")
    try:
        session.connection.execute(f"ATTACH IF NOT EXISTS '{path}' AS {alias} (READ_ONLY)")
        tables = _names(
            session.connection.execute(
                "SELECT table_schema, table_name FROM information_schema.tables "
                "WHERE table_catalog = ?",
                [alias],
            ).fetchall(),
            "main",
        )
    except duckdb.Error as error:
        raise DataError(
            f"{source.public_url}: not readable as a DuckDB database: {error}"
        ) from None
    _require_table(source, tables)
    return session.define(f"SELECT * FROM {alias}.{quoted(schema or 'main')}.{quoted(name)}")


def _read_sqlite(session: DuckDBSession, source: DatabaseTable) -> ir.Table:
    # SQLite would create a missing file without ``mode=ro``
    uri = f"{Path(source.url).resolve().as_uri()}?mode=ro"
    try:
        # DuckDB pulls the batches from a thread of its own, one at a time
        with closing(sqlite3.connect(uri, uri=True, check_same_thread=False)) as connection:
            tables = connection.execute(
                "SELECT name FROM sqlite_master WHERE type IN ('table', 'view')"
            ).fetchall()
            _require_table(source, [name for (name,) in tables])
            schema = _sqlite_schema(connection, source.table)
            batches = _sqlite_batches(connection, source.table, schema)
            return _load(session, pa.RecordBatchReader.from_batches(schema, batches))
    except sqlite3.Error as error:
        raise DataError(
            f"{source.public_url}: not readable as an SQLite database: {error}"
        ) from None


def _sqlite_schema(connection: sqlite3.Connection, table: str) -> pa.Schema:
    """Types of the stored values; SQLite does not enforce the declared ones."""
    names = [row[1] for row in connection.execute(f"PRAGMA table_info({quoted(table)})")]
    fields = []
    for name in names:
        stored = connection.execute(f"SELECT DISTINCT typeof({quoted(name)}) FROM {quoted(table)}")
        fields.append(pa.field(name, _arrow_type({kind for (kind,) in stored} - {"null"})))
    return pa.schema(fields)


def _arrow_type(stored: set[str]) -> pa.DataType:
    if stored == {"integer"}:
        return pa.int64()
    if stored and stored <= {"integer", "real"}:
        return pa.float64()
    return pa.binary() if stored == {"blob"} else pa.string()


def _sqlite_batches(
    connection: sqlite3.Connection, table: str, schema: pa.Schema
) -> Iterator[pa.RecordBatch]:
    columns = ", ".join(
        f"CAST({quoted(field.name)} AS TEXT)" if field.type == pa.string() else quoted(field.name)
        for field in schema
    )
    cursor = connection.execute(f"SELECT {columns} FROM {quoted(table)}")
    while rows := cursor.fetchmany(_BATCH_ROWS):
        yield pa.RecordBatch.from_arrays(
            [
                pa.array(values, kind)
                for values, kind in zip(zip(*rows, strict=True), schema.types, strict=True)
            ],
            schema=schema,
        )


def _read_postgresql(session: DuckDBSession, source: DatabaseTable) -> ir.Table:
    try:
        import adbc_driver_postgresql.dbapi as adbc
    except ImportError:
        raise MissingDependencyError(
            "adbc-driver-postgresql", "postgres", "Reading postgresql:// tables"
        ) from None
    try:
        with adbc.connect(source.url) as connection, connection.cursor() as cursor:
            return _fetch_postgresql(session, cursor, source)
    except adbc.Error as error:
        # the driver's message may quote the URL with its password
        reason = str(error).replace(source.url, source.public_url).splitlines()[0]
        raise DataError(
            f"{source.public_url}: the server cannot be read: {reason}; check host, database, user, "
            f"password and table"
        ) from None


def _fetch_postgresql(session: DuckDBSession, cursor: Any, source: DatabaseTable) -> ir.Table:
    cursor.execute(
        "SELECT table_schema::text, table_name::text FROM information_schema.tables "
        "WHERE table_schema NOT IN ('pg_catalog', 'information_schema')"
    )
    _require_table(source, _names(cursor.fetchall(), "public"))
    schema, _, name = source.table.rpartition(".")
    cursor.execute(f"SELECT * FROM {quoted(schema or 'public')}.{quoted(name)}")
    return _load(session, cursor.fetch_record_batch())


def _load(session: DuckDBSession, reader: pa.RecordBatchReader) -> ir.Table:
    """Stream batches into DuckDB: one at a time is in Python."""
    session.connection.register("incoming", reader)
    try:
        return session.define("SELECT * FROM incoming", materialise=True)
    finally:
        session.connection.unregister("incoming")


def _names(rows: list[tuple[str, str]], default_schema: str) -> list[str]:
    return [name if schema == default_schema else f"{schema}.{name}" for schema, name in rows]


def _require_table(source: DatabaseTable, tables: list[str]) -> None:
    bare = source.table.removeprefix("main.").removeprefix("public.")
    if bare not in tables and source.table not in tables:
        raise DataError(
            f"{source.public_url}: no table {source.table!r}; {nearest(source.table, tables)}"
        )
