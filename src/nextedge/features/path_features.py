"""Features of people beyond common neighbours: longer paths, and the neighbours' own reach."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from nextedge.features.feature import Columns, Feature, FeatureInput, feature_group
from nextedge.graph.paths import pair_path_products
from nextedge.graph.propagate import SparseRows
from nextedge.stages.source import Scope, graph_rows
from nextedge.types import CONNECTS, FloatArray


def _three_hop(scope: Scope) -> Iterator[Feature]:
    yield Feature(
        "three_hop_paths",
        "paths of three edges, each edge by 1 / √(degree × degree)",
        "connections",
    )


@feature_group("three_hop", _three_hop, (CONNECTS,))
def three_hop(given: FeatureInput) -> Columns:
    """Paths of length three, normalised by degrees (Kovács et al., Nature Communications 2019)."""
    graph, edges = given.scope.graph, _normalised_edges(given.scope)
    rows = graph_rows(graph, given.requests.query, edges.values)
    found = pair_path_products(rows, edges, edges, given.candidates.indptr, given.candidate)
    return {"three_hop_paths": found}


def _normalised_edges(scope: Scope) -> SparseRows:
    """The connections, each weighing 1 / √(degree × degree)."""

    def compute() -> SparseRows:
        graph = scope.graph
        root = 1.0 / np.sqrt(np.maximum(graph.degree, 1))
        values = np.repeat(root, graph.degree) * root[graph.indices]
        return SparseRows(graph.indptr, graph.indices, values.astype(np.float32), graph.targets)

    return scope.derived("normalised_edges", compute)


def _neighbor_degrees(scope: Scope) -> Iterator[Feature]:
    for side in ("query", "candidate"):
        yield Feature(
            f"{side}_neighbor_degree_log", f"ln(1 + mean degree of the {side}'s connections)",
            "connections",
        )  # fmt: skip


@feature_group("neighbor_degrees", _neighbor_degrees, (CONNECTS,))
def neighbor_degrees(given: FeatureInput) -> Columns:
    """How well connected the connections of either side are."""

    def compute() -> FloatArray:
        graph = given.scope.graph
        row = np.repeat(np.arange(len(graph)), graph.degree)
        total = np.bincount(row, graph.degree[graph.indices], minlength=len(graph))
        return np.log1p(total / np.maximum(graph.degree, 1)).astype(np.float32)

    values = given.scope.derived("neighbor_degree_log", compute)
    query = np.where(given.query >= 0, values[np.maximum(given.query, 0)], np.nan)
    return {
        "query_neighbor_degree_log": query.astype(np.float32),
        "candidate_neighbor_degree_log": values[given.candidate],
    }


def _communities(scope: Scope) -> Iterator[Feature]:
    for size in ("small", "large"):
        yield Feature(f"same_{size}_community", f"1 if both are of one {size} community (Louvain)",
                      "connections")  # fmt: skip
    yield Feature("candidate_community_size_log", "ln(1 + people of the candidate's large one)",
                  "connections")  # fmt: skip


@feature_group("communities", _communities, (CONNECTS,))
def shared_communities(given: FeatureInput) -> Columns:
    """Whether two people belong together in the whole graph's division, without a path between."""
    of = given.scope.snapshot.communities
    query, candidate = of[np.maximum(given.query, 0)], of[given.candidate]
    same = (query == candidate) & (candidate >= 0) & (given.query >= 0)[:, None]

    def sizes() -> FloatArray:
        members = np.bincount(of[:, 1] + 1, minlength=1)
        members[0] = 0
        return np.log1p(members).astype(np.float32)

    size = given.scope.derived("community_size_log", sizes, lasting=True)
    return {
        "same_small_community": same[:, 0].astype(np.float32),
        "same_large_community": same[:, 1].astype(np.float32),
        "candidate_community_size_log": size[candidate[:, 1] + 1],
    }
