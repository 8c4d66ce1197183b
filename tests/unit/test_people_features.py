"""Features of pairs of people against slow, obvious computations on a small tenant."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nextedge import Recommender
from nextedge.features.feature import FeatureInput
from nextedge.graph.csr import Graph
from nextedge.graph.scope import Scope
from nextedge.types import Candidates, Requests

QUERIES = np.array([3, 40, 41, 97, 250, 599, -1], np.int32)
EACH = 60


@pytest.fixture(scope="module")
def scope(tenant: Path) -> Scope:
    return Recommender(tenant).release.surface("people").line.scope


@pytest.fixture(scope="module")
def found(tenant: Path, scope: Scope) -> dict[str, np.ndarray]:
    """Every feature of random pairs, as float32[Q, EACH], by name."""
    random = np.random.default_rng(0)
    people = [random.choice(600, EACH, replace=False) for _ in QUERIES]
    candidates = Candidates(
        np.arange(len(QUERIES) + 1) * EACH, np.concatenate(people).astype(np.int32)
    )
    line = Recommender(tenant).release.surface("people").line
    given = FeatureInput(scope, Requests(QUERIES, scope.snapshot.as_of, 10), candidates)
    columns = {}
    for group in line.features.groups:
        if group.name in (
            "three_hop",
            "neighbor_degrees",
            "tastes",
            "shared_occasions",
            "communities",
        ):
            columns.update(group.compute(given))
    columns["candidate"] = candidates.candidate
    return {name: values.reshape(len(QUERIES), EACH) for name, values in columns.items()}


def dense(graph: Graph, weighted: bool = False) -> np.ndarray:
    matrix = np.zeros((len(graph), graph.targets))
    for row in range(len(graph)):
        places = slice(graph.indptr[row], graph.indptr[row + 1])
        matrix[row, graph.indices[places]] = graph.weight[places] if weighted else 1.0
    return matrix


def check(found: dict[str, np.ndarray], name: str, expected: np.ndarray) -> None:
    """``expected`` is float[U, U] of all pairs; unknown queries have 0."""
    rows = np.take_along_axis(expected[QUERIES], found["candidate"], axis=1)
    rows[QUERIES < 0] = 0.0
    assert (rows > 0).any(), "the sample must hold pairs that have the feature"
    np.testing.assert_allclose(found[name], rows, rtol=2e-4, atol=1e-6)


def test_three_hop_paths(found: dict[str, np.ndarray], scope: Scope) -> None:
    edges = dense(scope.graph)
    degree = np.maximum(edges.sum(1), 1)
    normal = edges / np.sqrt(degree)[:, None] / np.sqrt(degree)[None, :]
    check(found, "three_hop_paths", normal @ normal @ normal)


def test_neighbor_degrees(found: dict[str, np.ndarray], scope: Scope) -> None:
    edges = dense(scope.graph)
    degree = edges.sum(1)
    mean = np.log1p(edges @ degree / np.maximum(degree, 1))
    expected = mean[found["candidate"]]
    np.testing.assert_allclose(found["candidate_neighbor_degree_log"], expected, rtol=1e-5)
    assert np.isnan(found["query_neighbor_degree_log"][-1]).all()
    np.testing.assert_allclose(found["query_neighbor_degree_log"][0], mean[3], rtol=1e-5)


def test_tastes(found: dict[str, np.ndarray], scope: Scope) -> None:
    engaged = dense(scope.snapshot.engagements, weighted=True)
    active = (engaged > 0).any(1).sum()
    rarity = np.log(active / np.maximum((engaged > 0).sum(0), 1))
    rows = np.log1p(np.maximum(engaged, 0)) * rarity
    length = np.linalg.norm(rows, axis=1)
    alike = (rows / np.where(length > 0, length, 1)[:, None]) @ (
        rows / np.where(length > 0, length, 1)[:, None]
    ).T
    check(found, "taste_cosine", alike)
    friends = dense(scope.snapshot.connections)
    mean = friends / np.maximum(friends.sum(1), 1)[:, None]
    check(found, "taste_cosine_connections_of_query", mean @ alike)
    check(found, "taste_cosine_connections_of_candidate", alike @ mean.T)
    items = np.log1p((engaged > 0).sum(1))
    np.testing.assert_allclose(
        found["candidate_engagements_log"], items[found["candidate"]], rtol=1e-5
    )


def test_shared_occasions(found: dict[str, np.ndarray], scope: Scope) -> None:
    met = dense(scope.snapshot.occasions)
    together = met @ met.T
    np.fill_diagonal(together, 0)
    rows = np.take_along_axis(together[QUERIES], found["candidate"], axis=1)
    rows[QUERIES < 0] = 0
    own = found["candidate"] == QUERIES[:, None]
    np.testing.assert_array_equal(
        np.where(own, 0, found["shared_occasion_count"]), np.where(own, 0, rows)
    )


def test_communities_are_compared(found: dict[str, np.ndarray], scope: Scope) -> None:
    large = scope.snapshot.communities[:, 1]
    same = (large[QUERIES][:, None] == large[found["candidate"]]) & (large[found["candidate"]] >= 0)
    same[QUERIES < 0] = False
    np.testing.assert_array_equal(found["same_large_community"], same)
    size = np.log1p([(large == value).sum() if value >= 0 else 0 for value in large])
    np.testing.assert_allclose(
        found["candidate_community_size_log"], size[found["candidate"]], rtol=1e-5
    )
