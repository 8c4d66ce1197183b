"""What every engine must do; engines are discovered, so that a new one cannot dodge the suite."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import nextedge.engines
from nextedge.engines.base import Engine
from nextedge.engines.duckdb.engine import LocalEngine
from nextedge.errors import DataError, StorageError


def _engines() -> list[type[Engine]]:
    for module in pkgutil.walk_packages(nextedge.engines.__path__, "nextedge.engines."):
        importlib.import_module(module.name)
    found, waiting = [], [Engine]
    while waiting:
        waiting += (below := waiting.pop().__subclasses__())
        found += [engine for engine in below if not inspect.isabstract(engine)]
    return found


@pytest.fixture(params=_engines(), ids=lambda engine: engine.__name__, scope="module")
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    with request.param() as opened:
        yield opened


ROWS = pa.table({"x": [3, 1, 2], "name": ["李", "😀", None]})


def test_frames_come_out_as_they_went_in(engine: Engine) -> None:
    frames = (ROWS, pl.from_arrow(ROWS), ROWS.to_pandas(), duckdb.from_arrow(ROWS))
    for frame in frames:
        table = engine.register("frame", frame)
        assert engine.to_arrow(table).to_pylist() == ROWS.to_pylist()
        assert engine.register("again", table) is table


def test_write_read_and_run_an_expression(engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "x.parquet"
    assert engine.write(engine.register("x", ROWS), path) == 3
    assert [entry.name for entry in path.parent.iterdir()] == ["x.parquet"]
    assert pq.ParquetFile(path).metadata.row_group(0).column(0).compression == "ZSTD"
    table = engine.read("x", "deep/er/x.parquet", tmp_path)
    doubled = table.filter(table.x > 1).mutate(y=table.x * 2).order_by("x")
    assert engine.to_arrow(doubled).to_pylist() == [
        {"x": 2, "name": None, "y": 4},
        {"x": 3, "name": "李", "y": 6},
    ]


def test_batches_cover_the_table_while_others_run(engine: Engine) -> None:
    table = engine.register("x", pa.table({"x": range(10_000)}))
    seen = 0
    for batch in engine.to_batches(table, rows=2048):
        seen += sum(batch.column(0).to_pylist())
        assert engine.to_arrow(table.limit(1)).num_rows == 1
    assert seen == sum(range(10_000))


def test_cache_outlives_its_source(engine: Engine, tmp_path: Path) -> None:
    pq.write_table(ROWS, tmp_path / "x.parquet")
    cached = engine.cache(engine.read("x", "x.parquet", tmp_path))
    (tmp_path / "x.parquet").unlink()
    assert engine.to_arrow(cached).num_rows == 3


def test_times_without_a_zone_are_utc(engine: Engine) -> None:
    naive = pa.table({"t": pa.array([86_400_000_000], pa.timestamp("us"))})
    table = engine.register("t", naive)
    utc = engine.to_arrow(table.select(t=table.t.cast("timestamp('UTC', 6)")))
    assert utc.schema.field("t").type == pa.timestamp("us", "UTC")
    assert utc["t"].cast(pa.int64()).to_pylist() == [86_400_000_000]


def test_a_failed_write_keeps_what_was_there(engine: Engine, tmp_path: Path) -> None:
    good = engine.register("good", ROWS)
    path = tmp_path / "x.parquet"
    engine.write(good, path)
    with pytest.raises(StorageError, match="cannot be written"):
        engine.write(good, path / "below_a_file.parquet")
    broken = tmp_path / "broken.parquet"
    pq.write_table(pa.table({"x": range(100_000)}), broken, row_group_size=10_000)
    table = engine.read("broken", str(broken), tmp_path)
    raw = bytearray(broken.read_bytes())
    raw[100:2000] = b"\x00" * 1900
    broken.write_bytes(raw)
    with pytest.raises(DataError, match="cannot be read"):
        engine.write(table, path)
    assert pq.read_table(path).num_rows == 3
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["broken.parquet", "x.parquet"]


FULL_DISK = """
import resource, sys
from pathlib import Path
import pyarrow as pa
from nextedge.engines.duckdb.engine import LocalEngine
from nextedge.errors import StorageError
with LocalEngine(threads=1) as engine:
    table = engine.register("x", pa.table({"x": pa.array(range(1_000_000))}))
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    try:
        engine.write((table.mutate(y=table.x.hash())), Path(sys.argv[1]) / "x.parquet")
    except StorageError as error:
        print("StorageError:", error)
"""


def test_a_full_disk_is_a_storage_error(tmp_path: Path) -> None:
    """The limit on a file's size stands in for the end of a disk."""
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True
    )
    assert "StorageError: " in done.stdout and "free some space" in done.stdout, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_memory_that_cannot_spill_is_a_storage_error(tmp_path: Path) -> None:
    with LocalEngine(tmp_path, memory_limit="40MB", threads=1) as engine:
        engine.connection.execute("SET max_temp_directory_size = '1MB'")
        table = engine.register("x", pa.table({"x": range(5_000_000)}))
        with pytest.raises(StorageError, match="free some space"):
            engine.cache(table.mutate(y=table.x.hash()).order_by("y"))


def test_the_spill_folder_goes_with_the_engine() -> None:
    engine = LocalEngine()
    (folder,) = engine.connection.execute("SELECT current_setting('temp_directory')").fetchone()
    assert Path(folder).is_dir()
    engine.close()
    assert not Path(folder).exists()


def test_importing_nextedge_loads_no_engine() -> None:
    heavy = ("ibis", "duckdb", "pandas", "pyarrow")
    code = f"import nextedge, sys; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
