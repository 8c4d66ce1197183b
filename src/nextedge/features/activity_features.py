"""Features of activity, popularity and recency, with time decay where times are known."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from nextedge.features.feature import Columns, Feature, FeatureInput, feature_group
from nextedge.graph.attributes import Number
from nextedge.graph.csr import Graph
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
            formula = (
                f"ln(1 + edges counted 2^(-age / half-life)); half-life {share:.0%} of history"
            )
            yield Feature(f"{side}_activity_{horizon}", formula, "edges with times")
        yield Feature(f"{side}_momentum", "short activity / long activity", "edges with times")


@feature_group("activity", _timed)
def activity(inputs: FeatureInput) -> Columns:
    """Activity and age of the query and of the candidate."""
    if not inputs.scope.timed:
        return {}
    columns: Columns = {}
    for name, (by_query, by_candidate) in _activity_tables(inputs.scope).items():
        columns |= inputs.both_sides(name, by_query, by_candidate)
    return columns


@cached_per_snapshot
def _activity_tables(scope: Scope) -> dict[str, tuple[FloatArray, FloatArray]]:
    """By name: the value of each query and of each candidate."""
    as_of, span = scope.snapshot.as_of, history_span(scope)
    sides = (
        (scope.graph, scope.query_attributes),
        (scope.reverse_graph, scope.candidate_attributes),
    )
    tables: dict[str, list[FloatArray]] = {
        "idle_days": [_days(as_of, _reduced(g, g.last, np.maximum, 0)) for g, _ in sides],
        "age_days": [_days(as_of, _born(g, x.instant("created_at"))) for g, x in sides],
    }
    for horizon, share in _HORIZONS.items():
        by_query, by_candidate = faded_degrees(scope.graph, as_of, span * share)
        tables[f"activity_{horizon}"] = [
            np.log1p(by_query).astype(np.float32),
            np.log1p(by_candidate.astype(np.float32)),
        ]
    tables["momentum"] = [
        # A side without long activity gets a finite ratio.
        (np.expm1(short) / (np.expm1(long) + 1e-3)).astype(np.float32)
        for short, long in zip(tables["activity_short"], tables["activity_long"], strict=True)
    ]
    return {name: (by_query, by_candidate) for name, (by_query, by_candidate) in tables.items()}


def _born(graph: Graph, created: IntArray | None) -> IntArray:
    """int64[N]: the first edge or the creation, whichever is earlier; 0 where both are missing."""
    never = np.iinfo(np.int64).max
    first = _reduced(graph, graph.first, np.minimum, never)
    if created is not None:
        first = np.where(created > 0, np.minimum(first, created), first)
    return np.where(first == never, 0, first)


def _reduced(graph: Graph, values: IntArray, reduce: np.ufunc, empty: int) -> IntArray:
    out = np.full(len(graph), empty, np.int64)
    # ``reduceat`` cannot express an empty row, so that only filled rows take part.
    filled = np.flatnonzero(graph.degree)
    if len(filled):
        out[filled] = reduce.reduceat(values, graph.indptr[filled])
    return out


def _days(as_of: int, times: IntArray) -> FloatArray:
    days = (as_of - times) / MICROSECONDS_PER_DAY
    return np.where(times > 0, np.maximum(days, 0), np.nan).astype(np.float32)


def _numbers(scope: Scope) -> Iterator[tuple[str, str, FloatArray]]:
    sides = {"query": scope.query_attributes, "candidate": scope.candidate_attributes}
    for side, attributes in sides.items():
        for name, column in attributes.encoded(Number, ColumnKind.NUMBER, ColumnKind.FLAG):
            if name not in POLICY_FLAGS:
                yield f"{side}_{name}", side, column.values


def _numeric(scope: Scope) -> Iterator[Feature]:
    for name, side, _ in _numbers(scope):
        yield Feature(name, "as given", f"attributes of the {side}")


@feature_group("numbers", _numeric)
def numbers(inputs: FeatureInput) -> Columns:
    """Numeric and flag attributes of both sides, unchanged."""
    return {
        name: inputs.of_query(values) if side == "query" else values[inputs.candidate]
        for name, side, values in _numbers(inputs.scope)
    }
