"""The local engine: DuckDB on this machine's cores, spilling to disk when memory is short."""

from __future__ import annotations

import glob
import os
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from nextedge.engines.base import Engine
from nextedge.errors import DataError, NextEdgeError, StorageError

if TYPE_CHECKING:
    import ibis
    import pyarrow as pa

_DATABASES = {"duckdb": "DUCKDB", "sqlite": "SQLITE", "postgres": "POSTGRES", "postgresql": "POSTGRES"}
_FORMATS = ".parquet, .csv, .csv.gz, .jsonl, .jsonl.gz, .ndjson"


class LocalEngine(Engine):
    """DuckDB behind Ibis.

    Args:
        temp_directory: where DuckDB spills what does not fit in memory.
        memory_limit: such as ``"8GB"``; default DuckDB's own (80 % of the machine).
    """

    def __init__(self, temp_directory: Path | None = None, memory_limit: str | None = None) -> None:
        import ibis

        self._ibis = ibis.duckdb.connect()
        self._duckdb = self._ibis.con
        self._duckdb.execute("SET TimeZone = 'UTC'")
        self._duckdb.execute("SET preserve_insertion_order = true")
        self._duckdb.execute("SET enable_progress_bar = false")
        if temp_directory is not None:
            self._duckdb.execute(f"SET temp_directory = '{_quoted(str(temp_directory))}'")
        if memory_limit is not None:
            self._duckdb.execute(f"SET memory_limit = '{_quoted(memory_limit)}'")

    def read(self, table: str, location: str, base: Path) -> ibis.Table:
        import duckdb

        try:
            query = self._select(table, location, base)
            self._duckdb.execute(f'CREATE OR REPLACE VIEW "read_{table}" AS {query}')
            return self._ibis.table(f"read_{table}")
        except (duckdb.Error, UnicodeDecodeError) as error:
            raise DataError(
                f"{table}: {_without_password(location)}: cannot be read: {_first_line(error)}"
            ) from None

    def _select(self, table: str, location: str, base: Path) -> str:
        scheme = urlsplit(location).scheme
        if scheme in _DATABASES:
            return self._attach(table, location, base)
        path = location if scheme in ("s3", "gs", "https") else str(base / location)
        if scheme == "" and not glob.glob(path):
            raise DataError(f"{table}: {path}: no such file; expected {_FORMATS}, or a database URL")
        name = path.removesuffix(".gz")
        quoted = _quoted(path)
        if name.endswith(".parquet"):
            return f"SELECT * FROM read_parquet('{quoted}', union_by_name = true)"
        if name.endswith(".csv"):
            return f"SELECT * FROM {self._csv(quoted)}"
        if name.endswith((".jsonl", ".ndjson")):
            return f"SELECT * FROM read_json('{quoted}', format = 'newline_delimited')"
        raise DataError(f"{table}: {path}: unknown format; expected {_FORMATS}, or a database URL")

    def _csv(self, quoted: str) -> str:
        """Types are DuckDB's over all rows, but ids with leading zeros stay text."""
        plain = f"read_csv('{quoted}', header = true, sample_size = -1, union_by_name = true)"
        described = self._duckdb.execute(f"DESCRIBE SELECT * FROM {plain}").fetchall()
        whole = [name for name, kind, *_ in described if "INT" in kind]
        if not whole:
            return plain
        text = f"read_csv('{quoted}', header = true, all_varchar = true, union_by_name = true)"
        tests = ", ".join(f"bool_or(\"{name}\" SIMILAR TO '0[0-9]+')" for name in whole)
        found = self._duckdb.execute(f"SELECT {tests} FROM {text}").fetchone() or ()
        padded = [name for name, has in zip(whole, found, strict=True) if has]
        if not padded:
            return plain
        types = ", ".join(f"'{_quoted(name)}': 'VARCHAR'" for name in padded)
        return plain.removesuffix(")") + f", types = {{{types}}})"

    def _attach(self, table: str, location: str, base: Path) -> str:
        parts = urlsplit(location)
        if not parts.fragment:
            raise DataError(
                f"{table}: {_without_password(location)}: names no table; "
                f"write it after #, as in sqlite:///shop.db#orders"
            )
        kind = _DATABASES[parts.scheme]
        if kind == "POSTGRES":
            target = location.partition("#")[0]
        else:
            file = unquote(parts.netloc + parts.path)
            target = str(base / (file[1:] if not file.startswith("//") else file[1:]))
            if not Path(target).is_file():
                raise DataError(f"{table}: {target}: no such database file")
        alias = f"database_{table}"
        self._duckdb.execute(f"ATTACH '{_quoted(target)}' AS \"{alias}\" (TYPE {kind}, READ_ONLY)")
        name = ".".join(f'"{part}"' for part in unquote(parts.fragment).split("."))
        return f'SELECT * FROM "{alias}".{name}'

    def register(self, table: str, rows: pa.Table) -> ibis.Table:
        self._duckdb.register(f"frame_{table}", rows)
        return self._ibis.table(f"frame_{table}")

    def write(self, table: ibis.Table, path: Path) -> int:
        import duckdb
        import ibis
        import pyarrow.parquet as pq

        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        try:
            query = ibis.to_sql(table, dialect="duckdb")
            self._duckdb.execute(f"COPY ({query}) TO '{_quoted(str(partial))}' (FORMAT parquet, COMPRESSION zstd)")
            os.replace(partial, path)
        except duckdb.Error as error:
            raise _as_error(error, path) from None
        finally:
            partial.unlink(missing_ok=True)
        return int(pq.read_metadata(path).num_rows)

    def to_arrow(self, table: ibis.Table) -> pa.Table:
        import duckdb

        try:
            return table.to_pyarrow()
        except duckdb.Error as error:
            raise _as_error(error, None) from None

    def close(self) -> None:
        self._ibis.disconnect()


def _as_error(error: Exception, path: Path | None) -> NextEdgeError:
    text = _first_line(error)
    if "No space left" in text or "disk" in text.lower():
        return StorageError(f"{path}: the disk is full or refuses to be written: {text}")
    return DataError(text)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:3])[:400]


def _quoted(text: str) -> str:
    return text.replace("'", "''")


def _without_password(location: str) -> str:
    parts = urlsplit(location)
    return location.replace(f":{parts.password}@", ":***@") if parts.password else location
