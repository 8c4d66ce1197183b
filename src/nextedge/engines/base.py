"""What an engine is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ibis
    import pyarrow as pa


class Engine(ABC):
    """Reads tables, runs Ibis table expressions over them, and writes them."""

    @abstractmethod
    def read(self, table: str, location: str, base: Path) -> ibis.Table:
        """A table expression over a file, glob, folder or database URL.

        Raises:
            DataError: the location does not exist or cannot be read.
        """

    @abstractmethod
    def register(self, table: str, rows: pa.Table) -> ibis.Table:
        """A table expression over an Arrow table in memory."""

    @abstractmethod
    def write(self, table: ibis.Table, path: Path) -> int:
        """Write an expression as one Parquet file, atomically; returns the number of rows."""

    @abstractmethod
    def to_arrow(self, table: ibis.Table) -> pa.Table:
        """Run an expression and bring its rows into memory."""

    @abstractmethod
    def close(self) -> None:
        """Free what the engine holds."""

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
