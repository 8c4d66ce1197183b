"""Features of a user's taste against an item: sequence and content."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
from scipy import sparse

from nextedge.features.attributes import Tags, Text
from nextedge.features.feature import Columns, Feature, FeatureInput, feature_group
from nextedge.graph.propagate import SparseRows, pair_products
from nextedge.models.slist import place_from_end
from nextedge.schema import ColumnKind
from nextedge.stages.item_knn import similar_items
from nextedge.stages.source import Scope, graph_rows
from nextedge.types import ENGAGES, FloatArray

_RECENT = {"last_item": 1, "last_five": 5}
_SEQUENCE = 50


def _sequence(scope: Scope) -> Iterator[Feature]:
    if scope.timed and scope.graph.edges:
        for name, size in _RECENT.items():
            yield Feature(
                f"{name}_similarity",
                f"Σ item_knn similarity to the query's latest {size} items",
                "interactions with times",
            )
        yield Feature(
            "sequence_similarity",
            f"Σ over the latest {_SEQUENCE} items of item_knn similarity × 0.9^(place from the end)",
            "interactions with times",
        )


@feature_group("sequence", _sequence, (ENGAGES,))
def sequence(given: FeatureInput) -> Columns:
    """Similarity to what the query engaged with last."""
    scope = given.scope
    if not (scope.timed and scope.graph.edges):
        return {}
    similar = scope.derived("similar_items", lambda: _similar(scope))
    place = scope.derived("place_from_end", lambda: place_from_end(scope.graph))
    columns: Columns = {}
    weights = {f"{name}_similarity": (place < size) for name, size in _RECENT.items()}
    weights["sequence_similarity"] = np.where(place < _SEQUENCE, 0.9**place, 0.0)
    for name, weight in weights.items():
        rows = graph_rows(scope.graph, given.requests.query, weight.astype(np.float32))
        columns[name] = pair_products(rows, similar, given.candidates.indptr, given.candidate)
    return columns


def _similar(scope: Scope) -> SparseRows:
    return similar_items(scope, neighbours=300, shrinkage=1.0, user_power=0.5, normalise=True)


def _content_columns(scope: Scope) -> list[str]:
    return scope.candidate_attributes.of_kind(ColumnKind.TAGS, ColumnKind.TEXT)


def _content(scope: Scope) -> Iterator[Feature]:
    for name in _content_columns(scope):
        yield Feature(
            f"{name}_affinity",
            "mean over the query's items of the overlap (share, or text cosine) with the item",
            f"items.{name}, interactions",
        )


@feature_group("content", _content, (ENGAGES,))
def content(given: FeatureInput) -> Columns:
    """How much of the query's history has the item's values, column by column."""
    scope = given.scope
    rows = graph_rows(scope.graph, given.requests.query)
    size = np.maximum(np.diff(rows.indptr), 1).astype(np.float32)
    history = sparse.csr_matrix((rows.values, rows.indices, rows.indptr),
                                shape=(len(given.requests), scope.graph.targets))  # fmt: skip
    columns: Columns = {}
    for name in _content_columns(scope):
        values = scope.derived(f"unit_values_{name}", partial(_values, scope, name))
        taste = (history @ values).tocsr()
        taste.sort_indices()
        dots = _row_dots(taste, values, given)
        mean = dots / np.repeat(size, np.diff(given.candidates.indptr))
        columns[f"{name}_affinity"] = mean.astype(np.float32)
    return columns


def _values(scope: Scope, name: str) -> sparse.csr_matrix:
    """Items × values of one column, rows of unit length."""
    column = scope.candidate_attributes.columns[name]
    assert isinstance(column, Tags | Text)
    rows = column.rows if isinstance(column, Text) else column.as_sets()
    count = scope.candidate_attributes.rows
    matrix = sparse.csr_matrix(
        (np.asarray(rows.values), np.asarray(rows.indices), np.asarray(rows.indptr)),
        shape=(count, max(rows.columns, 1)),
    )
    length = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())
    return (sparse.diags(1.0 / np.maximum(length, 1e-9)) @ matrix).tocsr()


def _row_dots(
    taste: sparse.csr_matrix, values: sparse.csr_matrix, given: FeatureInput
) -> FloatArray:
    """float32[R]: dot of each query's taste with each of its candidates' values."""
    turned = values.T.tocsr()
    matrix = SparseRows(
        turned.indptr.astype(np.int64), turned.indices.astype(np.int32),
        turned.data.astype(np.float32), turned.shape[1],
    )  # fmt: skip
    rows = SparseRows(
        taste.indptr.astype(np.int64), taste.indices.astype(np.int32),
        taste.data.astype(np.float32), taste.shape[1],
    )  # fmt: skip
    return pair_products(rows, matrix, given.candidates.indptr, given.candidate)
