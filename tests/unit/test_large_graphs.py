"""What is made for large graphs gives what the plain forms give, to the last bit."""

from __future__ import annotations

from functools import reduce
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import sparse

from nextedge.build import entities as entities_step
from nextedge.build.cache.memory_budget import NEEDS, Need, require
from nextedge.build.step import StepRunner
from nextedge.build.tables_to_graph import edges as interning
from nextedge.build.time_split.history import EdgeRecords
from nextedge.build.time_split.pairs import Pairs
from nextedge.data import ids as id_maps
from nextedge.data import order as order_statistics
from nextedge.engines.duckdb.engine import LocalEngine
from nextedge.errors import MemoryBoundError
from nextedge.features import backfill as backfills
from nextedge.features.counters import CONNECTIONS, KIND, TIME, USER, VALUE, Counts
from nextedge.graph import assemble, communities, decay
from nextedge.graph.assemble import EdgeList
from nextedge.graph.csr import Graph, build_graph, graph_of, mirrored
from nextedge.graph.graph_builder import GraphBuilder
from nextedge.progress import quiet
from nextedge.retrieval.popular import _most_shared
from nextedge.storage.arrays import ArrayFiles
from nextedge.storage.files import vanishing
from nextedge.types import CONNECTS, ENGAGES

SEEDS = range(6)
_PARTS = ("indptr", "indices", "weight", "first", "last")


def random_edges(seed: int, nodes: int = 40, edges: int = 900) -> EdgeList:
    """Mirrored edges with repeats, loops and a mask."""
    random = np.random.default_rng(seed)
    source, target = random.integers(0, nodes, (2, edges)).astype(np.int32)
    time = random.integers(0, 50, edges)
    weight = random.random(edges).astype(np.float32)
    kept = random.random(edges) < 0.7
    return EdgeList(source, target, weight, time, None, kept, mirrored=True)


def by_dictionary(edges: EdgeList, nodes: int) -> dict[str, np.ndarray]:
    """The rows of mirrored edges, pair by pair."""
    kept = np.flatnonzero(edges.kept)
    found: dict[tuple[int, int], list[np.generic]] = {}
    for flip in (False, True):
        for edge in kept:
            ends = int(edges.source[edge]), int(edges.target[edge])
            pair = ends[::-1] if flip else ends
            weight, time = edges.weight[edge], edges.first[edge]  # type: ignore[index]
            had = found.get(pair)
            found[pair] = (
                [weight, time, time]
                if had is None
                else [had[0] + weight, min(had[1], time), max(had[2], time)]
            )
    pairs = sorted(found)
    count = np.bincount([source for source, _ in pairs], minlength=nodes)
    values = [np.array([found[pair][part] for pair in pairs]) for part in range(3)]
    return dict(
        zip(
            _PARTS,
            (np.concatenate(([0], np.cumsum(count))), np.array([t for _, t in pairs]), *values),
            strict=True,
        )
    )


def same(graph: Graph, other: Graph) -> None:
    for part in _PARTS:
        one, two = getattr(graph, part), getattr(other, part)
        assert one.dtype == two.dtype
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("seed", SEEDS)
def test_rows_are_those_of_a_dictionary_in_memory_and_in_files(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assemble, "BLOCK_ENTRIES", 100)
    edges = random_edges(seed)
    graph = graph_of(edges, 40, 40)
    for part, values in by_dictionary(edges, 40).items():
        np.testing.assert_array_equal(getattr(graph, part), values)
    same(GraphBuilder(tmp_path).graph("connections", edges, 40, 40), graph)
    same(GraphBuilder(tmp_path).reverse("reversed", graph), graph.reverse)
    same(
        GraphBuilder(tmp_path).graph("empty", EdgeList(*np.zeros((2, 0), np.int32)), 0, 3),
        build_graph(*np.zeros((2, 0), np.int32), 0, 3),
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_pairs_are_the_distinct_keys_of_the_records(seed: int) -> None:
    random = np.random.default_rng(seed)
    source, target = random.integers(0, 30, (2, 500)).astype(np.int32)
    time = random.integers(1, 1000, 500)
    records = EdgeRecords(source, target, time, np.ones(500, np.float32), time)
    for relation, graph in (
        (CONNECTS, graph_of(records.edges(mirrored=True), 30, 30)),
        (ENGAGES, graph_of(records.edges(mirrored=False), 30, 30)),
    ):
        left, right = source, target
        if relation.symmetric:
            left, right = np.minimum(source, target), np.maximum(source, target)
        unique, number = np.unique((left.astype(np.int64) << 32) | right, return_inverse=True)
        first = np.full(len(unique), np.iinfo(np.int64).max)
        np.minimum.at(first, number, time)
        pairs = Pairs.of(graph, relation)
        np.testing.assert_array_equal(pairs.source, unique >> 32)
        np.testing.assert_array_equal(pairs.target, unique & 0xFFFFFFFF)
        np.testing.assert_array_equal(pairs.first, first)
        np.testing.assert_array_equal(pairs.numbers(records), number)
        mask = random.random(len(pairs)) < 0.5
        np.testing.assert_array_equal(pairs.marked(records, mask), mask[number])


@pytest.mark.parametrize("seed", SEEDS)
def test_communities_merge_as_keys_that_are_sorted(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(communities, "_MERGED", 150)
    random = np.random.default_rng(seed)
    graph = graph_of(random_edges(seed), 40, 40)
    label, count = random.integers(0, 7, 40).astype(np.int32), 7
    weight, loops = random.integers(1, 9, graph.edges).astype(np.float64), random.random(40)
    row = np.repeat(label, graph.degree).astype(np.int64)
    key, place = np.unique(row * count + label[graph.indices], return_inverse=True)
    total = np.bincount(place, weight)
    row, column = key // count, key % count
    own = row == column
    expected_loops = np.bincount(label, loops, minlength=count)
    expected_loops[row[own]] += total[own]
    ends, indices, values, merged_loops = communities._merged(
        graph.indptr, graph.indices, weight, loops, label, count
    )
    np.testing.assert_array_equal(np.diff(ends), np.bincount(row[~own], minlength=count))
    np.testing.assert_array_equal(indices, column[~own])
    np.testing.assert_array_equal(values, total[~own])
    np.testing.assert_allclose(merged_loops, expected_loops, rtol=1e-15)


@pytest.mark.parametrize("seed", SEEDS)
def test_counters_by_position_are_those_of_the_declaration(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backfills, "_BATCH", 70)
    random = np.random.default_rng(seed)
    source, target = random.integers(0, 50, (2, 600)).astype(np.int32)
    time = random.integers(1_600_000_000_000_000, 1_601_000_000_000_000, 600)
    time[random.random(600) < 0.1] = 0
    kept = random.random(600) < 0.6
    as_of = 1_601_000_000_000_000
    records = EdgeRecords(source, target, time, np.ones(600, np.float32), time, kept=kept)
    found = backfills.backfill(records, None, backfills.Sizes(50, 0, None), as_of)

    def facts() -> list[pa.RecordBatch]:
        rows = np.flatnonzero(kept)
        parts = []
        for start in range(0, len(rows), 70):
            own = rows[start : start + 70][time[rows[start : start + 70]] > 0]
            ends = np.concatenate((source[own], target[own]))
            parts.append(
                pa.record_batch(
                    {
                        KIND: pa.array(["connect"] * len(ends)),
                        TIME: np.tile(time[own], 2),
                        USER: ends,
                    }
                )
            )
        return parts

    for counter in CONNECTIONS.values():
        rows = counter.at(reduce(counter.update, facts(), Counts()), as_of)
        expected = np.zeros(50, np.float32)
        expected[np.asarray(rows.column(USER))] = np.asarray(rows.column(VALUE))
        np.testing.assert_array_equal(found[counter.name], expected)


@pytest.mark.parametrize("few", [1, 1 << 20])
def test_order_statistics_are_numpys(few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order_statistics, "_FEW", few)
    random = np.random.default_rng(0)
    for largest in (1, 3, 1000, 10**15):
        values = random.integers(0, largest, 3001)
        for share in (0.0, 0.1, 0.37, 1.0):
            assert order_statistics.quantile(values, share) == np.quantile(values, share)
            place = int(share * 3000)
            assert order_statistics.kth(values, place) == np.sort(values)[place]


@pytest.mark.parametrize("bounds", [(-50, 4000), (-(2**63), 2**63 - 1), (0, 2**40), (5, 6)])
def test_ids_looked_up_by_slices_are_those_of_a_search(
    bounds: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(0)
    ids = id_maps.IdMap(pa.array(random.integers(*bounds, 2000)))
    known = ids.values.to_numpy()
    asked = np.concatenate((random.choice(known, 500), random.integers(*bounds, 500), bounds))
    place = np.minimum(np.searchsorted(known, asked), len(known) - 1)
    monkeypatch.setattr(id_maps, "_MANY", 0)
    expected = np.where(known[place] == asked, place, -1)
    np.testing.assert_array_equal(ids.positions(pa.array(asked)), expected)


def test_shares_of_values_are_those_of_a_sparse_product() -> None:
    random = np.random.default_rng(0)
    graph = graph_of(random_edges(1, edges=2000), 40, 40)
    members = sparse.csr_matrix((random.random((40, 6)) < 0.3).astype(np.float32))
    ones = np.ones(graph.edges, np.float32)
    edges = sparse.csr_matrix((ones, graph.indices, graph.indptr), shape=(40, 40))
    counts = (members.T @ edges).toarray()
    total = np.maximum(counts.sum(axis=1), np.float32(1))
    share = (np.float32(1) / (total + np.float32(10)))[:, None] * counts
    found = _most_shared(members, graph, 5)
    for value in range(6):
        best = sorted(np.flatnonzero(share[value]), key=lambda c: (-share[value, c], c))[:5]
        row = slice(*found.indptr[value : value + 2])
        assert found.indices[row].tolist() == best
        np.testing.assert_array_equal(found.values[row], share[value, best])


def test_faded_degrees_are_weighted_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decay, "_ENTRIES", 7)
    graph = graph_of(random_edges(2), 40, 40)
    weight = np.exp2(-np.maximum(60 - graph.last, 0) / 9.0)
    row = np.repeat(np.arange(40), graph.degree)
    by_source, by_target = decay.faded_degrees(graph, 60, 9.0)
    np.testing.assert_array_equal(by_source, np.bincount(row, weight, minlength=40))
    np.testing.assert_array_equal(by_target, np.bincount(graph.indices, weight, minlength=40))
    per_row = np.random.default_rng(0).random(40)
    expected = (weight.astype(np.float32) * per_row[row]).astype(np.float32)
    np.testing.assert_array_equal(decay.faded_weights(graph, 60, 9.0, per_row), expected)


@pytest.mark.parametrize("text", [False, True])
def test_tables_read_in_blocks_give_what_they_give_whole(text: bool, tmp_path: Path) -> None:
    kind = pa.string() if text else pa.int64()
    ends = [pa.array(values, pa.int64()).cast(kind) for values in ([5, 3, 5, 9] * 30, range(120))]
    path = tmp_path / "connections.parquet"
    columns = {"connections": ("src", "dst"), "users": ("user_id",)}
    with LocalEngine() as engine:
        for size in (7, 120, 1):
            rows = pa.table({"src": ends[0], "dst": ends[1]}).slice(0, 0 if size == 1 else 120)
            pq.write_table(rows, path, row_group_size=size)
            ids = entities_step.identifiers(engine, tmp_path, columns)
            expected = id_maps.IdMap(
                pa.concat_arrays([rows["src"].combine_chunks(), rows["dst"].combine_chunks()])
            )
            assert ids.values.equals(expected.values)
            folder = tmp_path / f"groups-{size}"
            folder.mkdir()
            for name in ("users", "items"):
                ids.save(folder / f"{name}.arrow")
            interning.intern(engine, path, "connections", folder, folder / "connections")
            for end, name in (("src", "source"), ("dst", "target")):
                found = np.load(folder / "connections" / f"{name}.npy")
                np.testing.assert_array_equal(found, ids.positions(rows[end]))


def test_files_that_grow_are_those_that_numpy_writes(tmp_path: Path) -> None:
    values = np.arange(100_000)
    with ArrayFiles(tmp_path) as write:
        for part in np.array_split(values, 7):
            write("grown", part)
    np.save(tmp_path / "whole.npy", values)
    assert (tmp_path / "grown.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()


def test_a_mapped_file_outlives_its_vanishing_folder(tmp_path: Path) -> None:
    with vanishing(tmp_path) as folder:
        graph = GraphBuilder(folder).graph("connections", random_edges(0), 40, 40)
    assert not list(tmp_path.iterdir())
    same(graph, graph_of(random_edges(0), 40, 40))


def test_a_step_that_would_not_fit_says_so_before_it_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(NEEDS, "entities", Need(700, 600_000))
    pq.write_table(pa.table({"user_id": range(1000)}), tmp_path / "users.parquet")
    require("entities", {"tables": tmp_path}, NEEDS["entities"].bytes(1000, 0))
    with pytest.raises(MemoryBoundError, match=r"entities: needs about 1\.2 GiB for 1,000 users"):
        require("entities", {"tables": tmp_path}, NEEDS["entities"].bytes(1000, 0) - 1)
    monkeypatch.setitem(NEEDS, "entities", Need(700, 600))  # a tenant so small is tried anywhere
    require("entities", {"tables": tmp_path}, 1)
    monkeypatch.setitem(NEEDS, "entities", Need(700, 600_000))
    workshop = StepRunner(tmp_path / "work", quiet, memory_bytes=1)
    with pytest.raises(MemoryBoundError, match=r"build\.memory_gib"):
        workshop.complete(_Refused.__new__(_Refused), {"tables": ("", tmp_path)})
    assert not (tmp_path / "work").exists()


class _Refused(entities_step.EntitiesStep):
    """Has settings, and must not run."""

    def settings(self) -> dict[str, object]:
        return {}

    def run(self, *_: object) -> None:
        raise AssertionError("it ran")


def test_mirrored_edges_are_both_directions_as_they_were() -> None:
    edges = random_edges(3)
    kept = edges.kept
    assert kept is not None and edges.weight is not None and edges.first is not None
    parts = (edges.source, edges.target, edges.weight, edges.first)
    both = mirrored(*(part[kept] for part in parts))
    same(graph_of(edges, 40, 40), build_graph(both[0], both[1], 40, 40, both[2], both[3]))  # type: ignore[arg-type]


def test_an_engine_at_rest_keeps_its_limit_and_its_tables(tmp_path: Path) -> None:
    with LocalEngine(temp_directory=tmp_path, memory_limit="500MiB") as engine:
        rows = engine.cache(engine.register("numbers", pa.table({"x": range(100_000)})))
        engine.rest()
        assert engine.connection.execute("SELECT current_setting('memory_limit')").fetchall() == [
            ("500.0 MiB",)
        ]
        assert (
            engine.to_arrow(rows.aggregate(total=rows.x.sum()))["total"][0].as_py() == 4_999_950_000
        )
