"""Edges that fade with age, summed by either end: 2^(-age / half-life) of their last record."""

from __future__ import annotations

from collections.abc import Iterator

import numba
import numpy as np
import numpy.typing as npt

from nextedge.data.order import quantile
from nextedge.graph.csr import Graph
from nextedge.graph.scope import Scope, cached_per_snapshot
from nextedge.types import MICROSECONDS_PER_DAY, FloatArray

_ENTRIES = 2_000_000
"""Entries of a graph in one pass of NumPy."""


def faded(graph: Graph, as_of: int, half_life: float) -> Iterator[tuple[int, npt.NDArray]]:
    """(first entry, float64[n]) of the entries' 2^(-age / half_life), in parts."""
    for begin in range(0, graph.edges, _ENTRIES):
        # An edge later than ``as_of`` must not weigh more than 1.
        age = np.maximum(as_of - graph.last[begin : begin + _ENTRIES], 0)
        yield begin, np.exp2(-age / half_life)


def faded_degrees(
    graph: Graph, as_of: int, half_life: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """float64[N] and float64[M]: faded edges of each source and of each target."""
    by_source, by_target = np.zeros(len(graph)), np.zeros(graph.targets)
    for begin, value in faded(graph, as_of, half_life):
        _add(graph.indptr, graph.indices, begin, value, by_source, by_target)
    return by_source, by_target


def faded_weights(
    graph: Graph, as_of: int, half_life: float, of_source: npt.NDArray[np.float64]
) -> FloatArray:
    """float32[E]: each entry faded, times the factor ``of_source`` (float64[N]) of its source."""
    weights = np.empty(graph.edges, np.float32)
    for begin, value in faded(graph, as_of, half_life):
        _multiply(graph.indptr, begin, value.astype(np.float32), of_source, weights)
    return weights


@numba.njit(cache=True, nogil=True)
def _multiply(indptr, begin, value, of_source, weights):  # type: ignore[no-untyped-def]
    row = np.searchsorted(indptr, begin, side="right") - 1
    for entry in range(len(value)):
        while begin + entry >= indptr[row + 1]:
            row += 1
        weights[begin + entry] = value[entry] * of_source[row]


@numba.njit(cache=True, nogil=True)
def _add(indptr, indices, begin, value, by_source, by_target):  # type: ignore[no-untyped-def]
    row = np.searchsorted(indptr, begin, side="right") - 1
    for entry in range(len(value)):
        while begin + entry >= indptr[row + 1]:
            row += 1
        by_source[row] += value[entry]
        by_target[indices[begin + entry]] += value[entry]


def rank_from_latest(graph: Graph) -> FloatArray:
    """float32[E]: 0 for each query's latest edge, 1 for the one before, …"""
    rank = np.empty(graph.edges, np.float32)
    _rank_in_rows(graph.indptr, graph.last, rank)
    return rank


@numba.njit(cache=True, nogil=True)
def _rank_in_rows(indptr, last, rank):  # type: ignore[no-untyped-def]
    for row in range(len(indptr) - 1):
        begin, end = indptr[row], indptr[row + 1]
        if end - begin == 1:
            rank[begin] = 0.0
        elif end > begin:  # of equal times the lower position is the later: the sort is stable
            order = np.argsort(-last[begin:end], kind="mergesort")
            for number in range(end - begin):
                rank[begin + order[number]] = number


@cached_per_snapshot
def latest_first(scope: Scope) -> FloatArray:
    """float32[E]: 0 for each query's latest edge, 1 for the one before, …"""
    return rank_from_latest(scope.graph)


@cached_per_snapshot
def history_span(scope: Scope) -> float:
    """Microseconds from the first decile of edge times to the snapshot: a scale for decay."""
    first = scope.graph.first
    start = quantile(first, 0.1) if len(first) else 0.0
    # At least a day: edges of one moment would make the scale 0.
    return max(scope.snapshot.as_of - start, float(MICROSECONDS_PER_DAY))
