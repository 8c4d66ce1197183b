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

ROW_NUMBER = "__nextedge_place"
"""Column of row numbers in an engine that keeps no order; never in a result."""
BlockFunction = Callable[["pa.Table"], "pa.Table"]
"""From one block of work to its result: an instance of a class of this package whose fields are
plain values and paths, since engines send it to other processes. It opens files there and keeps
them open for the next block. Results are read only, as they may be mapped files. A function with a
true ``one_core`` keeps one core busy and lets other threads run, so that an engine of one process
runs several at once; any other may use all cores."""
RunBlocks = Callable[[BlockFunction, Iterable["pa.Table"]], Iterator["pa.Table"]]
"""Runs a function over blocks, as ``Engine.map_blocks`` does."""


class Engine(ABC):
    """Reads tables, runs Ibis expressions over them, and writes Parquet.

    Timestamps without a zone are UTC in every engine. Use it as a context manager: the tables
    that it read are valid until it is closed.
    """

    name: ClassVar[str]
    cores: int = 1
    """Blocks of ``map_blocks`` that run at once."""

    @abstractmethod
    def read(self, table: str, location: str, base: Path) -> ibis.Table:
        """Open ``location``: a path relative to ``base``, a glob, folder or URL.

        ``table`` is the name of the table in messages.

        Raises:
            DataError: the location is empty or cannot be read.
        """

    @abstractmethod
    def register(self, table: str, rows: Any) -> ibis.Table:
        """A pandas, Polars, Arrow or DuckDB frame (or an Ibis table) as a table.

        Raises:
            DataError: it lacks the Arrow PyCapsule interface.
        """

    @abstractmethod
    def write(self, table: ibis.Table, path: Path) -> int:
        """Write an expression as one Parquet file (zstd); returns the number of rows.

        The file appears whole or not at all: it is written beside its name, then renamed.

        Raises:
            StorageError: the disk is full or read-only.
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
    def row_number(self, table: ibis.Table) -> Any:
        """A column of whole numbers, in the order in which the rows of a table were read.

        The table is as it was read or registered, or also filtered or with further columns.
        """

    @abstractmethod
    def map_blocks(
        self, function: BlockFunction, blocks: Iterable[pa.Table], keep: Path | None = None
    ) -> Iterator[pa.Table]:
        """Run a function over blocks of work; yields their results, in the order of the blocks.

        Blocks are taken as results are consumed, so that a caller with enough results can stop.

        Args:
            keep: folder for the results; results that a stopped run left there are not made again.
                Only for the same function over the same blocks. The function may write files
                too, if it writes them whole or not at all: a block may run twice.

        Raises:
            StorageError: a result cannot be written.
        """

    def joins(self, graph_bytes: int) -> bool:
        """Whether the engine joins two-hop candidates in a graph of so many bytes, instead of walking."""
        return False

    def rest(self) -> None:  # noqa: B027 - few engines have any
        """Release memory that serves speed alone; nothing by default."""

    def spent(self) -> dict[str, Any]:
        """Resources that the engine used since the last call, beside this process; none by default."""
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
