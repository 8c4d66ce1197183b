"""Features of the neighbours of either side: their values, numbers and popularity.

The neighbours of a person are connections, for a query of items they are the items it engaged
with; the neighbours of an item are its users. One definition serves both relations.
"""

from __future__ import annotations

from collections.abc import Iterator

import numba
import numpy as np

from nextedge.features.feature import Columns, Feature, FeatureInput, feature_group
from nextedge.graph.attributes import Attributes, Category, Number
from nextedge.graph.csr import Graph
from nextedge.graph.decay import rank_from_latest
from nextedge.graph.scope import Scope, cached_per_snapshot, entry_positions
from nextedge.graph.threads import run_blocks
from nextedge.schema import ColumnKind
from nextedge.storage.arrays import plain
from nextedge.types import MICROSECONDS_PER_DAY, FloatArray, IndexArray, IntArray

SAMPLED = 32
"""Neighbours of a candidate that a feature reads, evenly spread: bounds the cost of a hub."""
_LATEST = 5
_PRIOR = 5.0
"""Neighbours with the usual share of values, which smooth the observed share."""


def _categories(attributes: Attributes) -> Iterator[tuple[str, Category]]:
    return attributes.encoded(Category, ColumnKind.CATEGORY)


def _numbers(attributes: Attributes) -> Iterator[tuple[str, Number]]:
    return attributes.encoded(Number, ColumnKind.NUMBER)


def _values(scope: Scope) -> Iterator[Feature]:
    if not scope.graph.edges:
        return
    side = "users" if scope.relation.self_typed else "items"
    for name, _ in _categories(scope.candidate_attributes):
        reads = f"{side}.{name}, predicted relation"
        formula = "share of the query's neighbours with the candidate's value"
        yield Feature(f"{name}_affinity", formula, reads)
        if scope.timed:
            formula = f"share of the query's latest {_LATEST} neighbours with the candidate's value"
            yield Feature(f"{name}_latest_affinity", formula, f"{reads} with times")
            formula = "days since the query's latest edge with the candidate's value"
            yield Feature(f"{name}_idle_days", formula, f"{reads} with times")
    formula = (
        f"ln of the share of {SAMPLED} of the candidate's neighbours with the query's value, "
        "over the share among all"
    )
    for name, _ in _categories(scope.query_attributes):
        yield Feature(f"{name}_reverse_affinity", formula, f"users.{name}, predicted relation")


@feature_group("neighbor_values", _values)
def neighbor_values(inputs: FeatureInput) -> Columns:
    """How common the candidate's values are around the query, and the other way round."""
    scope = inputs.scope
    if not scope.graph.edges:
        return {}
    graph, pairs = scope.graph, inputs.pairs
    queries, rows = len(inputs.requests), len(inputs.candidates)
    ranks = np.zeros(queries + 1, np.int64), np.zeros(0, np.float32)
    if scope.timed:
        ranks = _edge_ranks(graph, inputs.requests.query)
    columns: Columns = {}
    edges = (*graph.adjacency, plain(graph.last, np.int64))
    for name, column in _categories(scope.candidate_attributes):
        share, latest, idle = out = tuple(np.zeros(rows, np.float32) for _ in range(3))
        values = np.asarray(column.codes), len(column.values)
        run_blocks(_around_query, queries, edges, ranks, values, pairs, scope.snapshot.as_of, out)
        columns[f"{name}_affinity"] = share
        if scope.timed:
            columns[f"{name}_latest_affinity"], columns[f"{name}_idle_days"] = latest, idle
    adjacency = scope.reverse_graph.adjacency
    for name, column in _categories(scope.query_attributes):
        log_ratio, codes = np.zeros(rows, np.float32), np.asarray(column.codes)
        base = _shares(scope, name)
        run_blocks(_around_candidate, queries, adjacency, codes, base, pairs, log_ratio)
        columns[f"{name}_reverse_affinity"] = log_ratio
    return columns


def _edge_ranks(graph: Graph, query: IndexArray) -> tuple[IntArray, FloatArray]:
    """Start of the edges of each query (int64[Q + 1]), and the rank of each from its latest."""
    indptr, indices = graph.gather(query)
    last = graph.last[entry_positions(graph, query, indptr)]
    rows = Graph(indptr, indices, np.zeros(0, np.float32), last, last, graph.targets)
    return indptr, rank_from_latest(rows)


def _shares(scope: Scope, name: str) -> FloatArray:
    """float32[values]: share of the queries that have edges, by value."""
    column = scope.query_attributes.columns[name]
    assert isinstance(column, Category)
    codes = column.codes[(scope.graph.degree > 0) & (column.codes >= 0)]
    # One more of each value, so that no share is 0: the feature divides by it.
    count = np.bincount(codes, minlength=max(len(column.values), 1)) + 1.0
    return (count / count.sum()).astype(np.float32)


def _amounts(scope: Scope) -> Iterator[Feature]:
    if not scope.graph.edges:
        return
    side, reads = "users" if scope.relation.self_typed else "items", "predicted relation"
    formula = "|candidate − mean of the query's neighbours|"
    for name, _ in _numbers(scope.candidate_attributes):
        yield Feature(f"{name}_distance", formula, f"{side}.{name}, {reads}")
    formula = "ln(1 + edges of the candidate) − mean of it over the query's neighbours"
    yield Feature("popularity_distance", formula, reads)
    if not scope.relation.self_typed:
        formula = "mean ln(1 + edges) of the query's neighbours"
        yield Feature("query_neighbor_popularity", formula, reads)
        formula = f"mean ln(1 + edges) of {SAMPLED} of the candidate's neighbours"
        yield Feature("candidate_neighbor_activity", formula, reads)
    if scope.timed:
        formula = "days from the mean first edge of the query's neighbours to the candidate's"
        yield Feature("first_edge_distance_days", formula, f"{reads} with times")


@feature_group("neighbor_amounts", _amounts)
def neighbor_amounts(inputs: FeatureInput) -> Columns:
    """How far the candidate's numbers are from what the query has edges with."""
    scope = inputs.scope
    if not scope.graph.edges:
        return {}
    columns: Columns = {}

    def query_mean(values: FloatArray) -> FloatArray:
        return inputs.by_row(_means(scope.graph, inputs.requests.query, values))

    for name, column in _numbers(scope.candidate_attributes):
        values = np.asarray(column.values, np.float32)
        columns[f"{name}_distance"] = np.abs(values[inputs.candidate] - query_mean(values))
    popularity = _popularity_log(scope)
    mean = query_mean(popularity)
    columns["popularity_distance"] = popularity[inputs.candidate] - mean
    if not scope.relation.self_typed:
        columns["query_neighbor_popularity"] = mean
        activity = _means(scope.reverse_graph, inputs.candidate, _activity_log(scope))
        columns["candidate_neighbor_activity"] = activity
    if scope.timed:
        first = _first_days(scope)
        columns["first_edge_distance_days"] = first[inputs.candidate] - query_mean(first)
    return columns


def _means(graph: Graph, rows: IndexArray, values: FloatArray) -> FloatArray:
    """float32[n]: mean over at most SAMPLED neighbours of each row; NaN where none has a value."""
    out = np.full(len(rows), np.nan, np.float32)
    run_blocks(_mean_of_rows, len(rows), graph.adjacency, values, rows, out)
    return out


@cached_per_snapshot
def _popularity_log(scope: Scope) -> FloatArray:
    """float32[candidates]: ln(1 + edges)."""
    return np.log1p(scope.candidate_degree).astype(np.float32)


@cached_per_snapshot
def _activity_log(scope: Scope) -> FloatArray:
    """float32[queries]: ln(1 + edges)."""
    return np.log1p(scope.graph.degree).astype(np.float32)


@cached_per_snapshot
def _first_days(scope: Scope) -> FloatArray:
    """float32[candidates]: day of the first edge, counted from the first of all; NaN without."""
    reverse = scope.reverse_graph
    first = np.full(len(reverse), np.nan)
    filled = np.flatnonzero(reverse.degree)
    if len(filled):
        first[filled] = np.minimum.reduceat(reverse.first, reverse.indptr[filled])
        first -= np.nanmin(first)
    return (first / MICROSECONDS_PER_DAY).astype(np.float32)


@numba.njit(cache=True, nogil=True)
def _around_query(block, blocks, edges, ranks, values, pairs, as_of, out):  # type: ignore[no-untyped-def]
    indptr, indices, last = edges
    offset, rank = ranks
    codes, size = values
    query, start, candidate = pairs
    share, latest, idle = out
    count, recent = np.zeros(size, np.float32), np.zeros(size, np.float32)
    newest = np.zeros(size, np.int64)
    timed = len(rank) > 0
    for q in range(block, len(query), blocks):
        low, high = np.int64(0), np.int64(0)
        if query[q] >= 0:
            low, high = indptr[query[q]], indptr[query[q] + 1]
        for edge in range(low, high):
            code = codes[indices[edge]]
            if code >= 0:
                count[code] += 1
                if timed:
                    recent[code] += np.float32(rank[offset[q] + edge - low] < _LATEST)
                    newest[code] = max(newest[code], last[edge])
        neighbors = max(high - low, 1)
        for row in range(start[q], start[q + 1]):
            code = codes[candidate[row]]
            if code < 0 or high == low:
                share[row] = latest[row] = idle[row] = np.nan
                continue
            share[row] = count[code] / neighbors
            latest[row] = recent[code] / min(neighbors, _LATEST)
            idle[row] = (
                np.nan if newest[code] == 0 else max(as_of - newest[code], 0) / MICROSECONDS_PER_DAY
            )
        # Clears what this query wrote: a fill of all values would cost each query more.
        for edge in range(low, high):
            code = codes[indices[edge]]
            if code >= 0:
                count[code] = recent[code] = 0
                newest[code] = 0


@numba.njit(cache=True, nogil=True)
def _around_candidate(block, blocks, adjacency, codes, base, pairs, log_ratio):  # type: ignore[no-untyped-def]
    indptr, indices = adjacency
    query, start, candidate = pairs
    for q in range(block, len(query), blocks):
        query_code = codes[query[q]] if query[q] >= 0 else -1
        for row in range(start[q], start[q + 1]):
            low, high = indptr[candidate[row]], indptr[candidate[row] + 1]
            if query_code < 0:
                log_ratio[row] = np.nan
                continue
            step = max(1, (high - low + SAMPLED - 1) // SAMPLED)
            same, sampled = np.float32(0.0), np.float32(0.0)
            # Neighbours ascend, so that an even spread is a sample without a bias or a draw.
            for edge in range(low, high, step):
                code = codes[indices[edge]]
                if code >= 0:
                    sampled += 1
                    same += np.float32(code == query_code)
            smooth = (same + _PRIOR * base[query_code]) / (sampled + _PRIOR)
            log_ratio[row] = np.log(smooth / base[query_code])


@numba.njit(cache=True, nogil=True)
def _mean_of_rows(block, blocks, adjacency, values, rows, out):  # type: ignore[no-untyped-def]
    indptr, indices = adjacency
    for number in range(block, len(rows), blocks):
        if rows[number] < 0:
            continue
        low, high = indptr[rows[number]], indptr[rows[number] + 1]
        step = max(1, (high - low + SAMPLED - 1) // SAMPLED)
        total, count = 0.0, 0
        for edge in range(low, high, step):
            value = values[indices[edge]]
            if not np.isnan(value):
                total += value
                count += 1
        if count:
            out[number] = total / count
