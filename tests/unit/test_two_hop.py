"""The two-hop kernel against networkx and plain sets."""

from __future__ import annotations

import math
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nextedge.errors import ConfigError, DataError
from nextedge.graph import two_hop
from nextedge.graph.random_walk import pair_walk, top_walk
from nextedge.graph.two_hop import (
    SCORES,
    PairScores,
    TwoHopResult,
    bipartite_pair_scores,
    pair_scores,
    top_bipartite,
    top_two_hop,
)
from nextedge.testing.oracles import page_rank

NODES = 16
GOLDEN = [
    (0, 1),
    (0, 2),
    (0, 3),
    (1, 4),
    (1, 5),
    (2, 5),
    (2, 6),
    (3, 6),
    (3, 7),
    (4, 8),
    (5, 8),
    (6, 9),
    (7, 9),
]
Rows = tuple[Any, Any]
edge_lists = st.lists(
    st.tuples(st.integers(0, NODES - 1), st.integers(0, NODES - 1)).filter(lambda e: e[0] < e[1]),
    max_size=70,
)
visit_lists = st.lists(st.tuples(st.integers(0, NODES - 1), st.integers(0, 8)), max_size=70)


def rows_of(pairs: Iterable[tuple[int, int]], count: int) -> Rows:
    unique = np.array(sorted(set(pairs)), np.int32).reshape(-1, 2)
    indptr = np.zeros(count + 1, np.int64)
    np.cumsum(np.bincount(unique[:, 0], minlength=count), out=indptr[1:])
    return indptr, np.ascontiguousarray(unique[:, 1])


def symmetric(edges: Iterable[tuple[int, int]], nodes: int = NODES) -> Rows:
    edges = list(edges)
    return rows_of(edges + [(b, a) for a, b in edges], nodes)


def graph_of(edges: Iterable[tuple[int, int]]) -> nx.Graph:
    graph = nx.Graph()
    graph.add_nodes_from(range(NODES))
    graph.add_edges_from(edges)
    return graph


def oracle(graph: nx.Graph, query: int, candidate: int) -> dict[str, float]:
    """The five scores of a pair as networkx defines them."""
    pair = [(query, candidate)]
    return {
        "common_neighbors": float(len(list(nx.common_neighbors(graph, query, candidate)))),
        "adamic_adar": next(nx.adamic_adar_index(graph, pair))[2],
        "resource_allocation": next(nx.resource_allocation_index(graph, pair))[2],
        "jaccard": next(nx.jaccard_coefficient(graph, pair))[2],
        "preferential_attachment": float(next(nx.preferential_attachment(graph, pair))[2]),
    }


def bipartite_oracle(visits: dict[int, set[int]], query: int, candidate: int) -> dict[str, float]:
    own, other = visits[query], visits[candidate]
    degree = {m: sum(m in items for items in visits.values()) for m in own & other}
    return {
        "common_neighbors": float(len(degree)),
        "adamic_adar": sum(1 / math.log(1 + d) for d in degree.values()),
        "resource_allocation": sum(1 / d for d in degree.values()),
        "jaccard": len(degree) / len(own | other) if degree else 0.0,
        "preferential_attachment": float(len(own) * len(other)),
    }


def ranked(scored: dict[int, dict[str, float]], score: str, n: int) -> list[int]:
    return sorted(scored, key=lambda c: (-np.float32(scored[c][score]), c))[:n]


def assert_row(found: PairScores, place: int, expected: dict[str, float]) -> None:
    for name, value in expected.items():
        assert getattr(found, name)[place] == pytest.approx(value, rel=1e-6), name


def assert_identical(left: PairScores, right: PairScores) -> None:
    for name in SCORES:
        assert getattr(left, name).dtype == np.float32
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name))


def random_rows(nodes: int, edges: int, seed: int = 0) -> Rows:
    drawn = np.random.default_rng(seed).zipf(1.6, (edges * 3, 2)) % nodes
    return symmetric([(a, b) for a, b in drawn.tolist() if a != b][:edges], nodes)


def test_ten_node_example() -> None:
    found = top_two_hop(*symmetric(GOLDEN, 10), np.array([0], np.int32), n=10, min_common=1)
    assert found.candidate.tolist() == [5, 6, 4, 7]
    assert found.indptr.tolist() == [0, 4]
    expected = [2 / math.log(3), 2 / math.log(3), 1 / math.log(3), 1 / math.log(3)]
    np.testing.assert_allclose(found.adamic_adar, expected, rtol=1e-6)
    assert found.common_neighbors.tolist() == [2, 2, 1, 1]


@given(edge_lists, st.sampled_from(SCORES), st.integers(0, 3), st.integers(0, NODES + 5))
@settings(max_examples=120, deadline=None)
def test_top_equals_networkx(
    edges: list[tuple[int, int]], score: str, min_common: int, n: int
) -> None:
    graph = graph_of(edges)
    queries = np.arange(NODES, dtype=np.int32)
    found = top_two_hop(*symmetric(edges), queries, n=n, min_common=min_common, score=score)
    for query in range(NODES):
        scored = {c: oracle(graph, query, c) for c in nx.non_neighbors(graph, query)}
        least = max(min_common, 1)
        scored = {c: s for c, s in scored.items() if s["common_neighbors"] >= least}
        rows = slice(found.indptr[query], found.indptr[query + 1])
        assert found.candidate[rows].tolist() == ranked(scored, score, n)
        for place in range(rows.start, rows.stop):
            assert_row(found, place, scored[int(found.candidate[place])])


@given(edge_lists, st.integers(2, 6), st.sampled_from(SCORES))
@settings(max_examples=40, deadline=None)
def test_hub_cap_equals_oracle_without_hubs(
    edges: list[tuple[int, int]], cap: int, score: str
) -> None:
    graph = graph_of(edges)
    queries = np.arange(NODES, dtype=np.int32)
    found = top_two_hop(*symmetric(edges), queries, n=5, min_common=1, hub_cap=cap, score=score)
    for query in range(NODES):
        expected = {
            c
            for c in nx.non_neighbors(graph, query)
            if any(graph.degree(m) <= cap for m in nx.common_neighbors(graph, query, c))
        }
        rows = found.candidate[found.indptr[query] : found.indptr[query + 1]].tolist()
        assert set(rows) <= expected
        assert len(rows) == min(5, len(expected))


@given(edge_lists, st.booleans(), st.integers(1, NODES))
@settings(max_examples=60, deadline=None)
def test_pairs_equal_networkx(edges: list[tuple[int, int]], exclude_edge: bool, size: int) -> None:
    """Short lists scan the candidates' rows, long ones walk the wedges: one result."""
    graph = graph_of(edges)
    queries = np.arange(NODES, dtype=np.int32)
    candidates = np.stack([np.roll(np.arange(NODES), -q - 1)[:size] for q in range(NODES)])
    found = pair_scores(
        *symmetric(edges),
        queries,
        np.arange(NODES + 1) * size,
        candidates.ravel(),
        exclude_edge=exclude_edge,
    )
    for place, candidate in enumerate(candidates.ravel().tolist()):
        query = place // size
        if candidate == query:
            assert found.common_neighbors[place] == found.adamic_adar[place] == 0
            continue
        without = graph.copy()
        if exclude_edge and graph.has_edge(query, candidate):
            without.remove_edge(query, candidate)
        assert_row(found, place, oracle(without, query, candidate))


@given(visit_lists, st.sampled_from(SCORES), st.integers(1, 3), edge_lists)
@settings(max_examples=80, deadline=None)
def test_bipartite_equals_sets(
    visits: list[tuple[int, int]], score: str, min_common: int, known: list[tuple[int, int]]
) -> None:
    forward, backward = rows_of(visits, NODES), rows_of([(i, u) for u, i in visits], 9)
    sets = {user: {i for u, i in visits if u == user} for user in range(NODES)}
    queries = np.arange(NODES, dtype=np.int32)
    found = top_bipartite(
        forward,
        backward,
        queries,
        n=6,
        min_common=min_common,
        score=score,
        exclude=symmetric(known),
    )
    for query in range(NODES):
        left_out = (
            {query} | {b for a, b in known if a == query} | {a for a, b in known if b == query}
        )
        scored = {c: bipartite_oracle(sets, query, c) for c in set(sets) - left_out}
        scored = {c: s for c, s in scored.items() if s["common_neighbors"] >= min_common}
        rows = slice(found.indptr[query], found.indptr[query + 1])
        assert found.candidate[rows].tolist() == ranked(scored, score, 6)
        for place in range(rows.start, rows.stop):
            assert_row(found, place, scored[int(found.candidate[place])])
    again = bipartite_pair_scores(forward, backward, queries, found.indptr, found.candidate)
    assert_identical(found, again)


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("min_common", [1, 2])
def test_batch_alone_pairs_and_threads_agree(
    score: str, min_common: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = random_rows(400, 5000)
    queries = np.arange(400, dtype=np.int32)
    batch = top_two_hop(*rows, queries, n=30, min_common=min_common, score=score)
    assert_identical(batch, pair_scores(*rows, queries, batch.indptr, batch.candidate))
    for query in range(0, 400, 7):
        alone = top_two_hop(
            *rows, queries[query : query + 1], n=30, min_common=min_common, score=score
        )
        kept = slice(batch.indptr[query], batch.indptr[query + 1])
        np.testing.assert_array_equal(alone.candidate, batch.candidate[kept])
        assert_identical(alone, PairScores(*(getattr(batch, name)[kept] for name in SCORES)))
    monkeypatch.setattr(two_hop, "thread_count", lambda: 1)
    serial = top_two_hop(*rows, queries, n=30, min_common=min_common, score=score)
    np.testing.assert_array_equal(serial.candidate, batch.candidate)
    assert_identical(serial, batch)


def test_calls_from_many_threads_share_no_scratch() -> None:
    rows = random_rows(300, 3000)
    queries = np.arange(300, dtype=np.int32)

    def ask(_: int) -> TwoHopResult:
        return top_two_hop(*rows, queries, n=10)

    expected = ask(0)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(ask, range(12)):
            np.testing.assert_array_equal(found.candidate, expected.candidate)
            assert_identical(found, expected)


def test_codes_start_again_when_they_run_out() -> None:
    rows = random_rows(300, 3000)
    queries = np.arange(300, dtype=np.int32)
    expected = top_two_hop(*rows, queries[:10], n=10)
    with two_hop._workspace(300) as scratch:
        scratch[0][0] = (1 << 32) - 400  # as after four thousand million candidates
        scratch[1][:] = (1 << 32) - 401
    two_hop._spare[:] = [scratch]
    found = [top_two_hop(*rows, queries[q : q + 1], n=10) for q in range(10)]
    assert 0 < scratch[0][0] < 1 << 31
    np.testing.assert_array_equal(
        np.concatenate([one.candidate for one in found]), expected.candidate
    )


def test_memory_maps_give_the_same(tmp_path: Path) -> None:
    rows = random_rows(100, 600)
    for name, array in zip(("indptr", "indices"), rows, strict=True):
        np.save(tmp_path / f"{name}.npy", array)
    mapped = [np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in ("indptr", "indices")]
    queries = np.arange(100, dtype=np.int32)
    left, right = top_two_hop(*mapped, queries, n=9), top_two_hop(*rows, queries, n=9)
    np.testing.assert_array_equal(left.candidate, right.candidate)
    assert_identical(left, right)


def test_empty_and_single_node_graphs() -> None:
    nobody = np.zeros(0, np.int32)
    for nodes, queries in ((0, [-1]), (1, [0, -1])):
        rows = np.zeros(nodes + 1, np.int64), nobody
        asked = np.array(queries, np.int32)
        found = top_two_hop(*rows, asked, n=5, min_common=1)
        assert found.indptr.tolist() == [0] * (len(queries) + 1)
        assert len(top_bipartite(rows, rows, asked, n=5).candidate) == 0
        assert len(top_two_hop(*rows, nobody, n=5).candidate) == 0
        offsets = np.zeros(len(queries) + 1, np.int64)
        assert len(pair_scores(*rows, asked, offsets, nobody).jaccard) == 0


def test_unknown_queries_and_candidates_score_nothing() -> None:
    rows = symmetric(GOLDEN, 10)
    found = top_two_hop(*rows, np.array([-1, 0, -7], np.int32), n=2, min_common=1)
    assert found.indptr.tolist() == [0, 0, 2, 2]
    pairs = pair_scores(
        *rows, np.array([-1, 0], np.int32), np.array([0, 1, 4]), np.array([5, -1, 0, 5], np.int32)
    )
    assert pairs.common_neighbors.tolist() == [0, 0, 0, 2]


def test_star_of_one_hub() -> None:
    star = symmetric([(0, leaf) for leaf in range(1, NODES)])
    leaf = np.array([3], np.int32)
    found = top_two_hop(*star, leaf, n=4, min_common=1)
    assert found.candidate.tolist() == [1, 2, 4, 5]
    assert len(top_two_hop(*star, leaf, n=4).candidate) == 0
    assert len(top_two_hop(*star, leaf, n=4, min_common=1, hub_cap=5).candidate) == 0
    complete = symmetric([(a, b) for a in range(NODES) for b in range(a)])
    assert len(top_two_hop(*complete, leaf, n=4, min_common=1).candidate) == 0


def test_wrong_use_says_what_to_change() -> None:
    rows = symmetric(GOLDEN, 10)
    query = np.array([0], np.int32)
    with pytest.raises(ConfigError, match="did you mean 'adamic_adar'"):
        top_two_hop(*rows, query, n=1, score="adamic_adr")
    with pytest.raises(ConfigError, match="hub_cap is -3"):
        top_two_hop(*rows, query, n=1, hub_cap=-3)
    with pytest.raises(DataError, match="queries holds node 10"):
        top_two_hop(*rows, query + 10, n=1)
    with pytest.raises(DataError, match="exclude has 3 rows"):
        top_bipartite(rows, rows, query, n=1, exclude=(np.zeros(4, np.int64), query[:0]))
    with pytest.raises(DataError, match="pair_indptr must hold 2"):
        pair_scores(*rows, query, np.array([0, 2]), query)


@given(edge_lists)
@settings(max_examples=20, deadline=None)
def test_random_walk_equals_power_iteration(edges: list[tuple[int, int]]) -> None:
    rows = symmetric(edges)
    neighbours = {node: set(graph_of(edges)[node]) for node in range(NODES)}
    none = np.zeros(2, np.int64), np.zeros(0, np.int32)
    nodes = np.arange(NODES, dtype=np.int32)
    for query in range(0, NODES, 5):
        expected = page_rank(neighbours, query, 0.3)
        asked = np.array([query], np.int32)
        found = pair_walk(*rows, asked, np.array([0, NODES]), nodes, restart=0.3, tolerance=1e-9)
        np.testing.assert_allclose(found, [expected[n] for n in range(NODES)], atol=1e-5)
        assert query not in top_walk(*rows, asked, n=3, exclude=none, restart=0.3).candidate


def test_ids_past_32_bits_are_refused_not_wrapped() -> None:
    path = np.array([0, 1, 3, 4]), np.array([1, 0, 2, 1], np.int32)
    with pytest.raises(DataError, match="holds node 4294967296"):
        top_two_hop(*path, np.array([2**32]), n=5)
    with pytest.raises(DataError, match="indptr ends at 4; expected the number of indices, 3"):
        top_two_hop(path[0], path[1][:3], np.array([0], np.int32), n=5)
