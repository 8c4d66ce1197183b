"""A feature of time t sees nothing that happened, or became known, after t."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from nextedge.build.entities import EntitiesStep
from nextedge.build.tables import TablesStep
from nextedge.build.time_split.history import History
from nextedge.build.time_split.pairs import Pairs
from nextedge.build.time_split.split import TimeSplit, Window
from nextedge.build.time_split.surface_history import SurfaceHistory
from nextedge.build.time_split.window_pipeline import WindowPipelineFactory
from nextedge.build.time_split.window_snapshot import serving_snapshot, window_snapshot
from nextedge.config import parse_config
from nextedge.data.synthetic import SyntheticConfig, generate_tenant
from nextedge.engines.duckdb.engine import LocalEngine
from nextedge.graph.scope import Scope
from nextedge.graph.snapshot import relation_of
from nextedge.progress import quiet
from nextedge.ranking.pipeline import RankingPipeline
from nextedge.types import CONNECTS, FloatArray, Requests

TABLES = ("connections", "interactions", "impressions")
QUERIES = np.arange(0, 200, 5, dtype=np.int32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tenant whose rows arrive up to three days late, and the instant of the cut."""
    folder = tmp_path_factory.mktemp("given")
    generate_tenant(folder, SyntheticConfig(users=200, items=120, seed=5))
    random = np.random.default_rng(1)
    for name in TABLES:
        rows = pl.read_parquet(folder / f"{name}.parquet")
        late = (random.random(len(rows)) < 0.3) * random.random(len(rows)) * 3 * 86_400e6
        arrived = pl.col("timestamp") + pl.Series(late.astype(np.int64)).cast(pl.Duration("us"))
        if name == "impressions":  # every other look at a person opens the profile
            opened = (pl.col("item_id").is_null()) & (pl.int_range(pl.len()) % 2 == 0)
            rows = rows.with_columns(
                pl.when(opened).then(pl.lit("view")).otherwise("action").alias("action")
            )
        rows.with_columns(arrived.alias("arrived_at")).write_parquet(folder / f"{name}.parquet")
    return folder


def cut_of(folder: Path) -> int:
    times = pl.read_parquet(folder / "connections.parquet")["timestamp"]
    return int(times.cast(pl.Datetime("us", "UTC")).to_physical().quantile(0.8, "lower"))  # type: ignore[arg-type]


def computed(
    folder: Path, work: Path, surface: str, as_of: int
) -> tuple[RankingPipeline, FloatArray]:
    """The line of the window that ends at ``as_of``, and the features of its candidates."""
    tables = {name: f"{name}.parquet" for name in (*TABLES, "users", "items")}
    config = parse_config({"data": tables, "state": str(work)}, base=folder, origin="test")
    for name in ("tables", "entities"):
        (work / name).mkdir(parents=True)
    with LocalEngine(temp_directory=work / "spill") as engine:
        TablesStep(config, engine, "").run({}, work / "tables", quiet)
        step = EntitiesStep(config, engine)
        step.run({"tables": work / "tables"}, work / "entities", quiet)
    history = History.load(work / "entities")
    relation = relation_of(config.surface(surface))
    scope = Scope(serving_snapshot(history), relation)
    pairs = Pairs.of(scope.graph, relation)
    before = pairs.first <= as_of
    window = Window("label_0", as_of, before, ~before)
    cut = SurfaceHistory(history, relation, scope, pairs, TimeSplit("time", "", [window]))
    settings = config.surface(surface)
    with LocalEngine(temp_directory=work / "spill") as engine:
        lines = WindowPipelineFactory(engine, work, settings, cut, {})
        line = lines.pipeline(window).open()
    requests = Requests(QUERIES, as_of, 20)
    return line, line.matrix(requests, line.retrieve(requests))


def altered(folder: Path, target: Path, seed: int, as_of: int, column: str) -> None:
    """The same tables with every later row (by ``column``) shifted in time and ends shuffled."""
    random = np.random.default_rng(seed)
    target.mkdir()
    for path in folder.glob("*.parquet"):
        rows = pl.read_parquet(path)
        if path.stem in TABLES:
            time = rows[column].cast(pl.Datetime("us", "UTC")).to_physical()
            early, late = rows.filter(time <= as_of), rows.filter(time > as_of)
            ends = [c for c in late.columns if c in ("user_id", "src", "dst")]
            shift = pl.lit(int(random.integers(0, 90)) * 86_400_000_000).cast(pl.Duration("us"))
            late = late.with_columns(
                *(pl.col(end).shuffle(seed=seed) for end in ends),
                pl.col("timestamp") + shift if column == "timestamp" else pl.col("timestamp"),
                pl.col("arrived_at") + shift,
            )
            rows = pl.concat([early, late])
        rows.write_parquet(target / path.name)


@pytest.mark.parametrize(
    ("column", "surface"),
    [
        ("timestamp", "people"),
        ("arrived_at", "items"),
        pytest.param("timestamp", "items", marks=pytest.mark.slow),
        pytest.param("arrived_at", "people", marks=pytest.mark.slow),
    ],
)
@settings(
    max_examples=2,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(seed=st.integers(0, 2**20))
def test_shifting_what_is_later_changes_nothing(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, surface: str, column: str, seed: int
) -> None:
    as_of = cut_of(folder)
    work = tmp_path_factory.mktemp("work")
    line, before = computed(folder, work / "before", surface, as_of)
    altered(folder, work / "given", seed, as_of, column)
    _, after = computed(work / "given", work / "after", surface, as_of)
    names = line.features.names
    assert len(before) > 1000
    differing = [
        name
        for place, name in enumerate(names)
        if before.shape != after.shape
        or not np.array_equal(before[:, place], after[:, place], equal_nan=True)
    ]
    assert differing == []


def test_the_property_can_fail(folder: Path, tmp_path: Path) -> None:
    """The same alteration does change the features of a cut that comes after it."""
    as_of = cut_of(folder)
    later = as_of + 40 * 86_400_000_000
    _, before = computed(folder, tmp_path / "before", "people", later)
    altered(folder, tmp_path / "given", 3, as_of, "timestamp")
    _, after = computed(tmp_path / "given", tmp_path / "after", "people", later)
    assert before.shape != after.shape or not np.array_equal(before, after, equal_nan=True)


def test_without_times_no_impression_is_a_feature(folder: Path, tmp_path: Path) -> None:
    """Who opened whose profile would tell of the edges that a random split holds back."""
    config = parse_config(
        {"data": {name: f"{name}.parquet" for name in (*TABLES, "users", "items")}},
        base=folder,
        origin="test",
    )
    for name in ("tables", "entities"):
        (tmp_path / name).mkdir()
    with LocalEngine(temp_directory=tmp_path / "spill") as engine:
        TablesStep(config, engine, "").run({}, tmp_path / "tables", quiet)
        step = EntitiesStep(config, engine)
        step.run({"tables": tmp_path / "tables"}, tmp_path / "entities", quiet)
    history = History.load(tmp_path / "entities")
    served = serving_snapshot(history)
    assert served.profile_views.edges > 0
    pairs = Pairs.of(served.connections, CONNECTS)
    held = np.arange(len(pairs.source)) % 7 == 0
    window = Window("label_0", None, ~held, held)
    assert window_snapshot(history, CONNECTS, pairs, window).profile_views.edges == 0
