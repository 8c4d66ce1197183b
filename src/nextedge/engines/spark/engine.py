"""The Spark engine: the same table expressions and block functions, on a cluster's executors.

Spark reads and joins tables. The local engine parses text files and databases first, so that a
value means the same on both engines, and stages them as Parquet. Block functions run inside
``mapInArrow``. Steps leave their files in the state folder, which all executors must see under the
same path. Spark keeps no order, so a column has each row's number (``Engine.row_number``).
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from nextedge import errors
from nextedge.cores import THREADS_VARIABLE
from nextedge.engines.base import ROW_NUMBER, BlockFunction, Engine
from nextedge.engines.blocks import (
    CachedBlock,
    cached_blocks,
    packed,
    unpacked,
    wait_for_result,
    write_result,
)
from nextedge.engines.spark.metrics import StageMetrics
from nextedge.engines.spark.session import open_session
from nextedge.errors import DataError, MissingDependencyError, StorageError
from nextedge.storage.files import writing

if TYPE_CHECKING:
    import ibis
    from pyspark.sql import DataFrame, SparkSession

_FILE_SHIFT = 40  # rows of a file are numbered below 2**40, files above


class SparkEngine(Engine):
    """Spark behind Ibis.

    Args:
        temp_directory: folder for staged and cached tables, which all executors must see. Default
            a temporary folder, which only executors on this machine see; removed on close.
        session: a running session; default one on this machine's cores, or on the cluster that
            ``spark-submit`` or ``MASTER`` names, stopped on close.
        waves: blocks per core of the executors at once, on average.
        join_above: bytes of a graph from which Spark joins two-hop candidates; executors map and
            walk a smaller graph, which moves no wedge.
    """

    name = "spark"

    def __init__(
        self,
        temp_directory: Path | None = None,
        session: SparkSession | None = None,
        waves: int = 2,
        join_above: int = 4 << 30,
    ) -> None:
        try:
            import ibis
            import pyspark  # noqa: F401
        except ImportError:
            raise MissingDependencyError("pyspark", "spark", "--engine spark") from None
        self._own_session = session is None
        self.session: SparkSession = open_session() if session is None else session
        self._ibis = ibis.pyspark.connect(self.session)
        parent = None if temp_directory is None else temp_directory.resolve()
        if parent is not None:
            parent.mkdir(parents=True, exist_ok=True)
        self._folder = Path(tempfile.mkdtemp(prefix="nextedge-spark-", dir=parent))
        self._names = (f"nextedge_{os.getpid()}_{number}" for number in itertools.count())
        self._views: list[str] = []
        self.cores = max(1, self.session.sparkContext.defaultParallelism)
        self._waves = waves
        self._join_above = join_above
        self.metrics = StageMetrics(self.session)

    def read(self, table: str, location: str, base: Path) -> ibis.Table:
        from nextedge.storage.locations import Files, parse_location

        try:
            files = parse_location(location, base)
        except DataError as error:
            raise DataError(f"{table}: {error}") from None
        if not isinstance(files, Files) or files.format != "parquet" or files.remote:
            return self._staged(table, location, base)
        paths = list(files.paths)
        try:
            schemas = {pq.read_schema(path).remove_metadata() for path in paths}
        except (pa.ArrowInvalid, OSError):
            return self._staged(table, location, base)  # raises with the fault
        # Spark takes the schema of one file; the local engine unites the columns of all by name
        if len(schemas) > 1 or not all(_readable(part.type) for part in schemas.pop()):
            return self._staged(table, location, base)
        with _errors(table):
            return self._numbered(self.session.read.parquet(*map(_uri, paths)), paths)

    def _numbered(self, frame: DataFrame, paths: list[str]) -> ibis.Table:
        from pyspark.sql import functions as F  # noqa: N812

        file = F.lit(0).cast("long")
        for number, path in enumerate(paths):
            file = F.when(F.col("_metadata.file_path") == _uri(path), F.lit(number)).otherwise(file)
        row = F.shiftleft(file, _FILE_SHIFT) + F.col("_metadata.row_index")
        return self._view(frame.withColumn(ROW_NUMBER, row))

    def _staged(self, table: str, location: str, base: Path) -> ibis.Table:
        return self._through_parquet(lambda local: local.read(table, location, base))

    def _through_parquet(self, read: Callable[[Engine], ibis.Table]) -> ibis.Table:
        """A table that the local engine reads and writes as Parquet, for Spark."""
        from nextedge.engines.duckdb.engine import LocalEngine

        path = self._folder / f"{next(self._names)}.parquet"
        with LocalEngine(temp_directory=self._folder / "spill") as local:
            local.write(read(local), path)
        return self._numbered(self.session.read.parquet(_uri(str(path))), [str(path)])

    def register(self, table: str, rows: Any) -> ibis.Table:
        """See ``Engine.register``; the rows are staged as Parquet."""
        import ibis

        if isinstance(rows, ibis.Table):
            return rows
        return self._through_parquet(lambda local: local.register(table, rows))

    def row_number(self, table: ibis.Table) -> Any:
        return table[ROW_NUMBER]

    def write(self, table: ibis.Table, path: Path) -> int:
        """See ``Engine.write``; joins the parts of the executors in order."""
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        with _errors(str(path)), writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                # a result without rows has no batch to take the schema from
                rows, schema = 0, self.to_arrow(table.limit(0)).schema
                with pq.ParquetWriter(part, schema, compression="zstd") as writer:
                    for batch in self.to_batches(table):
                        writer.write_table(pa.Table.from_batches([batch]).cast(schema))
                        rows += len(batch)
                part.replace(path)
            finally:
                part.unlink(missing_ok=True)
        return rows

    def to_arrow(self, table: ibis.Table) -> pa.Table:
        with _errors("the tables"):
            return _nullable(self._frame(table).toArrow())

    def to_batches(self, table: ibis.Table, rows: int = 1_000_000) -> Iterator[pa.RecordBatch]:
        """See ``Engine.to_batches``; streams Parquet files of the executors."""
        folder = self._folder / next(self._names)
        try:
            self._save(table, folder)
            # numbers of parts follow the order of the rows
            for path in sorted(folder.glob("part-*.parquet")):
                for batch in pq.ParquetFile(path).iter_batches(rows):
                    yield from _nullable(pa.Table.from_batches([batch])).to_batches()
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def cache(self, table: ibis.Table) -> ibis.Table:
        """See ``Engine.cache``; on disk, so that the loss of an executor needs no second run."""
        folder = self._folder / next(self._names)
        self._save(table, folder, keep=[ROW_NUMBER])
        return self._view(self.session.read.parquet(_uri(str(folder))))

    def map_blocks(
        self, function: BlockFunction, blocks: Iterable[pa.Table], keep: Path | None = None
    ) -> Iterator[pa.Table]:
        """See ``Engine.map_blocks``; several blocks at once, each a task of ``mapInArrow``.

        Results go through the state folder, not through the driver's memory.
        """
        folder = self._folder / next(self._names) if keep is None else keep
        waiting = cached_blocks(blocks, folder)
        at_once = self.cores * self._waves
        try:
            # in waves, since a caller that has enough rows stops early
            while wave := list(itertools.islice(waiting, at_once)):
                self._run(function, [block for block in wave if block.result is None])
                for block in wave:
                    assert block.path is not None
                    result = wait_for_result(block.path) if block.result is None else block.result
                    if keep is None:  # the mapping keeps the bytes until the result is dropped
                        block.path.unlink()
                    yield result
        finally:
            if keep is None:
                shutil.rmtree(folder, ignore_errors=True)

    def _run(self, function: BlockFunction, blocks: list[CachedBlock]) -> None:
        """Make the results of some blocks; executors write the files."""
        if not blocks:
            return
        work = [(packed(cached.block), str(cached.path)) for cached in blocks]
        payloads = self.session.sparkContext.broadcast(work)

        def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            _use_own_cores()
            for batch in batches:
                for number in batch.column(0).to_pylist():
                    block, path = payloads.value[number]
                    write_result(Path(path), _on_executor(function, unpacked(block)))
                yield batch

        try:
            # one partition a block, so that each is a task of its own
            numbers = self.session.range(0, len(blocks), 1, len(blocks))
            with _errors("a block"):
                numbers.mapInArrow(run, "id long").write.format("noop").mode("overwrite").save()
        finally:
            # else executors would hold the blocks of every wave
            payloads.destroy()

    def joins(self, graph_bytes: int) -> bool:
        return graph_bytes > self._join_above

    def spent(self) -> dict[str, Any]:
        """See ``Engine.spent``: the resources of Spark's stages since the last call."""
        return self.metrics.since_last()

    def close(self) -> None:
        for name in self._views:
            self.session.catalog.dropTempView(name)
        shutil.rmtree(self._folder, ignore_errors=True)
        if self._own_session:
            self.session.stop()

    def _view(self, frame: DataFrame) -> ibis.Table:
        from pyspark.sql.types import TimestampType

        name = next(self._names)
        frame.createOrReplaceTempView(name)
        self._views.append(name)
        table = self._ibis.table(name)
        zoned = [f.name for f in frame.schema if isinstance(f.dataType, TimestampType)]
        # Ibis reads both time types of Spark as the one without a zone
        return table.mutate(**{name: table[name].cast("timestamp('UTC', 6)") for name in zoned})

    def _frame(self, table: ibis.Table, keep: Iterable[str] = ()) -> DataFrame:
        """The expression as a frame, sorted by row numbers if it has them."""
        frame = self.session.sql(str(self._ibis.compile(table)))
        if ROW_NUMBER in frame.columns:
            if not _is_sorted(table):
                frame = frame.orderBy(ROW_NUMBER)
            if ROW_NUMBER not in keep:
                frame = frame.drop(ROW_NUMBER)
        return frame

    def _save(self, table: ibis.Table, folder: Path, keep: Iterable[str] = ()) -> None:
        with _errors(str(folder)):
            frame = self._frame(table, keep)
            frame.write.option("compression", "zstd").parquet(_uri(str(folder)))


def _use_own_cores() -> None:
    """Limit kernels in an executor to the cores of their task, as other tasks run beside it."""
    from pyspark import TaskContext

    task = TaskContext.get()
    os.environ.setdefault(THREADS_VARIABLE, str(1 if task is None else task.cpus()))


def _on_executor(function: BlockFunction, block: pa.Table) -> pa.Table:
    try:
        return function(block)
    except FileNotFoundError as error:
        raise StorageError(
            f"{error.filename}: not seen by the executor on {socket.gethostname()}; all machines "
            "must see the state folder under the same path (docs/spark.md)"
        ) from error


def _is_sorted(table: ibis.Table) -> bool:
    """Whether an expression ends in a sort."""
    import ibis.expr.operations as ops

    node: Any = table.op()
    while isinstance(node, ops.Limit | ops.Project | ops.DropColumns):
        node = node.parent
    return isinstance(node, ops.Sort)


def _uri(path: str) -> str:
    return Path(path).resolve().as_uri()


def _readable(kind: pa.DataType) -> bool:
    """Whether Spark supports the type of a Parquet column: not nanoseconds or times of day."""
    if pa.types.is_timestamp(kind):
        return kind.unit in ("us", "ms")
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _readable(kind.value_type)
    refused = "time duration float16 uint64 dictionary nested fixed_size_binary".split()
    return not any(getattr(pa.types, f"is_{name}")(kind) for name in refused)


def _nullable(table: pa.Table) -> pa.Table:
    """The table with nullable columns, as in the local engine."""
    fields = [pa.field(column.name, column.type) for column in table.schema]
    return table.cast(pa.schema(fields))


def _raise_own(text: str) -> None:
    """Raise the error of this package in the traceback of a block."""
    raised = re.findall(r"^nextedge\.errors\.(\w+): (.*)$", text, re.MULTILINE)
    kind = getattr(errors, raised[-1][0], None) if raised else None
    if kind is not None:
        try:
            error = kind(raised[-1][1])
        except TypeError:  # its constructor needs more than a message
            error = errors.NextEdgeError(raised[-1][1])
        raise error from None


@contextmanager
def _errors(where: str) -> Iterator[None]:
    """Raise errors of Spark as errors of this package, in one line."""
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException

    try:
        yield
    except (PySparkException, Py4JError) as error:
        text = str(error)
        _raise_own(text)
        first = next((line for line in text.splitlines() if line.strip()), text).strip()[:400]
        if "No space left" in text or "Permission denied" in text or "Read-only" in text:
            raise StorageError(
                f"{where}: cannot be written ({first}); free some space or choose another folder, "
                f"then run the same command again"
            ) from error
        if "CANNOT_READ_FILE" in text or "PARQUET" in text.upper() or "FAILED_READ" in text:
            raise DataError(f"{where}: cannot be read: {first}") from error
        raise
