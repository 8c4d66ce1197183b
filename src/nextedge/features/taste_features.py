"""Features of people's engagement with items: amount, similarity, and shared occasions."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from nextedge.features.feature import Columns, Feature, FeatureInput, feature_group
from nextedge.features.sparse_pairs import candidate_dots
from nextedge.graph.csr import Graph
from nextedge.graph.paths import pair_path_products
from nextedge.graph.propagate import SparseRows
from nextedge.graph.scope import Scope, cached_per_snapshot, graph_rows, rows_of
from nextedge.graph.two_hop import bipartite_pair_scores
from nextedge.types import CONNECTS, FloatArray

_HUB = 5000
"""Items with more users do not count: they tell nothing of a pair, and cost the most to walk."""


def _tastes(scope: Scope) -> Iterator[Feature]:
    if not scope.snapshot.engagements.edges:
        return
    yield Feature(
        "taste_cosine", "cosine of ln(1 + weight) × ln(users / users of the item)", "interactions"
    )
    if scope.snapshot.connections.edges:
        for side, other in (("query", "candidate"), ("candidate", "query")):
            yield Feature(
                f"taste_cosine_connections_of_{side}",
                f"mean taste_cosine of the {other} with the {side}'s connections",
                "connections, interactions",
            )
    for side in ("query", "candidate"):
        yield Feature(f"{side}_engagements_log", f"ln(1 + items of the {side})", "interactions")
        yield Feature(
            f"{side}_engagement_weight_log",
            f"ln(1 + weight of the {side}'s interactions)",
            "interactions",
        )


@feature_group("tastes", _tastes, (CONNECTS,))
def tastes(inputs: FeatureInput) -> Columns:
    """Similarity of two people's items, and of those of either's connections with the other's."""
    scope, requests = inputs.scope, inputs.requests
    if not scope.snapshot.engagements.edges:
        return {}
    of_user, of_item = _taste_rows(scope)
    query = np.maximum(inputs.query, 0)
    alike = candidate_dots(of_user, requests.query, inputs.candidates.indptr, inputs.candidate)
    columns = {"taste_cosine": alike}
    friends = scope.snapshot.connections
    if friends.edges:
        columns["taste_cosine_connections_of_query"] = pair_path_products(
            graph_rows(friends, requests.query, _mean_weights(scope)),
            of_user,
            of_user,
            inputs.candidates.indptr,
            inputs.candidate,
        )
        mean = SparseRows(friends.indptr, friends.indices, _mean_weights(scope), friends.targets)
        columns["taste_cosine_connections_of_candidate"] = pair_path_products(
            rows_of(of_user, requests.query),
            of_item,
            mean,
            inputs.candidates.indptr,
            inputs.candidate,
        )
    items, weight = _amounts(scope)
    for name, values in (("engagements_log", items), ("engagement_weight_log", weight)):
        columns[f"query_{name}"] = np.where(inputs.query >= 0, values[query], np.nan)
        columns[f"candidate_{name}"] = values[inputs.candidate]
    return columns


@cached_per_snapshot
def _taste_rows(scope: Scope) -> tuple[SparseRows, SparseRows]:
    """Unit tf-idf rows of the users over items, and the same entries as rows of the items."""
    engaged, engaged_by = scope.snapshot.engagements, scope.snapshot.engaged_by
    users = max(int((engaged.degree > 0).sum()), 1)
    rarity = np.log(users / np.maximum(engaged_by.degree, 1))
    rarity = np.where(engaged_by.degree > _HUB, 0.0, rarity)
    values = np.log1p(np.maximum(engaged.weight, 0)) * rarity[engaged.indices]
    user = np.repeat(np.arange(len(engaged)), engaged.degree)
    length = np.sqrt(np.bincount(user, values**2, minlength=len(engaged)))
    scale = 1.0 / np.where(length > 0, length, 1.0)
    by_item = np.log1p(np.maximum(engaged_by.weight, 0)) * scale[engaged_by.indices]
    by_item *= np.repeat(rarity, engaged_by.degree)
    return _rows(engaged, values * scale[user]), _rows(engaged_by, by_item)


def _rows(graph: Graph, values: np.ndarray) -> SparseRows:
    return SparseRows(graph.indptr, graph.indices, values.astype(np.float32), graph.targets)


@cached_per_snapshot
def _mean_weights(scope: Scope) -> FloatArray:
    """float32[E]: 1 / degree at each connection, so that a row sums to one."""
    graph = scope.snapshot.connections
    return np.repeat(1.0 / np.maximum(graph.degree, 1), graph.degree).astype(np.float32)


@cached_per_snapshot
def _amounts(scope: Scope) -> tuple[FloatArray, FloatArray]:
    """float32[U]: ln(1 + items) and ln(1 + weight of the interactions) of each user."""
    engaged = scope.snapshot.engagements
    user = np.repeat(np.arange(len(engaged)), engaged.degree)
    weight = np.bincount(user, np.maximum(engaged.weight, 0), minlength=len(engaged))
    return np.log1p(engaged.degree).astype(np.float32), np.log1p(weight).astype(np.float32)


def _occasions(scope: Scope) -> Iterator[Feature]:
    if scope.snapshot.occasions.edges:
        yield Feature(
            "shared_occasion_count",
            "times both engaged with one item together",
            "interactions with times or columns of their own",
        )
        yield Feature(
            "shared_occasion_resource_allocation",
            "Σ over shared occasions of 1 / people there",
            "interactions with times or columns of their own",
        )


@feature_group("shared_occasions", _occasions, (CONNECTS,))
def shared_occasions(inputs: FeatureInput) -> Columns:
    """Number of times that two people engaged with an item together."""
    forward, backward = inputs.scope.snapshot.occasions, inputs.scope.snapshot.occasions_by
    if not forward.edges:
        return {}
    found = bipartite_pair_scores(
        forward.adjacency,
        backward.adjacency,
        inputs.requests.query,
        inputs.candidates.indptr,
        inputs.candidate,
    )
    return {
        "shared_occasion_count": found.common_neighbors.astype(np.float32),
        "shared_occasion_resource_allocation": found.resource_allocation,
    }
