"""Ragged lists by query: checks, slices and look-ups, without a Python loop over queries.

A ragged list is ``indptr int64[Q+1]`` with ``values int32[R]``; the values of query q are
``values[indptr[q]:indptr[q + 1]]``. Axes: Q queries, K ranks, R candidates, P positives,
N catalogue, D embedding dimensions, M columns, B resamples.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from nextedge.errors import InputError

IntArray = npt.NDArray[np.integer[Any]]
FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

BLOCK_VALUES = 4_000_000
"""Values in a block of queries at most: bounds the memory of every pass."""


def check_ragged(name: str, indptr: IntArray, values: IntArray) -> None:
    """Raise InputError unless ``indptr`` cuts ``values`` (ids from 0) into slices."""
    if indptr.ndim != 1 or values.ndim != 1 or len(indptr) == 0:
        raise InputError(
            f"{name}: indptr has shape {indptr.shape} and ids have shape {values.shape}; "
            "expected two flat arrays, indptr with one entry more than there are queries"
        )
    if indptr[0] != 0 or indptr[-1] != len(values) or np.any(np.diff(indptr) < 0):
        raise InputError(
            f"{name}: indptr must rise from 0 to the number of ids, {len(values)}; "
            f"it starts at {indptr[0]} and ends at {indptr[-1]}"
        )
    if len(values) and values.min() < 0:
        raise InputError(f"{name}: id {values.min()} is negative; leave padding out of the lists")


def check_same_queries(indptr: IntArray, positive_indptr: IntArray) -> None:
    """Raise InputError unless both ragged lists have the same number of queries."""
    if len(indptr) != len(positive_indptr):
        raise InputError(
            f"candidates are of {len(indptr) - 1} queries and positives of "
            f"{len(positive_indptr) - 1}; give every query a slice in both, empty if need be"
        )


def check_k(k: int) -> None:
    """Raise InputError unless ``k`` is at least 1."""
    if k < 1:
        raise InputError(f"k is {k}; expected a list length of at least 1")


def row_of(indptr: IntArray) -> npt.NDArray[np.int64]:
    """Return the query of every value, int64[R]."""
    return np.repeat(np.arange(len(indptr) - 1, dtype=np.int64), np.diff(indptr))


def cut(
    indptr: IntArray, values: IntArray, start: int, stop: int
) -> tuple[npt.NDArray[np.int64], IntArray]:
    """Return the ragged list of queries ``start`` to ``stop`` (a view of the values)."""
    part = indptr[start : stop + 1].astype(np.int64)
    return part - part[0], values[part[0] : part[-1]]


def top_k(indptr: IntArray, values: IntArray, k: int) -> tuple[npt.NDArray[np.int64], IntArray]:
    """Return the ragged list of the first ``k`` values of every query."""
    length_Q = np.minimum(np.diff(indptr), k)
    cut_indptr = np.zeros(len(indptr), dtype=np.int64)
    np.cumsum(length_Q, out=cut_indptr[1:])
    if cut_indptr[-1] == len(values):  # no list is longer: saves a copy
        return cut_indptr, values
    shift_Q = indptr[:-1] - cut_indptr[:-1]
    return cut_indptr, values[np.arange(cut_indptr[-1]) + np.repeat(shift_Q, length_Q)]


def query_blocks(indptr: IntArray, limit: int = BLOCK_VALUES) -> Iterator[tuple[int, int]]:
    """Yield consecutive (start, stop) of queries with at most ``limit`` values together.

    A query with more values is a block of its own.
    """
    start, queries = 0, len(indptr) - 1
    while start < queries:
        last = int(np.searchsorted(indptr, int(indptr[start]) + limit, side="right")) - 1
        # At least one query: one beyond the limit would otherwise never be passed.
        stop = min(max(last, start + 1), queries)
        yield start, stop
        start = stop


def locate(
    indptr: IntArray, candidate: IntArray, positive_indptr: IntArray, positive: IntArray
) -> npt.NDArray[np.int64]:
    """Return the index of each candidate among its query's positives, or -1: int64[R].

    Raises InputError when positives do not rise inside a query, or when a query has the same
    candidate twice (it would count as two hits).
    """
    position_R = np.full(len(candidate), -1, dtype=np.int64)
    if not len(positive) or not len(candidate):
        return position_R
    width = int(max(candidate.max(), positive.max())) + 1
    # A pair as one number, so that one search serves all queries.
    positive_key_P = row_of(positive_indptr) * width + positive
    if np.any(np.diff(positive_key_P) <= 0):
        raise InputError("positives must be distinct and ascending inside each query's slice")
    candidate_key_R = row_of(indptr) * width + candidate
    index_R = np.searchsorted(positive_key_P, candidate_key_R)
    # Past the end any index will do: the key there is another one.
    index_R[index_R == len(positive)] = 0
    hit_R = positive_key_P[index_R] == candidate_key_R
    position_R[hit_R] = index_R[hit_R]
    if np.bincount(position_R[hit_R], minlength=1).max() > 1:  # max refuses an empty array
        raise InputError("a query's candidates name the same id twice; each must stand once")
    return position_R
