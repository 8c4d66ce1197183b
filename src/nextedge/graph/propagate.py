"""Weighted two-step propagation: scores of a query's row times a sparse matrix.

``score(q, c) = Σ_m a(q, m) · B(m, c)`` over the ragged rows ``a`` of a batch of queries.
Item-to-item scoring (history × similar items), neighbours' items (similar users × their
items) and one step of a walk are all this product; one kernel serves them.
Cost: one multiply-add per (m, c) entry met, plus a partial sort of what was touched.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np

from nextedge.graph.threads import Scratch, run_blocks
from nextedge.types import Candidates, FloatArray, IndexArray, IntArray


@dataclass(frozen=True, slots=True)
class SparseRows:
    """Weighted ragged rows over ``columns`` targets.

    Attributes:
        indptr: int64[rows + 1].
        indices: int32[entries].
        values: float32[entries], not negative; zeros add nothing.
        columns: number of possible targets.
    """

    indptr: IntArray
    indices: IndexArray
    values: FloatArray
    columns: int


def top_products(
    rows: SparseRows, matrix: SparseRows, n: int, exclude: tuple[IntArray, IndexArray]
) -> Candidates:
    """The n best-scored targets of each row, without the excluded; column ``score``.

    Args:
        rows: Q weighted rows over M middles.
        matrix: M weighted rows over the candidates.
        n: most candidates per query.
        exclude: ragged int32 targets to leave out, Q rows.

    Ties go to the smaller target. Only positive scores are given.
    """
    queries = len(rows.indptr) - 1
    size = np.zeros(queries, np.int64)
    target = np.empty((queries, n), np.int32)
    score = np.empty((queries, n), np.float32)
    run_blocks(
        _top_products,
        queries,
        rows.indptr,
        rows.indices,
        rows.values,
        matrix.indptr,
        matrix.indices,
        matrix.values,
        *exclude,
        size,
        target,
        score,
        scratch=_room(matrix),
    )
    filled = np.arange(n)[None, :] < size[:, None]
    indptr = np.concatenate(([0], np.cumsum(size)))
    return Candidates(indptr, target[filled], {"score": score[filled]})


def pair_products(
    rows: SparseRows, matrix: SparseRows, indptr: IntArray, candidate: IndexArray
) -> FloatArray:
    """float32[R]: the product's score of each given (query, candidate) pair."""
    score = np.zeros(len(candidate), np.float32)
    run_blocks(
        _pair_products,
        len(rows.indptr) - 1,
        rows.indptr,
        rows.indices,
        rows.values,
        matrix.indptr,
        matrix.indices,
        matrix.values,
        indptr,
        candidate,
        score,
        scratch=_room(matrix),
    )
    return score


def _room(matrix: SparseRows) -> tuple[Scratch, Scratch]:
    """For the total of every column, and for the columns that were touched."""
    return Scratch(matrix.columns, np.float32), Scratch(matrix.columns + 1, np.int32, zeroed=False)


@numba.njit(cache=True, nogil=True, inline="always")
def _accumulate(q, a_indptr, a_indices, a_values, b_indptr, b_indices, b_values, total, touched):  # type: ignore[no-untyped-def]
    """Add one query's products to ``total``; return how many targets were touched."""
    count = 0
    for place in range(a_indptr[q], a_indptr[q + 1]):
        middle, weight = a_indices[place], a_values[place]
        for entry in range(b_indptr[middle], b_indptr[middle + 1]):
            gain = weight * b_values[entry]
            if gain <= 0.0:
                continue  # a total is 0 only until it is first touched
            target = b_indices[entry]
            if total[target] == 0.0:
                touched[count] = target
                count += 1
            total[target] += gain
    return count


@numba.njit(cache=True, nogil=True)
def _top_products(  # type: ignore[no-untyped-def]
    block,
    blocks,
    a_indptr,
    a_indices,
    a_values,
    b_indptr,
    b_indices,
    b_values,
    x_indptr,
    x_indices,
    size,
    target,
    score,
    total,
    touched,
):
    queries = len(a_indptr) - 1
    n = target.shape[1]
    for q in range(block, queries, blocks):
        count = _accumulate(
            q, a_indptr, a_indices, a_values, b_indptr, b_indices, b_values, total, touched
        )
        for place in range(x_indptr[q], x_indptr[q + 1]):
            if total[x_indices[place]] != 0.0:
                total[x_indices[place]] = -1.0  # touched stays unique, and is never kept
        size[q] = keep_best(total, touched, count, n, target[q], score[q])
        for place in range(count):
            total[touched[place]] = 0.0


@numba.njit(cache=True, nogil=True)
def keep_best(total, touched, count, n, target, score):  # type: ignore[no-untyped-def]
    """Write the n best positive totals, best first, ties by the smaller target; return how many."""
    kept = np.empty(count, np.int32)
    value = np.empty(count, np.float32)
    positive = 0
    for place in range(count):
        if total[touched[place]] > 0.0:
            kept[positive] = touched[place]
            value[positive] = total[touched[place]]
            positive += 1
    if positive == 0:
        return 0
    kept, value = kept[:positive], value[:positive]
    if positive > n:
        threshold = -np.partition(-value, n - 1)[n - 1]
        above = np.sum(value > threshold)
        ties = np.sort(kept[value == threshold])[: n - above]
        best = np.concatenate((kept[value > threshold], ties))
    else:
        best = kept
    best = np.sort(best)
    best_value = np.empty(len(best), np.float32)
    for place in range(len(best)):
        best_value[place] = total[best[place]]
    order = np.argsort(-best_value, kind="mergesort")
    for place in range(len(order)):
        target[place] = best[order[place]]
        score[place] = best_value[order[place]]
    return len(order)


@numba.njit(cache=True, nogil=True)
def _pair_products(  # type: ignore[no-untyped-def]
    block,
    blocks,
    a_indptr,
    a_indices,
    a_values,
    b_indptr,
    b_indices,
    b_values,
    indptr,
    candidate,
    score,
    total,
    touched,
):
    queries = len(a_indptr) - 1
    for q in range(block, queries, blocks):
        count = _accumulate(
            q, a_indptr, a_indices, a_values, b_indptr, b_indices, b_values, total, touched
        )
        for row in range(indptr[q], indptr[q + 1]):
            score[row] = total[candidate[row]]
        for place in range(count):
            total[touched[place]] = 0.0
