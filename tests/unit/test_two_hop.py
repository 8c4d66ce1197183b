"""The two-hop kernel against plain sets."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nextedge.graph.csr import Graph, build_graph, mirrored
from nextedge.graph.random_walk import pair_walk, top_walk
from nextedge.graph.two_hop import (
    SCORES,
    bipartite_pair_scores,
    pair_scores,
    top_bipartite,
    top_two_hop,
)
from nextedge.testing.oracles import page_rank, two_hop_candidates, two_hop_scores

NODES = 14
edge_lists = st.lists(
    st.tuples(st.integers(0, NODES - 1), st.integers(0, NODES - 1)).filter(lambda e: e[0] != e[1]),
    max_size=50,
)


def graph_of(edges: list[tuple[int, int]], nodes: int = NODES) -> tuple[Graph, dict[int, set[int]]]:
    source, target = mirrored(
        np.array([a for a, _ in edges], np.int32), np.array([b for _, b in edges], np.int32)
    )
    neighbours: dict[int, set[int]] = {node: set() for node in range(nodes)}
    for a, b in edges:
        neighbours[a].add(b)
        neighbours[b].add(a)
    return build_graph(source, target, nodes, nodes), neighbours


def test_ten_node_example() -> None:
    edges = [(0, 1), (0, 2), (0, 3), (1, 4), (1, 5), (2, 5), (2, 6), (3, 6), (3, 7), (4, 8), (5, 8), (6, 9), (7, 9)]  # fmt: skip
    graph, _ = graph_of(edges, 10)
    found = top_two_hop(graph.indptr, graph.indices, np.array([0], np.int32), n=10, min_common=1)
    assert found.candidate.tolist() == [5, 6, 4, 7]
    np.testing.assert_allclose(found.adamic_adar, [1.8205, 1.8205, 0.9102, 0.9102], atol=1e-4)


@given(edge_lists, st.sampled_from(SCORES), st.integers(1, 3), st.integers(1, NODES))
@settings(max_examples=60, deadline=None)
def test_top_equals_oracle(
    edges: list[tuple[int, int]], score: str, min_common: int, n: int
) -> None:
    graph, neighbours = graph_of(edges)
    queries = np.arange(NODES, dtype=np.int32)
    found = top_two_hop(
        graph.indptr, graph.indices, queries, n=n, min_common=min_common, score=score
    )
    for query in range(NODES):
        rows = slice(found.indptr[query], found.indptr[query + 1])
        expected = two_hop_candidates(neighbours, query, min_common)
        scored = {c: two_hop_scores(neighbours, query, c) for c in expected}
        assert set(found.candidate[rows].tolist()) <= expected
        assert rows.stop - rows.start == min(n, len(expected))
        for place in range(rows.start, rows.stop):
            for name, value in scored[int(found.candidate[place])].items():
                assert getattr(found, name)[place] == pytest.approx(value, rel=1e-5)
        kept = sorted((scored[c][score] for c in expected), reverse=True)[:n]
        np.testing.assert_allclose(getattr(found, score)[rows], kept, rtol=1e-5)
        if score == "common_neighbors":  # exact values, so the tie rule is exact too
            order = sorted(expected, key=lambda c: (-scored[c][score], c))[:n]
            assert found.candidate[rows].tolist() == order


@given(edge_lists)
@settings(max_examples=30, deadline=None)
def test_pair_scores_equal_oracle(edges: list[tuple[int, int]]) -> None:
    graph, neighbours = graph_of(edges)
    queries = np.arange(NODES, dtype=np.int32)
    candidates = np.tile(queries, NODES)
    found = pair_scores(
        graph.indptr, graph.indices, queries, np.arange(NODES + 1) * NODES, candidates
    )
    for place, candidate in enumerate(candidates.tolist()):
        if candidate != place // NODES:
            for name, value in two_hop_scores(neighbours, place // NODES, candidate).items():
                assert getattr(found, name)[place] == pytest.approx(value, rel=1e-5)


def test_single_requests_equal_the_batch() -> None:
    random = np.random.default_rng(0)
    graph, _ = graph_of(
        [tuple(pair) for pair in random.integers(0, 200, (900, 2)).tolist() if pair[0] != pair[1]],
        200,
    )  # type: ignore[misc]
    queries = np.arange(200, dtype=np.int32)
    batch = top_two_hop(graph.indptr, graph.indices, queries, n=20, min_common=1)
    for query in queries:
        alone = top_two_hop(
            graph.indptr, graph.indices, queries[query : query + 1], n=20, min_common=1
        )
        rows = slice(batch.indptr[query], batch.indptr[query + 1])
        assert alone.candidate.tolist() == batch.candidate[rows].tolist()
        assert alone.adamic_adar.tolist() == batch.adamic_adar[rows].tolist()


def test_hub_cap_and_unknown_query() -> None:
    graph, _ = graph_of([(0, leaf) for leaf in range(1, 10)])
    everyone = np.array([1, -1], np.int32)
    assert len(top_two_hop(graph.indptr, graph.indices, everyone, n=5, min_common=1).candidate) == 5
    capped = top_two_hop(graph.indptr, graph.indices, everyone, n=5, min_common=1, hub_cap=5)
    assert len(capped.candidate) == 0


def test_bipartite_counts_shared_items() -> None:
    users, items = np.array([0, 0, 1, 1, 2], np.int32), np.array([0, 1, 0, 1, 1], np.int32)
    forward = build_graph(users, items, 3, 2)
    backward = forward.reverse
    arrays = forward.indptr, forward.indices, backward.indptr, backward.indices
    found = top_bipartite(*arrays, np.array([0], np.int32), n=5)
    assert found.candidate.tolist() == [1, 2]
    assert found.common_neighbors.tolist() == [2.0, 1.0]
    np.testing.assert_allclose(
        found.adamic_adar, [1 / np.log(3) + 1 / np.log(4), 1 / np.log(4)], rtol=1e-5
    )
    pairs = bipartite_pair_scores(
        *arrays, np.array([0], np.int32), np.array([0, 2]), np.array([2, 1], np.int32)
    )
    assert pairs.common_neighbors.tolist() == [1.0, 2.0]


@given(edge_lists)
@settings(max_examples=20, deadline=None)
def test_random_walk_equals_power_iteration(edges: list[tuple[int, int]]) -> None:
    graph, neighbours = graph_of(edges)
    none = np.zeros(2, np.int64), np.zeros(0, np.int32)
    for query in range(0, NODES, 5):
        expected = page_rank(neighbours, query, 0.3)
        nodes = np.arange(NODES, dtype=np.int32)
        found = pair_walk(
            graph.indptr, graph.indices, np.array([query], np.int32), np.array([0, NODES]), nodes,
            restart=0.3, tolerance=1e-9,
        )  # fmt: skip
        np.testing.assert_allclose(found, [expected[n] for n in range(NODES)], atol=1e-5)
        top = top_walk(
            graph.indptr, graph.indices, np.array([query], np.int32), n=3, exclude=none, restart=0.3
        )
        assert query not in top.candidate
