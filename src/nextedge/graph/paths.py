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
    score = np.zeros(len(candidate), np.float32)
    run_blocks(
        _pair_path_products,
        len(rows),
        rows.arrays,
        matrix.arrays,
        ends.arrays,
        (indptr, candidate),
        score,
        scratch=(Scratch(matrix.columns, np.float32),),
    )
    return score


@numba.njit(cache=True, nogil=True)
def _pair_path_products(block, blocks, rows, matrix, ends, pairs, score, total):  # type: ignore[no-untyped-def]
    a_indptr, a_indices, a_values = rows
    b_indptr, b_indices, b_values = matrix
    c_indptr, c_indices, c_values = ends
    indptr, candidate = pairs
    for q in range(block, len(a_indptr) - 1, blocks):
        if indptr[q] == indptr[q + 1]:
            continue
        for entry in range(a_indptr[q], a_indptr[q + 1]):
            middle, weight = a_indices[entry], a_values[entry]
            for other in range(b_indptr[middle], b_indptr[middle + 1]):
                total[b_indices[other]] += weight * b_values[other]
        for row in range(indptr[q], indptr[q + 1]):
            c = candidate[row]
            gain = np.float32(0.0)
            for entry in range(c_indptr[c], c_indptr[c + 1]):
                gain += total[c_indices[entry]] * c_values[entry]
            score[row] = gain
        for entry in range(a_indptr[q], a_indptr[q + 1]):
            middle = a_indices[entry]
            for other in range(b_indptr[middle], b_indptr[middle + 1]):
                total[b_indices[other]] = 0.0
