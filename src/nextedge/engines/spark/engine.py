"""The Spark engine: the same table expressions and block functions, on a cluster's executors.

Tables are read and joined by Spark; text files and databases are parsed by the local engine's
readers first, so that a value means the same on both, and handed over as Parquet. Block functions
run inside ``mapInArrow``. Everything that a step leaves for the next lies in the state folder,
which all executors must see under the same path.

A row's place in its file is kept beside it (``Engine.place``), as Spark keeps no order itself.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from nextedge import errors
from nextedge.cores import THREADS_VARIABLE
from nextedge.engines.base import PLACE, BlockFunction, Engine
from nextedge.engines.blocks import (
    KeptBlock,
    kept_blocks,
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

_FILE_SHIFT = 40
"""Rows of a file are numbered below 2**40, files above."""


class SparkEngine(Engine):
    """Spark behind Ibis.

    Args:
        temp_directory: where tables that Spark cannot read itself are staged, and what is cached;
            a folder that all executors see. Default a folder of its own among the system's
            temporary ones, which only executors on this machine see; removed on close.
        session: a running session; default one on this machine's cores, or on the cluster that
            ``spark-submit`` or ``MASTER`` names, stopped on close.
        waves: blocks that an executor's core is given at once, on average.
        join_above: bytes of a graph's rows from which two-hop candidates are joined by Spark;
            smaller ones are mapped and walked by every executor, which moves no wedge.
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
        """See ``Engine.read``."""
        from nextedge.storage.locations import Files, parse_location

        try:
            place = parse_location(location, base)
        except DataError as error:
            raise DataError(f"{table}: {error}") from None
        if not isinstance(place, Files) or place.format != "parquet" or place.remote:
            return self._staged(table, location, base)
        paths = list(place.paths)
        try:
            schemas = {pq.read_schema(path).remove_metadata() for path in paths}
        except (pa.ArrowInvalid, OSError):
            return self._staged(table, location, base)  # which says what is wrong with it
        if len(schemas) > 1 or not all(_readable(part.type) for part in schemas.pop()):
            return self._staged(table, location, base)
        with _errors(table):
            return self._numbered(self.session.read.parquet(*map(_uri, paths)), paths)

    def _numbered(self, frame: DataFrame, paths: list[str]) -> ibis.Table:
        from pyspark.sql import functions as F  # noqa: N812

        file = F.lit(0).cast("long")
        for number, path in enumerate(paths):
            file = F.when(F.col("_metadata.file_path") == _uri(path), F.lit(number)).otherwise(file)
        place = F.shiftleft(file, _FILE_SHIFT) + F.col("_metadata.row_index")
        return self._view(frame.withColumn(PLACE, place))

    def _staged(self, table: str, location: str, base: Path) -> ibis.Table:
        """Parse by the local engine, hand over as Parquet."""
        from nextedge.engines.duckdb.engine import LocalEngine

        path = self._folder / f"{next(self._names)}.parquet"
        with LocalEngine(temp_directory=self._folder / "spill") as local:
            local.write(local.read(table, location, base), path)
        return self._of_file(path)

    def _of_file(self, path: Path) -> ibis.Table:
        return self._numbered(self.session.read.parquet(_uri(str(path))), [str(path)])

    def register(self, table: str, rows: Any) -> ibis.Table:
        """See ``Engine.register``; the rows are staged as Parquet."""
        import ibis

        from nextedge.engines.duckdb.engine import LocalEngine

        if isinstance(rows, ibis.Table):
            return rows
        path = self._folder / f"{next(self._names)}.parquet"
        with LocalEngine(temp_directory=self._folder / "spill") as local:
            local.write(local.register(table, rows), path)
        return self._of_file(path)

    def place(self, table: ibis.Table) -> Any:
        """See ``Engine.place``."""
        return table[PLACE]

    def write(self, table: ibis.Table, path: Path) -> int:
        """See ``Engine.write``; the parts that executors wrote are joined in their order."""
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        with _errors(str(path)), writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
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
        """See ``Engine.to_arrow``."""
        with _errors("the tables"):
            found = self._frame(table).toArrow()
        return _as_ours(found)

    def to_batches(self, table: ibis.Table, rows: int = 1_000_000) -> Iterator[pa.RecordBatch]:
        """See ``Engine.to_batches``; executors write Parquet, which is streamed from there."""
        folder = self._folder / next(self._names)
        try:
            self._save(table, folder)
            for path in sorted(folder.glob("part-*.parquet")):
                for batch in pq.ParquetFile(path).iter_batches(rows):
                    yield from _as_ours(pa.Table.from_batches([batch])).to_batches()
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def cache(self, table: ibis.Table) -> ibis.Table:
        """See ``Engine.cache``; on disk, so that a lost executor costs no second run."""
        folder = self._folder / next(self._names)
        hidden = [PLACE] if PLACE in table.columns else []
        self._save(table, folder, keep=hidden)
        frame = self.session.read.parquet(_uri(str(folder)))
        return self._view(frame)

    def map_blocks(
        self, function: BlockFunction, blocks: Iterable[pa.Table], keep: Path | None = None
    ) -> Iterator[pa.Table]:
        """See ``Engine.map_blocks``; several blocks at once, each a task of ``mapInArrow``.

        Results go through the state folder, and not through the driver's memory.
        """
        folder = self._folder / next(self._names) if keep is None else keep
        waiting = kept_blocks(blocks, folder)
        at_once = self.cores * self._waves
        try:
            while wave := list(itertools.islice(waiting, at_once)):
                self._run(function, [each for each in wave if each.result is None])
                for each in wave:
                    assert each.path is not None
                    found = wait_for_result(each.path) if each.result is None else each.result
                    if keep is None:  # what is mapped stays until it is let go
                        each.path.unlink()
                    yield found
        finally:
            if keep is None:
                shutil.rmtree(folder, ignore_errors=True)

    def _run(self, function: BlockFunction, blocks: list[KeptBlock]) -> None:
        """Make the results of some blocks; executors write them to their places."""
        if not blocks:
            return
        work = [(packed(each.block), str(each.path)) for each in blocks]
        payloads = self.session.sparkContext.broadcast(work)

        def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            _use_own_cores()
            for batch in batches:
                for number in batch.column(0).to_pylist():
                    block, path = payloads.value[number]
                    write_result(Path(path), _on_executor(function, unpacked(block)))
                yield batch

        try:
            numbers = self.session.range(0, len(blocks), 1, len(blocks))
            with _errors("a block"):
                numbers.mapInArrow(run, "id long").write.format("noop").mode("overwrite").save()
        finally:
            payloads.destroy()

    def joins(self, graph_bytes: int) -> bool:
        """See ``Engine.joins``."""
        return graph_bytes > self._join_above

    def spent(self) -> dict[str, Any]:
        """See ``Engine.spent``: what Spark's stages since the last call took."""
        return self.metrics.since_last()

    def close(self) -> None:
        """See ``Engine.close``."""
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
        zoned = [each.name for each in frame.schema if isinstance(each.dataType, TimestampType)]
        # Ibis takes Spark's two types of times for one, the one without a zone
        return table.mutate(**{each: table[each].cast("timestamp('UTC', 6)") for each in zoned})

    def _frame(self, table: ibis.Table, keep: Iterable[str] = ()) -> DataFrame:
        """The expression as a frame; by the places of the rows, where it still has them."""
        frame = self.session.sql(str(self._ibis.compile(table)))
        if PLACE in frame.columns:
            if not _is_sorted(table):
                frame = frame.orderBy(PLACE)
            if PLACE not in keep:
                frame = frame.drop(PLACE)
        return frame

    def _save(self, table: ibis.Table, folder: Path, keep: Iterable[str] = ()) -> None:
        with _errors(str(folder)):
            frame = self._frame(table, keep)
            frame.write.option("compression", "zstd").parquet(_uri(str(folder)))


def _use_own_cores() -> None:
    """In an executor: kernels use the cores of their task, as other tasks run beside it."""
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
    """Whether an expression ends in an order of its own."""
    import ibis.expr.operations as ops

    node: Any = table.op()
    while isinstance(node, ops.Limit | ops.Project | ops.DropColumns):
        node = node.parent
    return isinstance(node, ops.Sort)


def _uri(path: str) -> str:
    return Path(path).resolve().as_uri()


def _readable(kind: pa.DataType) -> bool:
    """Whether Spark reads a column of Parquet as it is: no nanoseconds, no times of day."""
    if pa.types.is_timestamp(kind):
        return kind.unit in ("us", "ms")
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _readable(kind.value_type)
    refused = (
        pa.types.is_time(kind),
        pa.types.is_duration(kind),
        pa.types.is_float16(kind),
        pa.types.is_uint64(kind),
        pa.types.is_dictionary(kind),
        pa.types.is_nested(kind),
        pa.types.is_fixed_size_binary(kind),
    )
    return not any(refused)


def _as_ours(table: pa.Table) -> pa.Table:
    """As the local engine gives it: any column may hold nulls."""
    fields = [pa.field(each.name, each.type) for each in table.schema]
    return table.cast(pa.schema(fields))


def _raise_own(text: str) -> None:
    """Raise the error of this package that a block ended in, as if it had been raised here."""
    found = re.findall(r"^nextedge\.errors\.(\w+): (.*)$", text, re.MULTILINE)
    kind = getattr(errors, found[-1][0], None) if found else None
    if kind is not None:
        try:
            raised = kind(found[-1][1])
        except TypeError:  # one that is made of more than its message
            raised = errors.NextEdgeError(found[-1][1])
        raise raised from None


@contextmanager
def _errors(where: str) -> Iterator[None]:
    """Spark's errors in a line of words."""
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
