"""Features of activity, popularity and recency, with time decay where times are known."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from nextedge.features.feature import Columns, Feature, FeatureInput, feature_group
from nextedge.graph.attributes import Number
from nextedge.graph.decay import faded_degrees, history_span
from nextedge.graph.scope import Scope, cached_per_snapshot
from nextedge.schema import POLICY_FLAGS, ColumnKind
from nextedge.types import MICROSECONDS_PER_DAY, FloatArray, IntArray

_HORIZONS = {"short": 0.02, "long": 0.15}


def _timed(scope: Scope) -> Iterator[Feature]:
    if not scope.timed:
        return
    for side in ("query", "candidate"):
        yield Feature(f"{side}_idle_days", "days since its latest edge", "edges with times")
        yield Feature(f"{side}_age_days", "days since its first edge or creation", "edges, users")
        for horizon, share in _HORIZONS.items():
            yield Feature(
                f"{side}_activity_{horizon}",
                f"ln(1 + edges counted 2^(-age / half-life)); half-life {share:.0%} of history",
                "edges with times",
            )
        yield Feature(f"{side}_momentum", "short activity / long activity", "edges with times")


@feature_group("activity", _timed)
def activity(inputs: FeatureInput) -> Columns:
    """Activity and age of the query and of the candidate."""
    if not inputs.scope.timed:
        return {}
    scope = inputs.scope
    table = _activity_tables(scope)
    columns: Columns = {}
    query = np.maximum(inputs.query, 0)
    for name, (by_query, by_candidate) in table.items():
        columns[f"query_{name}"] = np.where(inputs.query >= 0, by_query[query], np.nan)
        columns[f"candidate_{name}"] = by_candidate[inputs.candidate]
    return columns


@cached_per_snapshot
def _activity_tables(scope: Scope) -> dict[str, tuple[FloatArray, FloatArray]]:
    """By name: the value of each query and of each candidate."""
    graph, reverse = scope.graph, scope.reverse_graph
    span = history_span(scope)
    tables: dict[str, tuple[FloatArray, FloatArray]] = {}
    as_of = scope.snapshot.as_of
    tables["idle_days"] = tuple(_days(as_of, _last(g)) for g in (graph, reverse))  # type: ignore[assignment]
    tables["age_days"] = (
        _days(as_of, _born(graph, scope.query_attributes.instant("created_at"))),
        _days(as_of, _born(reverse, scope.candidate_attributes.instant("created_at"))),
    )
    for horizon, share in _HORIZONS.items():
        by_query, by_candidate = faded_degrees(graph, as_of, span * share)
        tables[f"activity_{horizon}"] = (
            np.log1p(by_query).astype(np.float32),
            np.log1p(by_candidate.astype(np.float32)),
        )
    tables["momentum"] = tuple(  # type: ignore[assignment]
        np.expm1(short) / (np.expm1(long) + 1e-3)
        for short, long in zip(tables["activity_short"], tables["activity_long"], strict=True)
    )
    return tables


def _last(graph) -> IntArray:  # type: ignore[no-untyped-def]
    return _segment(graph, graph.last, np.maximum, 0)


def _born(graph, created: IntArray | None) -> IntArray:  # type: ignore[no-untyped-def]
    never = np.iinfo(np.int64).max
    first = _segment(graph, graph.first, np.minimum, never)
    if created is not None:
        first = np.where(created > 0, np.minimum(first, created), first)
    return np.where(first == never, 0, first)


def _segment(graph, values: IntArray, reduce: np.ufunc, empty: int) -> IntArray:  # type: ignore[no-untyped-def]
    out = np.full(len(graph), empty, np.int64)
    filled = np.flatnonzero(graph.degree)
    if len(filled):
        out[filled] = reduce.reduceat(values, graph.indptr[filled])
    return out


def _days(as_of: int, times: IntArray) -> FloatArray:
    days = (as_of - times) / MICROSECONDS_PER_DAY
    return np.where(times > 0, np.maximum(days, 0), np.nan).astype(np.float32)


def _numbers(scope: Scope) -> Iterator[tuple[str, str, FloatArray]]:
    for side, attributes in (
        ("query", scope.query_attributes),
        ("candidate", scope.candidate_attributes),
    ):
        for name in attributes.of_kind(ColumnKind.NUMBER, ColumnKind.FLAG):
            if name in POLICY_FLAGS:
                continue
            column = attributes.columns[name]
            assert isinstance(column, Number)
            yield f"{side}_{name}", side, column.values


def _numeric(scope: Scope) -> Iterator[Feature]:
    for name, side, _ in _numbers(scope):
        yield Feature(name, "as given", f"attributes of the {side}")


@feature_group("numbers", _numeric)
def numbers(inputs: FeatureInput) -> Columns:
    """Numeric and flag attributes of both sides, unchanged."""
    query = np.maximum(inputs.query, 0)
    columns: Columns = {}
    for name, side, values in _numbers(inputs.scope):
        if side == "candidate":
            columns[name] = values[inputs.candidate]
        else:
            columns[name] = np.where(inputs.query >= 0, values[query], np.nan)
    return columns
