"""Features of the graph around a query and a candidate."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from nextedge.features.feature import Columns, Feature, FeatureInput, feature_group
from nextedge.graph.decay import faded_weights, history_span
from nextedge.graph.propagate import SparseRows, pair_products
from nextedge.graph.scope import Scope, cached_per_snapshot, entry_positions, graph_rows
from nextedge.graph.two_hop import PairScores, bipartite_pair_scores, pair_scores
from nextedge.types import CONNECTS, ENGAGES

_SCORES = {
    "adamic_adar": "Σ over common neighbours of 1 / ln degree",
    "resource_allocation": "Σ over common neighbours of 1 / degree",
    "jaccard": "common neighbours / all neighbours of either",
    "preferential_attachment": "ln(1 + degree × degree)",
}
"""The scores of ``two_hop`` besides the number of common neighbours, by name; and their formulas."""


def _degrees(scope: Scope) -> Iterator[Feature]:
    yield Feature("query_degree_log", "ln(1 + edges of the query)", "predicted relation")
    yield Feature("candidate_degree_log", "ln(1 + edges of the candidate)", "predicted relation")


@feature_group("degrees", _degrees)
def degrees(inputs: FeatureInput) -> Columns:
    """Log degrees in the predicted relation."""
    scope = inputs.scope
    query = np.where(inputs.query >= 0, scope.graph.degree[np.maximum(inputs.query, 0)], 0)
    candidate = scope.candidate_degree[inputs.candidate]
    return {
        "query_degree_log": np.log1p(query).astype(np.float32),
        "candidate_degree_log": np.log1p(candidate).astype(np.float32),
    }


def _pairs(scope: Scope) -> Iterator[Feature]:
    yield Feature("common_neighbor_count", "number of common neighbours", "connections")
    for name, formula in _SCORES.items():
        yield Feature(name, formula, "connections")
    yield Feature("graph_distance_bucket", "2 with a common neighbour, else 3", "connections")


def _score_columns(scores: PairScores, prefix: str = "") -> Columns:
    """The columns of ``_SCORES``."""
    columns = {f"{prefix}{name}": getattr(scores, name) for name in _SCORES}
    # A product of degrees spans too many magnitudes for a linear scale.
    columns[f"{prefix}preferential_attachment"] = np.log1p(scores.preferential_attachment)
    return columns


@feature_group("common_neighbors", _pairs, (CONNECTS,))
def common_neighbors(inputs: FeatureInput) -> Columns:
    """The five neighbourhood scores of each pair, in one pass per query."""
    graph = inputs.scope.graph
    scores = pair_scores(graph.indptr, graph.indices, *inputs.pairs)
    distance = np.where(scores.common_neighbors > 0, 2, 3).astype(np.float32)
    counts = {"common_neighbor_count": scores.common_neighbors, "graph_distance_bucket": distance}
    return counts | _score_columns(scores)


def _recent_wedges(scope: Scope) -> Iterator[Feature]:
    if scope.timed:
        formula = "Σ over common neighbours of both edges' 2^(-age / half-life) / ln degree"
        yield Feature("recent_adamic_adar", formula, "connections with times")


@feature_group("recent_wedges", _recent_wedges, (CONNECTS,))
def recent_wedges(inputs: FeatureInput) -> Columns:
    """Adamic-Adar in which both edges of a wedge fade with age."""
    graph = inputs.scope.graph
    if not inputs.scope.timed:
        return {}
    matrix, half_life = _decayed(inputs.scope)
    rows = graph_rows(graph, inputs.requests.query)
    last = graph.last[entry_positions(graph, inputs.requests.query, rows.indptr)]
    age = np.maximum(inputs.scope.snapshot.as_of - last, 0)
    rows = replace(rows, values=np.exp2(-age / half_life).astype(np.float32))
    return {"recent_adamic_adar": pair_products(rows, matrix, *inputs.pairs[1:])}


@cached_per_snapshot
def _decayed(scope: Scope) -> tuple[SparseRows, float]:
    """Each edge's fading weight over the log degree of its source, and the half-life."""
    graph, half_life = scope.graph, history_span(scope) * 0.1
    middle = 1.0 / np.log(np.maximum(graph.degree, 2))  # a middle of degree 1 has no wedge
    values = faded_weights(graph, scope.snapshot.as_of, half_life, middle)
    return SparseRows(graph.indptr, graph.indices, values, graph.targets), half_life


def _shared_items(scope: Scope) -> Iterator[Feature]:
    if scope.snapshot.engagements.edges:
        yield Feature("co_engaged_with_content", "items that both engage with", "interactions")
        for name, formula in _SCORES.items():
            yield Feature(f"shared_items_{name}", f"over shared items: {formula}", "interactions")


@feature_group("shared_items", _shared_items, (CONNECTS,))
def shared_items(inputs: FeatureInput) -> Columns:
    """The same five scores over the items that both people engage with."""
    forward, backward = inputs.scope.snapshot.engagements, inputs.scope.snapshot.engaged_by
    if not forward.edges:
        return {}
    scores = bipartite_pair_scores(forward.adjacency, backward.adjacency, *inputs.pairs)
    count = {"co_engaged_with_content": scores.common_neighbors}
    return count | _score_columns(scores, "shared_items_")


def _friends_items(scope: Scope) -> Iterator[Feature]:
    if scope.snapshot.connections.edges:
        formula = "connections of the query who engage with the item"
        yield Feature("connections_engaged", formula, "connections, interactions")


@feature_group("connections_engaged", _friends_items, (ENGAGES,))
def connections_engaged(inputs: FeatureInput) -> Columns:
    """Number of the query's connections that engage with the candidate item."""
    snapshot, graph = inputs.scope.snapshot, inputs.scope.graph
    if not snapshot.connections.edges:
        return {}
    rows = graph_rows(snapshot.connections, inputs.requests.query)
    ones = np.ones(graph.edges, np.float32)
    matrix = SparseRows(graph.indptr, graph.indices, ones, graph.targets)
    return {"connections_engaged": pair_products(rows, matrix, *inputs.pairs[1:])}
