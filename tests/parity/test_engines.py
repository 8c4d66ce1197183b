"""Spark builds the release that the local engine builds: every file of it, from the same tables."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nextedge import Recommender
from nextedge.build.tables_to_graph import edges as interning
from nextedge.cli.batch import _digest, publish_all, recommend_all
from nextedge.cli.export import write_all
from nextedge.data.ids import IdMap
from nextedge.data.synthetic import SyntheticConfig, generate_tenant
from nextedge.engines import blocks as engines_blocks
from nextedge.engines.blocks import packed, wait_for_result, write_result
from nextedge.engines.duckdb.engine import LocalEngine
from nextedge.engines.spark.engine import SparkEngine
from nextedge.errors import NextEdgeError, StorageError
from nextedge.graph import assemble
from nextedge.progress import quiet
from nextedge.releases.manifest import Release
from nextedge.serving.caches.precomputed import open_candidates
from nextedge.serving.messages import RecommendationRequest
from nextedge.testing.blocks import Broken, Reads, Twice

WITHIN = 1e-6
USUAL = ("manifest.json", "build.json")  # when it was made, and what that took


@pytest.fixture(scope="module")
def tenant(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tenant")
    generate_tenant(folder, SyntheticConfig(users=150, items=60, seed=3))
    (folder / "nextedge.toml").write_text(
        "[surfaces.people]\n[surfaces.people.ranker]\nmax_rows = 4000\n"
        "[surfaces.items]\n[surfaces.items.ranker]\nmax_rows = 4000\n"
        "[surfaces.items.index]\nkind = 'ivf_flat'\nexact_search_max_items = 10\nshards = 2\n"
    )
    return folder


def built(tenant: Path, target: Path, engine: Any) -> Release:
    """Build a copy of the tenant; returns its release."""
    target.mkdir()
    for path in tenant.iterdir():
        if path.is_file():
            (target / path.name).write_bytes(path.read_bytes())
    recommender = Recommender(target)
    recommender.build(engine=engine)
    return recommender.releases.current()[0]


@pytest.fixture(scope="module")
def local(tenant: Path, tmp_path_factory: pytest.TempPathFactory) -> Release:
    return built(tenant, tmp_path_factory.mktemp("local") / "tenant", "local")


@pytest.fixture(scope="module")
def engine() -> Iterator[SparkEngine]:
    """Graphs and tables are cut into several blocks, and two-hop candidates joined by Spark, as of
    a graph that no executor could hold.
    """
    with pytest.MonkeyPatch.context() as patch, SparkEngine(join_above=0) as opened:
        patch.setattr(assemble, "BLOCK_ENTRIES", 1500)
        patch.setattr(interning, "ROWS", 100)
        yield opened


@pytest.fixture(scope="module")
def spark(tenant: Path, engine: SparkEngine, tmp_path_factory: pytest.TempPathFactory) -> Release:
    return built(tenant, tmp_path_factory.mktemp("spark") / "tenant", engine)


def same(left: Any, right: Any) -> bool:
    """Plain values alike, but for floats within a millionth and what is time."""
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[k], right[k]) for k in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, float) and isinstance(right, float):
        return math.isclose(left, right, rel_tol=WITHIN, abs_tol=WITHIN)
    return bool(left == right)


def contents(release: Release) -> dict[str, Path]:
    files = {str(path.relative_to(release.path)): path for path in release.path.rglob("*")}
    return {name: path for name, path in files.items() if path.is_file() and name not in USUAL}


@pytest.mark.slow
def test_every_file_of_the_release_is_the_same(local: Release, spark: Release) -> None:
    ours, theirs = contents(local), contents(spark)
    assert ours.keys() == theirs.keys()
    assert len(ours) > 60
    differing = []
    for name, path in ours.items():
        other = theirs[name]
        if path.suffix == ".npy":
            left, right = np.load(path), np.load(other)
            alike = left.shape == right.shape and left.dtype == right.dtype
            if alike and left.dtype.kind == "f":
                alike = bool(np.allclose(left, right, rtol=WITHIN, atol=WITHIN, equal_nan=True))
            elif alike:
                alike = bool((left == right).all())
        elif path.suffix == ".json":
            alike = same(json.loads(path.read_text()), json.loads(other.read_text()))
        else:
            alike = path.read_bytes() == other.read_bytes()
        if not alike:
            differing.append(name)
    assert not differing


@pytest.mark.slow
def test_what_a_release_cost_has_sparks_stages(local: Release, spark: Release) -> None:
    ours = {(s["step"], s.get("surface")): s for s in local.costs()}
    theirs = {(s["step"], s.get("surface")): s for s in spark.costs()}
    assert ours.keys() == theirs.keys()
    assert theirs["tables", None]["stages"] > 0
    assert theirs["rank", "people"]["tasks"] > 0
    assert "stages" not in ours["tables", None]


def test_rows_of_many_blocks_are_the_same(engine: SparkEngine, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    ends = random.integers(0, 300, (2, 1000))
    rows = pa.table({"src": ends[0], "dst": ends[1], "weight": random.random(1000)})
    pq.write_table(rows, tmp_path / "connections.parquet", row_group_size=60)
    ids = IdMap(pa.array(np.unique(ends)))
    with LocalEngine() as local_engine:
        for each in (engine, local_engine):
            folder = tmp_path / each.name
            folder.mkdir()
            for name in ("users", "items"):
                ids.save(folder / f"{name}.arrow")
            path = tmp_path / "connections.parquet"
            interning.intern(each, path, "connections", folder, folder / "connections")
    for name in ("source", "target", "time", "weight"):
        ours, theirs = (
            np.load(tmp_path / each / "connections" / f"{name}.npy") for each in ("local", "spark")
        )
        assert len(ours) == 1000
        np.testing.assert_array_equal(ours, theirs)


def blocks(number: int) -> Iterator[pa.Table]:
    for place in range(number):
        yield pa.table({"x": [place, place + 1]})


def test_parts_of_another_request_are_in_another_folder() -> None:
    question = RecommendationRequest("people", 5)
    for change in ({"allow_seen": True}, {"filters": {"city": "Oslo"}}, {"exclude": ["u1"]}):
        assert _digest(replace(question, **change)) != _digest(question)  # type: ignore[arg-type]
    assert _digest(replace(question)) == _digest(question)


@pytest.mark.slow
def test_everybody_is_recommended_the_same(
    local: Release, engine: SparkEngine, tmp_path: Path
) -> None:
    """Long: Spark starts, and a release is built."""
    recommender = Recommender(local.path.parents[2])
    question = RecommendationRequest("people", 5)
    write_all(recommender, question, tmp_path / "local.parquet", quiet)
    rows = recommend_all(engine, recommender, question, tmp_path / "spark.parquet", quiet)
    order = [("user_id", "ascending"), ("rank", "ascending")]
    ours, theirs = (
        pq.read_table(tmp_path / f"{name}.parquet").sort_by(order) for name in ("local", "spark")
    )
    assert rows == len(ours) > 300
    assert sorted(path.name for path in tmp_path.iterdir()) == ["local.parquet", "spark.parquet"]
    assert ours.drop_columns("score") == theirs.drop_columns("score")
    assert np.allclose(ours["score"], theirs["score"], rtol=WITHIN)


@pytest.mark.slow
def test_everybodys_candidates_are_kept_once(local: Release, engine: SparkEngine) -> None:
    recommender = Recommender(local.path.parents[2])
    users, surfaces = len(recommender.release.entities.users), len(local.surfaces)
    assert publish_all(engine, recommender, None, None, quiet) == users * surfaces
    assert len(list(open_candidates(recommender.config).keys(""))) == users * surfaces


def test_blocks_come_in_their_order_and_are_kept(engine: SparkEngine, tmp_path: Path) -> None:
    with LocalEngine() as local_engine:
        for each in (engine, local_engine):
            keep = tmp_path / each.name
            first = each.map_blocks(Twice(), blocks(7), keep)
            assert [next(first)["twice"].to_pylist() for _ in range(2)] == [[0, 2], [2, 4]]
            first.close()
            made = sorted(path.name for path in keep.iterdir())
            assert "000001.arrow" in made
            (keep / "000000.arrow").write_bytes(packed(pa.table({"twice": [7]})))
            again = [t["twice"].to_pylist() for t in each.map_blocks(Twice(), blocks(7), keep)]
            assert again == [[7], *([2 * x, 2 * x + 2] for x in range(1, 7))]
    with pytest.raises(NextEdgeError, match="no such thing"):
        list(engine.map_blocks(Broken("no such thing"), blocks(2)))


def test_machines_that_do_not_see_one_folder_are_told_so(
    engine: SparkEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StorageError, match=r"away: not seen by the executor on .*same path"):
        list(engine.map_blocks(Reads(tmp_path / "away"), blocks(1)))
    monkeypatch.setattr(engines_blocks, "SEEN_WITHIN_SECONDS", 0.3)
    with pytest.raises(StorageError, match="written by an executor and is not seen here"):
        wait_for_result(tmp_path / "000000.arrow")
    threading.Timer(0.1, write_result, (tmp_path / "000001.arrow", pa.table({"x": [1]}))).start()
    assert wait_for_result(tmp_path / "000001.arrow")["x"].to_pylist() == [1]
    assert [path.name for path in tmp_path.iterdir()] == ["000001.arrow"]


KILLED = """
import os, signal, subprocess, sys, threading, time
import pyspark
os.environ["SPARK_HOME"] = os.path.dirname(pyspark.__file__)
from pyspark.sql import SparkSession
from nextedge.testing.blocks import Twice
import pyarrow as pa
from nextedge.engines.spark.engine import SparkEngine

session = (
    SparkSession.builder.master("local-cluster[2,1,1024]").config("spark.ui.enabled", "false")
    .config("spark.driver.host", "127.0.0.1").config("spark.executor.memory", "600m")
    .config("spark.executorEnv.PYTHONPATH", os.pathsep.join(sys.path)).getOrCreate()
)
session.sparkContext.setLogLevel("OFF")

def kill():
    time.sleep(1.5)
    own = subprocess.run(["pgrep", "-f", "CoarseGrainedExecutorBackend"], capture_output=True, text=True)
    os.kill(int(own.stdout.split()[-1]), signal.SIGKILL)
    print("killed", flush=True)

blocks = (pa.table({"x": [place]}) for place in range(8))
with SparkEngine(session=session) as engine:
    results = engine.map_blocks(Twice(4.0), blocks)
    found = [next(results)["twice"][0].as_py() for _ in range(4)]  # the blocks that are begun at once
    threading.Thread(target=kill).start()
    found += [table["twice"][0].as_py() for table in results]
    print(found, engine.spent()["failed_tasks"] > 0, flush=True)
session.stop()
"""


@pytest.mark.slow
def test_a_killed_executor_costs_its_tasks_only() -> None:
    """A cluster of two executors in processes of their own; one is killed among its blocks."""
    done = subprocess.run(
        [sys.executable, "-c", KILLED], capture_output=True, text=True, timeout=400, check=False
    )
    assert "killed" in done.stdout, done.stderr[-2000:]
    assert f"{[2 * x for x in range(8)]} True" in done.stdout, done.stderr[-2000:]


@pytest.mark.slow
def test_a_build_stopped_by_kill_goes_on_where_it_was(tenant: Path, tmp_path: Path) -> None:
    """SIGKILL of the driver among the blocks of the ranker; the next build keeps those it has."""
    folder = tmp_path / "tenant"
    folder.mkdir()
    for path in tenant.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    command = [
        sys.executable,
        "-m",
        "nextedge",
        "build",
        str(folder),
        "--surface",
        "people",
        "--engine",
        "spark",
    ]
    process = subprocess.Popen(
        command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    kept: list[Path] = []
    while process.poll() is None and not kept:
        kept = list((folder / "state" / "work" / "checkpoints").glob("rank-*/*-rows-*/*/*.arrow"))
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert kept
    stamp = kept[0].stat().st_mtime_ns
    looked: list[int] = []

    def look() -> None:
        while not stop.wait(0.1):
            if kept[0].exists():
                looked.append(kept[0].stat().st_mtime_ns)

    stop = threading.Event()
    watch = threading.Thread(target=look)
    watch.start()
    try:
        done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True)
    finally:
        stop.set()
        watch.join()
    assert json.loads(done.stdout)["release"]
    assert set(looked) == {stamp}
