"""Features of people beyond common neighbours: longer paths, degrees of neighbours, communities."""

from __future__ import annotations

from collections.abc import Iterator

import numba
import numpy as np

from nextedge.features.feature import Columns, Feature, FeatureInput, feature_group
from nextedge.graph.paths import pair_path_products
from nextedge.graph.propagate import SparseRows
from nextedge.graph.scope import Scope, cached_per_release, cached_per_snapshot, graph_rows
from nextedge.types import CONNECTS, FloatArray


def _three_hop(scope: Scope) -> Iterator[Feature]:
    formula = "paths of three edges, each edge by 1 / √(degree × degree)"
    yield Feature("three_hop_paths", formula, "connections")


@feature_group("three_hop", _three_hop, (CONNECTS,))
def three_hop(inputs: FeatureInput) -> Columns:
    """Paths of length three, normalised by degrees (Kovács et al., Nature Communications 2019)."""
    graph, edges = inputs.scope.graph, _normalised_edges(inputs.scope)
    rows = graph_rows(graph, inputs.requests.query, edges.values)
    return {"three_hop_paths": pair_path_products(rows, edges, edges, *inputs.pairs[1:])}


@cached_per_snapshot
def _normalised_edges(scope: Scope) -> SparseRows:
    """The connections, each weighing 1 / √(degree × degree)."""
    graph, values = scope.graph, np.empty(scope.graph.edges, np.float32)
    root = 1.0 / np.sqrt(np.maximum(graph.degree, 1))
    _products(graph.indptr, graph.indices, root, values)
    return SparseRows(graph.indptr, graph.indices, values, graph.targets)


@numba.njit(cache=True, nogil=True)
def _products(indptr, indices, of_node, values):  # type: ignore[no-untyped-def]
    """Product of the values of both ends of every entry."""
    for row in range(len(indptr) - 1):
        for entry in range(indptr[row], indptr[row + 1]):
            values[entry] = of_node[row] * of_node[indices[entry]]


@numba.njit(cache=True, nogil=True)
def _sums(indptr, indices, of_node, total):  # type: ignore[no-untyped-def]
    """Sum of the values of the neighbours of every row."""
    for row in range(len(indptr) - 1):
        for entry in range(indptr[row], indptr[row + 1]):
            total[row] += of_node[indices[entry]]


def _neighbor_degrees(scope: Scope) -> Iterator[Feature]:
    for side in ("query", "candidate"):
        formula = f"ln(1 + mean degree of the {side}'s connections)"
        yield Feature(f"{side}_neighbor_degree_log", formula, "connections")


@feature_group("neighbor_degrees", _neighbor_degrees, (CONNECTS,))
def neighbor_degrees(inputs: FeatureInput) -> Columns:
    """Mean degree of the connections of either side."""
    values = _neighbor_degree_log(inputs.scope)
    return inputs.both_sides("neighbor_degree_log", values, values)


@cached_per_snapshot
def _neighbor_degree_log(scope: Scope) -> FloatArray:
    """float32[U]: ln(1 + mean degree of a user's connections)."""
    graph = scope.graph
    total = np.zeros(len(graph))
    _sums(graph.indptr, graph.indices, graph.degree, total)
    return np.log1p(total / np.maximum(graph.degree, 1)).astype(np.float32)


def _communities(scope: Scope) -> Iterator[Feature]:
    for size in ("small", "large"):
        formula = f"1 if both are of one {size} community (Louvain)"
        yield Feature(f"same_{size}_community", formula, "connections")
    formula = "ln(1 + people of the candidate's large one)"
    yield Feature("candidate_community_size_log", formula, "connections")


@feature_group("communities", _communities, (CONNECTS,))
def shared_communities(inputs: FeatureInput) -> Columns:
    """Whether two people share a community of the whole graph, with or without a path."""
    communities = inputs.scope.snapshot.communities
    # -1 would read the last row: row 0 stands in, and the mask below clears it.
    query = communities[np.maximum(inputs.query, 0)]
    candidate = communities[inputs.candidate]
    same = (query == candidate) & (candidate >= 0) & (inputs.query >= 0)[:, None]
    size = _community_size_log(inputs.scope)
    return {
        "same_small_community": same[:, 0].astype(np.float32),
        "same_large_community": same[:, 1].astype(np.float32),
        "candidate_community_size_log": size[candidate[:, 1] + 1],
    }


@cached_per_release
def _community_size_log(scope: Scope) -> FloatArray:
    """float32[1 + communities]: ln(1 + people) of each large community, 0 for none first."""
    # Community -1 stands for none, so that codes shift by one.
    members = np.bincount(scope.snapshot.communities[:, 1] + 1, minlength=1)
    members[0] = 0
    return np.log1p(members).astype(np.float32)
