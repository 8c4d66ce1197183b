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
"""Most users of an item that counts: a larger item says nothing of a pair and costs the most."""


def _tastes(scope: Scope) -> Iterator[Feature]:
    if not scope.snapshot.engagements.edges:
        return
    reads = "interactions"
    yield Feature("taste_cosine", "cosine of ln(1 + weight) × ln(users / users of the item)", reads)
    if scope.snapshot.connections.edges:
        for side, other in (("query", "candidate"), ("candidate", "query")):
            formula = f"mean taste_cosine of the {other} with the {side}'s connections"
            yield Feature(f"taste_cosine_connections_of_{side}", formula, f"connections, {reads}")
    for side in ("query", "candidate"):
        yield Feature(f"{side}_engagements_log", f"ln(1 + items of the {side})", reads)
        formula = f"ln(1 + weight of the {side}'s interactions)"
        yield Feature(f"{side}_engagement_weight_log", formula, reads)


@feature_group("tastes", _tastes, (CONNECTS,))
def tastes(inputs: FeatureInput) -> Columns:
    """Similarity of two people's items, and of those of either's connections with the other's."""
    scope, requests = inputs.scope, inputs.requests
    if not scope.snapshot.engagements.edges:
        return {}
    of_user, of_item = _taste_rows(scope)
    columns = {"taste_cosine": candidate_dots(of_user, *inputs.pairs)}
    friends, pairs = scope.snapshot.connections, inputs.pairs[1:]
    if friends.edges:
        # The mean over the query's connections is one row; over the candidate's, one column each.
        mean = _mean_weights(scope)
        rows = graph_rows(friends, requests.query, mean)
        cosine = pair_path_products(rows, of_user, of_user, *pairs)
        columns["taste_cosine_connections_of_query"] = cosine
        ends = SparseRows(friends.indptr, friends.indices, mean, friends.targets)
        cosine = pair_path_products(rows_of(of_user, requests.query), of_item, ends, *pairs)
        columns["taste_cosine_connections_of_candidate"] = cosine
    items, weight = _amounts(scope)
    columns |= inputs.both_sides("engagements_log", items, items)
    return columns | inputs.both_sides("engagement_weight_log", weight, weight)


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
    # A user of hubs alone has length 0.
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
        reads = "interactions with times or columns of their own"
        yield Feature("shared_occasion_count", "times both engaged with one item together", reads)
        formula = "Σ over shared occasions of 1 / people there"
        yield Feature("shared_occasion_resource_allocation", formula, reads)


@feature_group("shared_occasions", _occasions, (CONNECTS,))
def shared_occasions(inputs: FeatureInput) -> Columns:
    """Number of times that two people engaged with an item together."""
    forward, backward = inputs.scope.snapshot.occasions, inputs.scope.snapshot.occasions_by
    if not forward.edges:
        return {}
    scores = bipartite_pair_scores(forward.adjacency, backward.adjacency, *inputs.pairs)
    return {
        "shared_occasion_count": scores.common_neighbors,
        "shared_occasion_resource_allocation": scores.resource_allocation,
    }
