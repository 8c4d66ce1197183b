"""What an engine must do for the offline line: read, run a table expression, write.

An engine holds no recommendation logic, and no step imports an engine: a step is given Ibis
tables and returns Ibis tables, which any engine that read them can run.
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

PLACE = "__nextedge_place"
"""Column in which an engine that keeps no order keeps each row's place; never in what it gives."""
BlockFunction = Callable[["pa.Table"], "pa.Table"]
"""From one block of work to its result. It must be an instance of a class of this package whose
fields are plain values and paths, since engines send it to other processes; what it opens, it
opens there, and keeps for the next block. Results are read only, as they may be mapped files. One
with a true ``one_core`` keeps one core busy and lets other threads run, so that an engine of one
process runs several at once; any other may use all cores by itself."""
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
    def place(self, table: ibis.Table) -> Any:
        """A column that is in the order in which the rows of a table were read, whole numbers.

        Of a table as it was read or registered, or such a one filtered or with further columns.
        """

    @abstractmethod
    def map_blocks(
        self, function: BlockFunction, blocks: Iterable[pa.Table], keep: Path | None = None
    ) -> Iterator[pa.Table]:
        """Run a function over blocks of work; yields their results, in the order of the blocks.

        Blocks are taken as results are asked for, so that whoever has enough can stop.

        Args:
            keep: folder for the results; those that a stopped run left there are not made again.
                Only for the same function over the same blocks. The function may write files
                too, if it does so whole or not at all: a block may run twice.

        Raises:
            StorageError: a result cannot be kept.
        """

    def joins(self, graph_bytes: int) -> bool:
        """Whether two-hop candidates are better joined than walked in a graph of so many bytes."""
        return False

    def rest(self) -> None:  # noqa: B027 - few engines hold any
        """Give back memory that is held for speed alone; nothing by default."""

    def spent(self) -> dict[str, Any]:
        """What the engine took since the last call, beside this process; nothing by default."""
        return {}

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
