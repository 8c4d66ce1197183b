"""What an engine must do for the offline line: read, run a table expression, write.

An engine holds no recommendation logic, and no step imports an engine: a step is given Ibis
tables and returns Ibis tables, which any engine that read them can run.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    import ibis
    import pyarrow as pa


class Engine(ABC):
    """Reads tables, runs Ibis expressions over them, and writes Parquet.

    Timestamps without a zone are UTC in every engine. Use it as a context manager: the tables
    that it read are valid until it is closed.
    """

    @abstractmethod
    def read(self, table: str, location: str, base: Path) -> ibis.Table:
        """Open what lies at ``location``: a path relative to ``base``, a glob, folder or URL.

        ``table`` is our name of the table, for messages.

        Raises:
            DataError: nothing is there, or what is there cannot be read.
        """

    @abstractmethod
    def register(self, table: str, rows: Any) -> ibis.Table:
        """Take a pandas, Polars, Arrow or DuckDB frame (or an Ibis table) as a table.

        Raises:
            DataError: it does not speak the Arrow PyCapsule interface.
        """

    @abstractmethod
    def write(self, table: ibis.Table, path: Path) -> int:
        """Write an expression as one Parquet file (zstd); returns the number of rows.

        The file appears whole or not at all: it is written beside its name, then renamed.

        Raises:
            StorageError: the disk is full or refuses to be written.
        """

    @abstractmethod
    def to_arrow(self, table: ibis.Table) -> pa.Table:
        """Run an expression and bring its rows into memory."""

    @abstractmethod
    def to_batches(self, table: ibis.Table, rows: int = 1_000_000) -> Iterator[pa.RecordBatch]:
        """Run an expression and stream its rows, in batches of about ``rows``."""

    @abstractmethod
    def cache(self, table: ibis.Table) -> ibis.Table:
        """Run an expression once and keep its rows for as long as the engine is open."""

    @abstractmethod
    def close(self) -> None:
        """Free what the engine holds: connections and temporary files."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
