"""Features of a user's taste against an item: sequence and content."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from nextedge.features.feature import Columns, Feature, FeatureInput, feature_group
from nextedge.features.sparse_pairs import neighborhood_dots
from nextedge.graph.attributes import Tags, Text
from nextedge.graph.decay import latest_first
from nextedge.graph.propagate import SparseRows, pair_products
from nextedge.graph.scope import Scope, cached_per_release, graph_rows
from nextedge.graph.similarity import similar_items
from nextedge.schema import ColumnKind
from nextedge.types import ENGAGES, FloatArray

_RECENT = {"last_item": 1, "last_five": 5}
_SEQUENCE = 50


def _sequence(scope: Scope) -> Iterator[Feature]:
    if scope.timed and scope.graph.edges:
        reads = "interactions with times"
        for name, size in _RECENT.items():
            formula = f"Σ item_knn similarity to the query's latest {size} items"
            yield Feature(f"{name}_similarity", formula, reads)
        formula = f"Σ over the latest {_SEQUENCE} items of item_knn similarity × 0.9^(later items)"
        yield Feature("sequence_similarity", formula, reads)


@feature_group("sequence", _sequence, (ENGAGES,))
def sequence(inputs: FeatureInput) -> Columns:
    """Similarity of the candidate to the latest items of the query."""
    scope = inputs.scope
    if not (scope.timed and scope.graph.edges):
        return {}
    similar = similar_to(scope)
    rank = latest_first(scope)
    columns: Columns = {}
    weights = {f"{name}_similarity": (rank < size) for name, size in _RECENT.items()}
    weights["sequence_similarity"] = np.where(rank < _SEQUENCE, 0.9**rank, 0.0)
    for name, weight in weights.items():
        rows = graph_rows(scope.graph, inputs.requests.query, weight.astype(np.float32))
        columns[name] = pair_products(rows, similar, *inputs.pairs[1:])
    return columns


@cached_per_release
def similar_to(scope: Scope) -> SparseRows:
    """For each item its most similar items."""
    return similar_items(scope, neighbors=300, shrinkage=1.0, user_power=0.5, normalise=True)


def _content_columns(scope: Scope) -> list[str]:
    return scope.candidate_attributes.of_kind(ColumnKind.TAGS, ColumnKind.TEXT)


def _content(scope: Scope) -> Iterator[Feature]:
    formula = "mean over the query's items of the overlap (share, or text cosine) with the item"
    for name in _content_columns(scope):
        yield Feature(f"{name}_affinity", formula, f"items.{name}, interactions")


@feature_group("content", _content, (ENGAGES,))
def content(inputs: FeatureInput) -> Columns:
    """Share of the query's history with the values of the item, column by column."""
    columns: Columns = {}
    for name in _content_columns(inputs.scope):
        rows, scale = _unit_rows(inputs.scope, name)
        columns[f"{name}_affinity"] = neighborhood_dots(
            inputs.scope.graph, rows, scale, *inputs.pairs
        )
    return columns


@cached_per_release
def _unit_rows(scope: Scope, name: str) -> tuple[SparseRows, FloatArray]:
    """The rows of a column, and float32[N] the factors that make them unit length."""
    column = scope.candidate_attributes.columns[name]
    assert isinstance(column, Tags | Text)
    rows = column.rows
    row = np.repeat(np.arange(len(rows)), np.diff(rows.indptr))
    squares = np.bincount(row, np.square(rows.values), minlength=len(rows))
    # An item without values has length 0.
    return rows, (1.0 / np.maximum(np.sqrt(squares), 1e-9)).astype(np.float32)
