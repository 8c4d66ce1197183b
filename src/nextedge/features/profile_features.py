"""Pair features of two profiles (or a taste and an item), inferred from column kinds."""

from __future__ import annotations

from collections.abc import Iterator

import numba
import numpy as np

from nextedge.features.feature import Columns, Feature, FeatureInput, feature_group
from nextedge.features.sparse_pairs import candidate_dots
from nextedge.graph.attributes import Attributes, Category, Number, Tags, Text
from nextedge.graph.scope import Scope
from nextedge.schema import POLICY_FLAGS, ColumnKind
from nextedge.types import CONNECTS, MICROSECONDS_PER_DAY, FloatArray, IndexArray

_EARTH_RADIUS_KM = 6371.0088


def _names(scope: Scope) -> Iterator[tuple[str, str, ColumnKind]]:
    attributes = scope.query_attributes
    for name, kind in attributes.kinds.items():
        if name in POLICY_FLAGS:
            continue
        if kind in (ColumnKind.CATEGORY, ColumnKind.FLAG):
            yield f"same_{name}", name, kind
        elif kind is ColumnKind.TAGS:
            yield f"{name.removesuffix('s')}_jaccard", name, kind
        elif kind is ColumnKind.TEXT and name != "name":
            yield f"{name}_cosine", name, kind
        elif kind is ColumnKind.NUMBER:
            yield f"{name}_difference", name, kind


_SAME = "1 if both have the same value, 0 if not, missing if either is missing"
_FORMULAS = {
    ColumnKind.CATEGORY: _SAME,
    ColumnKind.FLAG: _SAME,
    ColumnKind.TAGS: "values in both / values in either",
    ColumnKind.TEXT: "cosine of hashed TF-IDF",
    ColumnKind.NUMBER: "|query − candidate|",
}


def _has_positions(attributes: Attributes) -> bool:
    return {"latitude", "longitude"} <= set(attributes.columns)


def _declared(scope: Scope) -> Iterator[Feature]:
    for feature, column, kind in _names(scope):
        yield Feature(feature, _FORMULAS[kind], f"users.{column}")
    if _has_positions(scope.query_attributes):
        yield Feature("geo_distance_km", "great-circle distance", "users.latitude, .longitude")


@feature_group("profile_pairs", _declared, (CONNECTS,))
def profile_pairs(inputs: FeatureInput) -> Columns:
    """Same value, set overlap, text cosine, difference and distance, column by column."""
    attributes = inputs.scope.query_attributes
    # Position 0 stands in for unknown queries, whose rows become NaN at the end.
    query, candidate = np.maximum(inputs.query, 0), inputs.candidate
    columns: Columns = {}
    for feature, name, _ in _names(inputs.scope):
        column = attributes.columns[name]
        if isinstance(column, Category):
            columns[feature] = _same(column.codes[query], column.codes[candidate])
        elif isinstance(column, Tags):
            columns[feature] = _set_jaccard(column, inputs)
        elif isinstance(column, Text):
            columns[feature] = candidate_dots(column.rows, *inputs.pairs)
        elif isinstance(column, Number):
            gap = np.abs(column.values[query] - column.values[candidate])
            same = attributes.kinds[name] is ColumnKind.FLAG
            columns[feature] = np.where(np.isnan(gap), np.nan, gap == 0) if same else gap
    if _has_positions(attributes):
        columns["geo_distance_km"] = _distance_km(attributes, query, candidate)
    unknown = inputs.query < 0
    if unknown.any():
        for values in columns.values():
            values[unknown] = np.nan
    return columns


def _same(left: IndexArray, right: IndexArray) -> FloatArray:
    missing = (left < 0) | (right < 0)
    return np.where(missing, np.nan, left == right).astype(np.float32)


def _set_jaccard(column: Tags, inputs: FeatureInput) -> FloatArray:
    both, indptr = candidate_dots(column.rows, *inputs.pairs), column.rows.indptr
    sides = np.maximum(inputs.query, 0), inputs.candidate
    either = sum(indptr[side + 1] - indptr[side] for side in sides) - both
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(either > 0, both / either, np.nan).astype(np.float32)


def _distance_km(attributes: Attributes, query: IndexArray, candidate: IndexArray) -> FloatArray:
    """float32[R]: haversine distance; missing where either position is."""
    latitude, longitude = attributes.columns["latitude"], attributes.columns["longitude"]
    assert isinstance(latitude, Number) and isinstance(longitude, Number)
    distance = np.empty(len(candidate), np.float32)
    _haversine(latitude.values, longitude.values, query, candidate, distance)
    return distance


@numba.njit(cache=True, nogil=True)
def _haversine(latitude, longitude, query, candidate, distance):  # type: ignore[no-untyped-def]
    for row in range(len(candidate)):
        here, there = np.float64(latitude[query[row]]), np.float64(latitude[candidate[row]])
        east = np.float64(longitude[candidate[row]]) - np.float64(longitude[query[row]])
        north, here, there = np.radians(there - here), np.radians(here), np.radians(there)
        half = np.sin(north / 2) ** 2
        half += np.cos(here) * np.cos(there) * np.sin(np.radians(east) / 2) ** 2
        # Rounding may leave [0, 1] by a bit at opposite or equal points.
        distance[row] = 2 * _EARTH_RADIUS_KM * np.arcsin(np.sqrt(min(max(half, 0.0), 1.0)))


def _views(scope: Scope) -> Iterator[Feature]:
    if scope.snapshot.profile_views.edges:
        yield Feature("query_viewed_candidate_profile", "1 if the query opened it", "impressions")
        yield Feature("profile_view_recency_days", "days since the query opened it", "impressions")
        yield Feature("mutual_profile_views", "directions in which it was opened", "impressions")


@feature_group("profile_views", _views, (CONNECTS,))
def profile_views(inputs: FeatureInput) -> Columns:
    """Profile views between the query and the candidate."""
    views = inputs.scope.snapshot.profile_views
    if not views.edges:
        return {}
    viewed = views.contains(inputs.query, inputs.candidate)
    back = (inputs.query >= 0) & views.contains(inputs.candidate, inputs.query)
    age = inputs.scope.snapshot.as_of - views.last_times(inputs.query, inputs.candidate)
    recency = np.where(viewed, age / MICROSECONDS_PER_DAY, np.nan).astype(np.float32)
    return {
        "query_viewed_candidate_profile": viewed.astype(np.float32),
        "profile_view_recency_days": recency,
        "mutual_profile_views": (viewed.astype(np.float32) + back),
    }
