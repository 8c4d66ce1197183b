"""Ridge regression of every candidate on the few candidates near it.

Column j solves ``(G_SS + λI) b = C_Sj`` where S are the m candidates near j: N systems of m
unknowns, gathered from sparse G and C and solved in batches. O(N m³) time, O(N m) memory.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numba
import numpy as np

from nextedge.cores import thread_count
from nextedge.graph.propagate import SparseRows
from nextedge.models.artifact import Arrays, similar_arrays
from nextedge.types import FloatArray

if TYPE_CHECKING:
    from scipy import sparse

BLOCK_VALUES = 1 << 23
"""Values of the small systems in a batch of a thread: 32 MiB."""


def local_ridge(
    gram: sparse.csr_matrix,
    goal: sparse.csr_matrix,
    near: SparseRows,
    penalty: float,
    progress: Callable[[int, int], None],
) -> FloatArray:
    """float32[entries of near]: the weights of each candidate's neighbours.

    Args:
        gram: N × N, symmetric and not negative: G.
        goal: N × N, row j is the column C_ij of the targets of j.
        near: N rows, the candidates that each candidate is regressed on.
        penalty: λ, above 0.
    """
    from threadpoolctl import threadpool_limits

    values = np.zeros(len(near.indices), np.float32)
    width = max(1, int(np.diff(near.indptr).max(initial=1)))
    step = max(1, BLOCK_VALUES // width**2)
    starts = range(0, near.columns, step)

    def solve(start: int) -> None:
        stop = min(start + step, near.columns)
        system = np.zeros((stop - start, width, width), np.float32)
        wanted = np.zeros((stop - start, width, 1), np.float32)
        sparse_rows = _parts(gram), _parts(goal), (near.indptr, near.indices)
        _gather_systems(start, *sparse_rows, np.float32(penalty), system, wanted)
        weights = np.linalg.solve(system, wanted)[:, :, 0]
        size = np.diff(near.indptr[start : stop + 1])
        filled = np.arange(width)[None, :] < size[:, None]
        values[near.indptr[start] : near.indptr[stop]] = weights[filled]

    # Each system is small: threads of the linear algebra library would only wait for each other.
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(thread_count()) as pool:
        for done, _ in enumerate(pool.map(solve, starts)):
            progress(done + 1, len(starts))
    return values


def by_history(near: SparseRows, values: FloatArray) -> Arrays:
    """An artifact's arrays: the weights of each candidate's neighbours as rows of the neighbours."""
    from scipy import sparse

    by_column = sparse.csr_matrix((values, near.indices, near.indptr), (near.columns,) * 2)
    weights = by_column.T.tocsr()
    # An entry of weight 0 adds nothing to a score and takes room in the release.
    weights.eliminate_zeros()
    return similar_arrays(*_parts(weights))


def _parts(matrix: sparse.csr_matrix) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return matrix.indptr, matrix.indices, matrix.data


@numba.njit(cache=True, nogil=True)
def _gather_systems(start, gram, goal_rows, near_rows, penalty, system, goal):  # type: ignore[no-untyped-def]
    g_indptr, g_indices, g_data = gram
    c_indptr, c_indices, c_data = goal_rows
    indptr, near = near_rows
    # The position of each candidate in the system at hand: no search in sorted rows.
    slot = np.full(len(indptr), -1, np.int32)
    for row in range(len(system)):
        low, high = indptr[start + row], indptr[start + row + 1]
        for entry in range(low, high):
            slot[near[entry]] = entry - low
        for entry in range(low, high):
            other = near[entry]
            for g in range(g_indptr[other], g_indptr[other + 1]):
                column = slot[g_indices[g]]
                if column >= 0:
                    system[row, entry - low, column] = g_data[g]
            system[row, entry - low, entry - low] += penalty
        for c in range(c_indptr[start + row], c_indptr[start + row + 1]):
            column = slot[c_indices[c]]
            if column >= 0:
                goal[row, column, 0] = c_data[c]
        # The rest of a smaller system is the identity: all systems of a batch have one size.
        for unused in range(high - low, system.shape[1]):
            system[row, unused, unused] = 1.0
        for entry in range(low, high):
            slot[near[entry]] = -1
