"""The wedge join against the kernel and the naive oracle, on DuckDB and on Spark."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ibis
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nextedge.engines.duckdb.engine import LocalEngine
from nextedge.errors import ConfigError, DataError
from nextedge.graph.two_hop import SCORES, TwoHopResult, top_two_hop
from nextedge.graph.wedge_blocks import cut_queries, two_hop_result, write_blocks
from nextedge.graph.wedge_join import COLUMNS, WedgeJoin, query_wedges, two_hop_table, wedge_sides
from nextedge.testing.oracles import two_hop_candidates, two_hop_scores

NODES = 16
Rows = tuple[Any, Any]
edge_lists = st.lists(
    st.tuples(st.integers(0, NODES - 1), st.integers(0, NODES - 1)).filter(lambda e: e[0] < e[1]),
    max_size=70,
)


def entries_of(edges: Any) -> pa.Table:
    """Both directions of undirected edges, sorted."""
    pairs = np.array(sorted({*edges, *((b, a) for a, b in edges)}), np.int32).reshape(-1, 2)
    return pa.table({"source": pairs[:, 0], "target": pairs[:, 1]})


def rows_of(entries: pa.Table, nodes: int) -> Rows:
    indptr = np.zeros(nodes + 1, np.int64)
    np.cumsum(np.bincount(entries["source"].to_numpy(), minlength=nodes), out=indptr[1:])
    return indptr, entries["target"].to_numpy()


def zipf_entries(nodes: int, edges: int, seed: int = 0) -> pa.Table:
    """A graph with hubs, with ties, and with nodes that nobody knows."""
    drawn = np.random.default_rng(seed).zipf(1.6, (edges * 3, 2)) % nodes
    return entries_of([(a, b) for a, b in drawn.tolist() if a != b][:edges])


def star_entries(leaves: int) -> pa.Table:
    hub, leaf = np.zeros(leaves, np.int32), np.arange(1, leaves + 1, dtype=np.int32)
    return pa.table({"source": np.concatenate((hub, leaf)), "target": np.concatenate((leaf, hub))})


@pytest.fixture(scope="module")
def engine() -> Iterator[LocalEngine]:
    with LocalEngine(threads=2) as opened:
        yield opened


@pytest.fixture(scope="module")
def spark() -> Iterator[Any]:
    pyspark = pytest.importorskip("pyspark.sql")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(os.environ, "PYSPARK_PYTHON", sys.executable)
        builder = pyspark.SparkSession.builder.master("local[2]")
        chosen = {
            "ui.enabled": "false",
            "ui.showConsoleProgress": "false",
            "driver.memory": "1g",
            "sql.shuffle.partitions": "3",
            "driver.host": "127.0.0.1",
        }
        for name, value in chosen.items():
            builder = builder.config(f"spark.{name}", value)
        session = builder.getOrCreate()
        session.sparkContext.setLogLevel("ERROR")
        yield session
        session.stop()


def assert_equal(found: TwoHopResult, expected: TwoHopResult) -> None:
    assert found.indptr.dtype == np.int64 and found.candidate.dtype == np.int32
    np.testing.assert_array_equal(found.indptr, expected.indptr)
    np.testing.assert_array_equal(found.candidate, expected.candidate)
    for name in SCORES:
        assert getattr(found, name).dtype == np.float32
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-6)


def local_rows(
    engine: LocalEngine, entries: pa.Table, asked: WedgeJoin, queries: Any = None
) -> pa.Table:
    table = engine.register("entries", entries)
    given_queries = None
    if queries is not None:
        given_queries = engine.register("queries", pa.table({"query": queries}))
    return engine.to_arrow(two_hop_table(table, asked, given_queries).order_by(["query", "rank"]))


def kernel_rows(entries: pa.Table, nodes: int, asked: WedgeJoin, queries: Any) -> TwoHopResult:
    return top_two_hop(
        *rows_of(entries, nodes),
        queries,
        n=asked.n,
        min_common=asked.min_common,
        score=asked.score,
        hub_cap=asked.hub_cap,
    )


@given(
    edge_lists,
    st.sampled_from(SCORES),
    st.integers(0, 3),
    st.integers(0, NODES + 5),
    st.sampled_from([None, 0, 1, 3, 6]),
    st.sampled_from([2, 5, 1 << 22]),
)
@settings(max_examples=30, deadline=None)
def test_join_equals_kernel(
    engine: LocalEngine,
    edges: Any,
    score: str,
    min_common: int,
    n: int,
    hub_cap: int | None,
    key_wedges: int,
) -> None:
    asked = WedgeJoin(n, min_common, score, hub_cap, key_wedges)
    entries, queries = entries_of(edges), np.arange(NODES, dtype=np.int32)
    found = local_rows(engine, entries, asked)
    result = two_hop_result(found.to_batches(), queries)
    assert_equal(result, kernel_rows(entries, NODES, asked, queries))


@given(edge_lists, st.sampled_from(SCORES), st.integers(1, 3), st.sets(st.integers(-2, NODES + 3)))
@settings(max_examples=20, deadline=None)
def test_join_of_some_queries_equals_oracle(
    engine: LocalEngine, edges: Any, score: str, min_common: int, queries: set[int]
) -> None:
    neighbours: dict[int, set[int]] = {node: set() for node in range(NODES)}
    for a, b in edges:
        neighbours[a].add(b)
        neighbours[b].add(a)
    asked = np.array([*queries, *queries], np.int64)  # twice; some are no nodes
    found = local_rows(engine, entries_of(edges), WedgeJoin(4, min_common, score), asked)
    expected = []
    for query in sorted(queries & set(neighbours)):
        scored = {
            candidate: two_hop_scores(neighbours, query, candidate)
            for candidate in two_hop_candidates(neighbours, query, min_common)
        }
        best = sorted(scored, key=lambda c: (-np.float32(scored[c][score]), c))[:4]
        expected += [(query, rank, c, scored[c]) for rank, c in enumerate(best, start=1)]
    rows = found.to_pylist()
    assert [(row["query"], row["rank"], row["candidate"]) for row in rows] == [
        row[:3] for row in expected
    ]
    for row, (_, _, _, scores) in zip(rows, expected, strict=True):
        assert {name: row[name] for name in SCORES} == pytest.approx(scores, rel=1e-6)


@pytest.mark.parametrize(
    ("nodes", "entries", "asked"),
    [
        pytest.param(
            *(60, zipf_entries(60, 400), WedgeJoin(10, 2, "adamic_adar")), marks=pytest.mark.slow
        ),
        (300, zipf_entries(300, 1500, 1), WedgeJoin(5, 1, "jaccard", 20, 60)),
        pytest.param(
            *(200, zipf_entries(200, 900, 2)),
            WedgeJoin(500, 1, "preferential_attachment", None, 50),
            marks=pytest.mark.slow,
        ),
        (41, star_entries(40), WedgeJoin(3, 1, "resource_allocation", None, 100)),
        (5, entries_of([]), WedgeJoin(3, 1)),
    ],
    ids=["hubs", "cap", "salted", "star", "empty"],
)
def test_spark_equals_kernel(
    spark: Any, tmp_path: Path, nodes: int, entries: pa.Table, asked: WedgeJoin
) -> None:
    connection = ibis.pyspark.connect(spark)
    queries = np.arange(0, nodes, 2, dtype=np.int32)
    for name, table in (("entries", entries), ("queries", pa.table({"query": queries}))):
        pq.write_table(table, tmp_path / f"{name}.parquet")
        spark.read.parquet(str(tmp_path / f"{name}.parquet")).createOrReplaceTempView(name)
    expression = two_hop_table(connection.table("entries"), asked, connection.table("queries"))
    found = spark.sql(str(connection.compile(expression.order_by(["query", "rank"])))).toArrow()
    assert found.column_names == list(COLUMNS)
    assert found.schema.types == [pa.int32(), pa.int32(), *[pa.float32()] * 5, pa.int32()]
    result = two_hop_result(found.to_batches(), queries)
    assert_equal(result, kernel_rows(entries, nodes, asked, queries))
    assert nodes < 10 or len(result.candidate)


@pytest.mark.parametrize("queries", [None, 7], ids=["all", "seven"])
def test_no_key_of_a_star_has_more_wedges_than_the_bound(
    engine: LocalEngine, queries: int | None
) -> None:
    leaves, asked = (
        20_000,
        WedgeJoin(n=5, min_common=1, key_wedges=1 << (20 if not queries else 12)),
    )
    table = engine.register("entries", star_entries(leaves))
    some = None
    if queries is not None:
        some = engine.register("queries", pa.table({"query": range(1, queries + 1)}))
    left, right = wedge_sides(table, asked, some)
    left = left.group_by("middle", "cell").agg(asked=left.count())
    right = right.group_by("middle", "cell").agg(given=right.count())
    keys = left.join(right, ["middle", "cell"]).mutate(wedges=ibis._.asked * ibis._.given)
    counted = engine.to_arrow(keys.select("middle", "wedges"))
    wedges = counted["wedges"].to_numpy()
    assert wedges.max() <= asked.key_wedges
    assert wedges.sum() == leaves * (queries or leaves)  # each wedge is in one key
    rows = engine.to_arrow(left.asked.sum().as_table()).column(0)[0].as_py()
    rows += engine.to_arrow(right.given.sum().as_table()).column(0)[0].as_py()
    assert rows <= 2 * leaves + 1 + wedges.sum() / (asked.key_wedges / 8) ** 0.5


def test_star_of_few_queries_gives_the_smallest_ids(engine: LocalEngine) -> None:
    entries, queries = star_entries(20_000), np.array([5, 19_999, 0, -1], np.int32)
    asked = WedgeJoin(n=5, min_common=1, key_wedges=1 << 12)
    found = two_hop_result(local_rows(engine, entries, asked, queries).to_batches(), queries)
    assert found.candidate.tolist() == [1, 2, 3, 4, 6, 1, 2, 3, 4, 5]
    assert_equal(found, kernel_rows(entries, 20_001, asked, queries))


def test_wedges_of_queries_are_what_the_kernel_walks(engine: LocalEngine) -> None:
    entries = zipf_entries(60, 400)
    indptr, indices = rows_of(entries, 60)
    degree = np.diff(indptr)
    for cap in (None, 9):
        walked = np.where((degree >= 2) & (degree <= (cap or 1 << 30)), degree, 0)
        expected = {
            query: int(wedges)
            for query in range(60)
            if (wedges := walked[indices[indptr[query] : indptr[query + 1]]].sum())
        }
        found = engine.to_arrow(query_wedges(engine.register("entries", entries), cap))
        assert dict(zip(*found.to_pydict().values(), strict=True)) == expected


@given(st.lists(st.integers(1, 50), max_size=40), st.integers(1, 100))
@settings(max_examples=60, deadline=None)
def test_blocks_hold_what_is_allowed_or_one_query(wedges: list[int], most: int) -> None:
    bounds = cut_queries(np.array(wedges, np.int64), most)
    blocks = [wedges[a:b] for a, b in itertools.pairwise(bounds)]
    assert [each for block in blocks for each in block] == wedges
    assert all(len(block) == 1 or 0 < sum(block) <= most for block in blocks)
    assert all(sum(a) + b[0] > most for a, b in itertools.pairwise(blocks))


class Killed(LocalEngine):
    """Ends after some writes, as a process that is killed does."""

    writes = 2

    def write(self, table: ibis.Table, path: Path) -> int:
        if not self.writes:
            raise KeyboardInterrupt
        self.writes -= 1
        return super().write(table, path)


def test_a_killed_run_goes_on_with_the_blocks_that_are_missing(tmp_path: Path) -> None:
    entries, asked = zipf_entries(300, 1500, 1), WedgeJoin(n=20, hub_cap=40)
    queries = np.arange(300, dtype=np.int32)
    folder = tmp_path / "blocks"
    with Killed(threads=1) as killed, pytest.raises(KeyboardInterrupt):
        write_blocks(killed, killed.register("e", entries), asked, folder, block_wedges=500)
    left = {path: path.stat().st_mtime_ns for path in folder.glob("*.parquet")}
    assert len(left) == 2
    with LocalEngine(threads=1) as engine:
        table = engine.register("e", entries)
        paths = write_blocks(engine, table, asked, folder, block_wedges=500)
        assert len(paths) > 4 and sorted(folder.glob("*.parquet")) == paths
        assert all(path.stat().st_mtime_ns == made for path, made in left.items())
        batches = (batch for path in paths for batch in pq.read_table(path).to_batches())
        assert_equal(two_hop_result(batches, queries), kernel_rows(entries, 300, asked, queries))
        with pytest.raises(ConfigError, match="blocks of another graph or other settings"):
            write_blocks(engine, table, WedgeJoin(n=21), folder, block_wedges=500)
        other = engine.register("e", zipf_entries(300, 1400, 1))
        with pytest.raises(ConfigError, match="blocks of another graph or other settings"):
            write_blocks(engine, other, asked, folder, block_wedges=500)


def test_blocks_of_some_queries_and_of_nobody(engine: LocalEngine, tmp_path: Path) -> None:
    entries, asked = zipf_entries(300, 1500, 1), WedgeJoin(n=20, min_common=1)
    table, queries = engine.register("e", entries), np.array([250, 3, 77, 3], np.int32)
    some = engine.register("q", pa.table({"query": queries}))
    paths = write_blocks(engine, table, asked, tmp_path / "a", queries=some, block_wedges=1)
    batches = [batch for path in paths for batch in pq.read_table(path).to_batches()]
    assert_equal(two_hop_result(batches, queries), kernel_rows(entries, 300, asked, queries))
    empty = engine.register("e", entries_of([]))
    assert write_blocks(engine, empty, asked, tmp_path / "b") == []
    assert two_hop_result([], queries).indptr.tolist() == [0] * 5


def test_wrong_use_says_what_to_change(engine: LocalEngine, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'adamic_adar'"):
        WedgeJoin(n=1, score="adamic_adr")
    with pytest.raises(ConfigError, match="key_wedges is 1; expected 2 or more"):
        WedgeJoin(n=1, key_wedges=1)
    table = engine.register("e", zipf_entries(60, 400))
    with pytest.raises(ConfigError, match="block_wedges is 0; expected 1 or more"):
        write_blocks(engine, table, WedgeJoin(n=1), tmp_path, block_wedges=0)
    rows = engine.to_arrow(two_hop_table(table, WedgeJoin(n=5)).order_by(["query", "rank"]))
    for broken in (rows.slice(1), rows.take(np.arange(len(rows))[::-1])):
        with pytest.raises(DataError, match="cut or mixed"):
            two_hop_result(broken.to_batches(), np.arange(60, dtype=np.int32))
