"""Dot products of pairs of sparse rows."""

from __future__ import annotations

import numba
import numpy as np

from nextedge.graph.propagate import SparseRows
from nextedge.graph.threads import run_blocks
from nextedge.types import FloatArray, IndexArray


def pair_dots(rows: SparseRows, left: IndexArray, right: IndexArray) -> FloatArray:
    """float32[R]: dot product of rows ``left[i]`` and ``right[i]``; indices must ascend."""
    out = np.zeros(len(left), np.float32)
    run_blocks(_pair_dots, len(left), rows.indptr, rows.indices, rows.values, left, right, out)
    return out


@numba.njit(cache=True, nogil=True)
def _pair_dots(block, blocks, indptr, indices, values, left, right, out):  # type: ignore[no-untyped-def]
    share = (len(left) + blocks - 1) // blocks
    for pair in range(block * share, min((block + 1) * share, len(left))):
        i, i_end = indptr[left[pair]], indptr[left[pair] + 1]
        j, j_end = indptr[right[pair]], indptr[right[pair] + 1]
        total = np.float32(0.0)
        while i < i_end and j < j_end:
            if indices[i] == indices[j]:
                total += values[i] * values[j]
                i += 1
                j += 1
            elif indices[i] < indices[j]:
                i += 1
            else:
                j += 1
        out[pair] = total
