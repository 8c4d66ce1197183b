"""The local engine: DuckDB on this machine's cores, spilling to disk when memory is short."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nextedge.cores import thread_count
from nextedge.engines.base import BlockFunction, Engine
from nextedge.engines.blocks import run_here
from nextedge.engines.duckdb.session import DuckDBSession, literal
from nextedge.errors import DataError, StorageError
from nextedge.storage.duckdb_errors import refuses_writing

if TYPE_CHECKING:
    import ibis
    import pyarrow as pa

_REFUSED = {
    getattr(errno, name) for name in "ENOSPC EFBIG EDQUOT EROFS EACCES ENOTDIR EEXIST".split()
}
_RESTING = "64MiB"


class LocalEngine(Engine):
    """DuckDB behind Ibis.

    Args:
        temp_directory: folder of spilled data; default a temporary one, removed on close.
        memory_limit: such as ``"8GB"``; default that of DuckDB (80 % of the machine).
        threads: default all cores.

    >>> import pyarrow as pa
    >>> with LocalEngine(threads=1) as engine:
    ...     table = engine.register("numbers", pa.table({"x": [1, 2, 3]}))
    ...     engine.to_arrow(table.filter(table.x > 1)).to_pydict()
    {'x': [2, 3]}
    """

    name = "local"

    def __init__(
        self,
        temp_directory: Path | None = None,
        memory_limit: str | None = None,
        threads: int | None = None,
    ) -> None:
        self._own_directory = (
            Path(tempfile.mkdtemp(prefix="nextedge-")) if temp_directory is None else None
        )
        self.session = DuckDBSession(
            {
                "temp_directory": str(temp_directory or self._own_directory),
                "memory_limit": memory_limit,
                "threads": threads,
            }
        )
        self.connection = self.session.connection
        self._frames: dict[str, pa.Table] = {}
        self.cores = thread_count()

    def read(self, table: str, location: str, base: Path) -> ibis.Table:
        """See ``Engine.read``; ``nextedge.storage.locations`` has the forms of a location."""
        from nextedge.engines.duckdb.readers import read_location

        try:
            with _storage_errors(f"the temporary copy of {table}"):
                return read_location(self.session, location, base)
        except DataError as error:
            raise DataError(f"{table}: {error}") from None

    def register(self, table: str, rows: Any) -> ibis.Table:
        """See ``Engine.register``; DuckDB reads the Arrow buffers without a copy."""
        import ibis

        from nextedge.engines.duckdb.frames import to_arrow_table

        if isinstance(rows, ibis.Table):
            return rows
        frame = to_arrow_table(rows, table)
        with _storage_errors(table):
            name, registered = self.session.register(frame)
        self._frames[name] = frame
        return registered

    def write(self, table: ibis.Table, path: Path) -> int:
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        target = literal(str(part))
        with _storage_errors(str(path)):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                rows = self.connection.execute(
                    f"COPY ({self._compile(table)}) TO {target} (FORMAT parquet, CODEC zstd)"
                ).fetchone()
                part.replace(path)
            finally:
                part.unlink(missing_ok=True)
        return int(rows[0]) if rows else 0

    def to_arrow(self, table: ibis.Table) -> pa.Table:
        with _storage_errors("the temporary folder"):
            return self.connection.sql(self._compile(table)).to_arrow_table()

    def to_batches(self, table: ibis.Table, rows: int = 1_000_000) -> Iterator[pa.RecordBatch]:
        """See ``Engine.to_batches``; runs on a cursor, beside other queries."""
        with _storage_errors("the temporary folder"), self.connection.cursor() as cursor:
            # a cursor does not inherit this setting of the connection
            cursor.execute("SET TimeZone = 'UTC'")
            # a cursor does not know frames of the connection
            for name, frame in self._frames.items():
                cursor.register(name, frame)
            yield from cursor.sql(self._compile(table)).to_arrow_reader(rows)

    def cache(self, table: ibis.Table) -> ibis.Table:
        """See ``Engine.cache``; the copy spills to the temporary folder when memory is short."""
        with _storage_errors("the temporary folder"):
            return self.session.define(self._compile(table), materialise=True)

    def row_number(self, table: ibis.Table) -> Any:
        """See ``Engine.row_number``; DuckDB keeps the order of reading."""
        import ibis

        return ibis.row_number()

    def map_blocks(
        self, function: BlockFunction, blocks: Iterable[pa.Table], keep: Path | None = None
    ) -> Iterator[pa.Table]:
        """See ``Engine.map_blocks``; one at a time, unless a block uses only one core."""
        threads = self.cores if getattr(function, "one_core", False) else 1
        return run_here(function, blocks, keep, threads=threads)

    def rest(self) -> None:
        """See ``Engine.rest``."""
        import duckdb

        setting = self.connection.execute("SELECT current_setting('memory_limit')")
        ((limit,),) = setting.fetchall()
        with contextlib.suppress(duckdb.Error):  # cached tables do not fit
            # a low limit, for a moment, makes DuckDB release its buffers
            self.connection.execute(f"SET memory_limit = '{_RESTING}'")
        self.connection.execute(f"SET memory_limit = '{limit}'")

    def close(self) -> None:
        self.session.ibis.disconnect()
        self._frames.clear()
        if self._own_directory is not None:
            shutil.rmtree(self._own_directory, ignore_errors=True)

    def _compile(self, table: ibis.Table) -> str:
        # Ibis itself runs some queries through functions that DuckDB 2 has dropped
        return str(self.session.ibis.compile(table))


@contextmanager
def _storage_errors(where: str) -> Iterator[None]:
    """Raise StorageError for a full or read-only disk, DataError for an unreadable table."""
    import duckdb

    try:
        yield
    except OSError as error:
        if error.errno not in _REFUSED:
            raise
        raise StorageError(_storage_message(where, str(error))) from error
    except duckdb.Error as error:
        if refuses_writing(error):
            raise StorageError(_storage_message(where, _first_line(error))) from error
        if isinstance(error, duckdb.OutOfMemoryException):
            raise StorageError(
                f"{where}: {_first_line(error)}; give the engine more memory, or fewer threads"
            ) from error
        if isinstance(error, _at_fault()):
            raise DataError(f"a table cannot be read: {_first_line(error)}") from error
        raise


def _at_fault() -> tuple[type[Exception], ...]:
    """DuckDB's errors that come from the data, not from the query."""
    import duckdb

    return (
        duckdb.DataError,
        duckdb.IOException,
        duckdb.InvalidInputException,
        duckdb.NotImplementedException,
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:400]


def _storage_message(where: str, reason: str) -> str:
    return (
        f"{where}: cannot be written ({reason}); free some space or choose another folder, "
        f"then run the same command again"
    )
