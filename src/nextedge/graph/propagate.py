"""Weighted two-step propagation: scores of a query's row times a sparse matrix.

``score(q, c) = Σ_m a(q, m) · B(m, c)`` over the ragged rows ``a`` of a batch of queries.
Item-to-item scoring (history × similar items), neighbours' items (similar users × their items)
and one step of a walk are all this product; one kernel serves them.
Cost: one multiply-add for every (m, c) entry, plus a partial sort of the columns with a score.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numba
import numpy as np

from nextedge.graph.threads import Scratch, run_blocks, run_lists
from nextedge.storage.arrays import plain
from nextedge.types import Candidates, FloatArray, IndexArray, IntArray

Ragged = tuple[IntArray, IndexArray]
"""Offsets int64[Q + 1] into positions int32[R]."""


@dataclass(frozen=True)
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

    def __len__(self) -> int:
        return len(self.indptr) - 1

    @cached_property
    def arrays(self) -> tuple[IntArray, IndexArray, FloatArray]:
        """The three arrays as kernels take them, read-only."""
        indptr, indices = plain(self.indptr, np.int64), plain(self.indices, np.int32)
        return indptr, indices, plain(self.values, self.values.dtype.type)


def top_products(rows: SparseRows, matrix: SparseRows, n: int, exclude: Ragged) -> Candidates:
    """The n best-scored targets of each row, without the excluded; column ``score``.

    Args:
        rows: Q weighted rows over M middles.
        matrix: M weighted rows over the candidates.
        n: most candidates per query.
        exclude: int32 targets to leave out, Q rows.

    Ties go to the smaller target. Only positive scores count.
    """
    indptr, target, score = run_lists(
        _top_products,
        len(rows),
        n,
        rows.arrays,
        matrix.arrays,
        exclude,
        scratch=_column_scratch(matrix),
    )
    return Candidates(indptr, target, {"score": score})


def pair_products(
    rows: SparseRows, matrix: SparseRows, indptr: IntArray, candidate: IndexArray
) -> FloatArray:
    """float32[R]: the product's score of each given (query, candidate) pair."""
    score = np.zeros(len(candidate), np.float32)
    run_blocks(
        _pair_products,
        len(rows),
        rows.arrays,
        matrix.arrays,
        (indptr, candidate),
        score,
        scratch=_column_scratch(matrix),
    )
    return score


def _column_scratch(matrix: SparseRows) -> tuple[Scratch, Scratch]:
    """The total of every column, and the list of columns that have one."""
    return Scratch(matrix.columns, np.float32), Scratch(matrix.columns + 1, np.int32, zeroed=False)


@numba.njit(cache=True, nogil=True, inline="always")
def _accumulate(q, rows, matrix, total, nonzero):  # type: ignore[no-untyped-def]
    """Add one query's products to ``total``; return how many columns ``nonzero`` lists."""
    a_indptr, a_indices, a_values = rows
    b_indptr, b_indices, b_values = matrix
    count = 0
    for entry in range(a_indptr[q], a_indptr[q + 1]):
        middle, weight = a_indices[entry], a_values[entry]
        for other in range(b_indptr[middle], b_indptr[middle + 1]):
            gain = weight * b_values[other]
            if gain <= 0.0:
                continue  # a total of 0 means that the column is not in the list yet
            target = b_indices[other]
            if total[target] == 0.0:
                nonzero[count] = target
                count += 1
            total[target] += gain
    return count


@numba.njit(cache=True, nogil=True)
def _top_products(block, blocks, rows, matrix, exclude, lists, total, nonzero):  # type: ignore[no-untyped-def]
    x_indptr, x_indices = exclude
    size, target, score = lists
    for q in range(block, len(rows[0]) - 1, blocks):
        count = _accumulate(q, rows, matrix, total, nonzero)
        for entry in range(x_indptr[q], x_indptr[q + 1]):
            if total[x_indices[entry]] != 0.0:
                total[x_indices[entry]] = -1.0  # keeps its column listed once, and never wins
        size[q] = keep_best(total, nonzero, count, target.shape[1], target[q], score[q])
        for position in range(count):
            # The next query of this thread expects scratch of zeros.
            total[nonzero[position]] = 0.0


@numba.njit(cache=True, nogil=True)
def keep_best(total, nonzero, count, n, target, score):  # type: ignore[no-untyped-def]
    """Write the n best positive totals, best first, ties by the smaller target; return how many."""
    column = np.empty(count, np.int32)
    value = np.empty(count, np.float32)
    positive = 0
    for position in range(count):
        if total[nonzero[position]] > 0.0:
            column[positive] = nonzero[position]
            value[positive] = total[nonzero[position]]
            positive += 1
    if positive == 0:
        return 0
    column, value = column[:positive], value[:positive]
    if positive > n:
        threshold = -np.partition(-value, n - 1)[n - 1]
        above = np.sum(value > threshold)
        # Of equal scores the smaller targets stay, as in a full sort.
        ties = np.sort(column[value == threshold])[: n - above]
        best = np.concatenate((column[value > threshold], ties))
    else:
        best = column
    # Ascending, so that the stable sort below puts the smaller of tied targets first.
    best = np.sort(best)
    best_value = np.empty(len(best), np.float32)
    for rank in range(len(best)):
        best_value[rank] = total[best[rank]]
    order = np.argsort(-best_value, kind="mergesort")
    for rank in range(len(order)):
        target[rank] = best[order[rank]]
        score[rank] = best_value[order[rank]]
    return len(order)


@numba.njit(cache=True, nogil=True)
def _pair_products(block, blocks, rows, matrix, pairs, score, total, nonzero):  # type: ignore[no-untyped-def]
    indptr, candidate = pairs
    for q in range(block, len(rows[0]) - 1, blocks):
        count = _accumulate(q, rows, matrix, total, nonzero)
        for row in range(indptr[q], indptr[q + 1]):
            score[row] = total[candidate[row]]
        for position in range(count):
            total[nonzero[position]] = 0.0
