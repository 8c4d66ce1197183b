"""The contract of engines: read tables, run table expressions and block functions, write.

An engine has no recommendation logic, and no step imports an engine: steps take and return Ibis
tables, which the engine that read them runs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Self

if TYPE_CHECKING:
    import ibis
    import pyarrow as pa

ROW_NUMBER = "__nextedge_place"  # column of an engine that keeps no order; never in a result
BlockFunction = Callable[["pa.Table"], "pa.Table"]
"""Computes the result of one block of work. It is an instance of a class of this package whose
fields are plain values and paths, because engines send it to other processes; there it opens files
and reuses them for the next block. Results are read-only, as they may be mapped files. A function
with a true ``one_core`` uses one core and releases the interpreter lock, so that an engine of one
process runs several at once; any other may use all cores."""
RunBlocks = Callable[[BlockFunction, Iterable["pa.Table"]], Iterator["pa.Table"]]  # ``map_blocks``


class Engine(ABC):
    """Reads tables, runs Ibis expressions over them, and writes Parquet.

    Timestamps without a zone are UTC in every engine. Tables are valid until the engine closes; use
    it as a context manager.
    """

    name: ClassVar[str]
    cores: int = 1  # blocks of ``map_blocks`` that run at once

    @abstractmethod
    def read(self, table: str, location: str, base: Path) -> ibis.Table:
        """Open a table at a path relative to ``base``, a glob, a folder or a URL.

        ``table`` is the name of the table in messages.

        Raises:
            DataError: the location is empty or cannot be read.
        """

    @abstractmethod
    def register(self, table: str, rows: Any) -> ibis.Table:
        """A pandas, Polars, Arrow or DuckDB frame (or an Ibis table) as a table.

        Raises:
            DataError: the frame lacks the Arrow PyCapsule interface.
        """

    @abstractmethod
    def write(self, table: ibis.Table, path: Path) -> int:
        """Write an expression as one Parquet file (zstd); returns the number of rows.

        Readers get the whole file or none: the engine writes it under another name, then renames it.

        Raises:
            StorageError: the disk is full or read-only.
        """

    @abstractmethod
    def to_arrow(self, table: ibis.Table) -> pa.Table:
        """Run an expression; returns its rows in memory."""

    @abstractmethod
    def to_batches(self, table: ibis.Table, rows: int = 1_000_000) -> Iterator[pa.RecordBatch]:
        """Run an expression; streams batches of about ``rows`` rows."""

    @abstractmethod
    def cache(self, table: ibis.Table) -> ibis.Table:
        """Run an expression once and cache its rows until the engine closes."""

    @abstractmethod
    def row_number(self, table: ibis.Table) -> Any:
        """A column of integers that increase in the order of reading.

        The table is read or registered, perhaps filtered or with further columns.
        """

    @abstractmethod
    def map_blocks(
        self, function: BlockFunction, blocks: Iterable[pa.Table], keep: Path | None = None
    ) -> Iterator[pa.Table]:
        """Run a function over blocks of work; yields results in order of the blocks.

        It reads blocks as the caller consumes results, so that a caller can stop early.

        Args:
            keep: folder of results; reuses the results of a stopped run, which must have the same
                function and blocks. A block may run twice, so files of the function must
                appear whole or not at all.

        Raises:
            StorageError: a result cannot be written.
        """

    def joins(self, graph_bytes: int) -> bool:
        """Whether the engine joins two-hop candidates in a graph of so many bytes, instead of walking."""
        return False

    def rest(self) -> None:  # noqa: B027 - few engines have any
        """Release caches; nothing by default."""

    def spent(self) -> dict[str, Any]:
        """Resources used outside this process since the last call; none by default."""
        return {}

    @abstractmethod
    def close(self) -> None:
        """Close connections and delete temporary files."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
