"""Products of three sparse factors for given pairs: longer paths, and averages compared."""

from __future__ import annotations

import numba
import numpy as np

from nextedge.graph.propagate import SparseRows
from nextedge.graph.threads import Scratch, run_blocks
from nextedge.types import FloatArray, IndexArray, IntArray


def pair_path_products(
    rows: SparseRows, matrix: SparseRows, ends: SparseRows, indptr: IntArray, candidate: IndexArray
) -> FloatArray:
    """float32[R]: ``Σ_m Σ_k rows(q, m) · matrix(m, k) · ends(c, k)`` of each (query, candidate).

    Args:
        rows: Q weighted rows over M middles.
        matrix: M weighted rows over K columns.
        ends: one weighted row over the K columns for every possible candidate.
        indptr, candidate: ragged candidates of the Q queries.

    Cost: the entries of ``matrix`` in the rows of a query's middles, plus its candidates' ``ends``.
    """
    score, scratch = np.zeros(len(candidate), np.float32), (Scratch(matrix.columns, np.float32),)
    arguments = rows.arrays, matrix.arrays, ends.arrays, (indptr, candidate), score
    run_blocks(_pair_path_products, len(rows), *arguments, scratch=scratch)
    return score


@numba.njit(cache=True, nogil=True)
def _pair_path_products(block, blocks, rows, matrix, ends, pairs, score, total):  # type: ignore[no-untyped-def]
    row_indptr, middles, weights = rows
    indptr, candidate = pairs
    for q in range(block, len(row_indptr) - 1, blocks):
        if indptr[q] == indptr[q + 1]:
            continue
        for entry in range(row_indptr[q], row_indptr[q + 1]):
            add_row(matrix, middles[entry], weights[entry], total)
        for pair in range(indptr[q], indptr[q + 1]):
            score[pair] = row_dot(ends, candidate[pair], total)
        # Clearing the entries of the query costs less than clearing all columns.
        for entry in range(row_indptr[q], row_indptr[q + 1]):
            clear_row(matrix, middles[entry], total)


@numba.njit(cache=True, nogil=True, inline="always")
def add_row(rows, row, weight, total):  # type: ignore[no-untyped-def]
    """Add a weighted row of ``SparseRows.arrays`` to the total of every column."""
    indptr, indices, values = rows
    for entry in range(indptr[row], indptr[row + 1]):
        total[indices[entry]] += weight * values[entry]


@numba.njit(cache=True, nogil=True, inline="always")
def row_dot(rows, row, total):  # type: ignore[no-untyped-def]
    """The dot product of a row with the totals, float32."""
    indptr, indices, values = rows
    dot = np.float32(0.0)
    for entry in range(indptr[row], indptr[row + 1]):
        dot += total[indices[entry]] * values[entry]
    return dot


@numba.njit(cache=True, nogil=True, inline="always")
def clear_row(rows, row, total):  # type: ignore[no-untyped-def]
    """Set the totals of a row's columns to 0."""
    indptr, indices, _ = rows
    for entry in range(indptr[row], indptr[row + 1]):
        total[indices[entry]] = 0.0
