"""Ridge regression of every candidate on a small neighbourhood of its own.

Column j asks for b in ``(G_SS + λI) b = C_Sj`` where S are the m candidates near j: N systems of
m unknowns, gathered from sparse G and C and solved in batches. O(N m³) time, O(N m) memory.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
from scipy import sparse
from threadpoolctl import threadpool_limits

from nextedge.cores import thread_count
from nextedge.graph.propagate import SparseRows
from nextedge.types import FloatArray

BLOCK_VALUES = 1 << 23
"""Values of the small systems that a thread holds at once: 32 MiB."""


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
        goal: N × N, row j holds C_ij for all i (the column of C that j is to be found from).
        near: N rows, whom each candidate is regressed on.
        penalty: λ, above 0.
    """
    values = np.zeros(len(near.indices), np.float32)
    width = max(1, int(np.diff(near.indptr).max(initial=1)))
    step = max(1, BLOCK_VALUES // width**2)
    starts = range(0, near.columns, step)

    def solve(start: int) -> None:
        stop = min(start + step, near.columns)
        system = np.zeros((stop - start, width, width), np.float32)
        wanted = np.zeros((stop - start, width, 1), np.float32)
        _gather_systems(
            start,
            gram.indptr,
            gram.indices,
            gram.data,
            goal.indptr,
            goal.indices,
            goal.data,
            near.indptr,
            near.indices,
            np.float32(penalty),
            system,
            wanted,
        )
        weights = np.linalg.solve(system, wanted)[:, :, 0]
        size = np.diff(near.indptr[start : stop + 1])
        filled = np.arange(width)[None, :] < size[:, None]
        values[near.indptr[start] : near.indptr[stop]] = weights[filled]

    # Each system is small: a thread of ours a batch, and none of the linear algebra's own.
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(thread_count()) as pool:
        for done, _ in enumerate(pool.map(solve, starts)):
            progress(done + 1, len(starts))
    return values


def by_history(near: SparseRows, values: FloatArray) -> dict[str, np.ndarray]:
    """Weights of each candidate's neighbours as rows of the neighbours: an artifact's arrays."""
    by_column = sparse.csr_matrix((values, near.indices, near.indptr), (near.columns,) * 2)
    weights = by_column.T.tocsr()
    weights.eliminate_zeros()
    return {
        "similar_indptr": weights.indptr.astype(np.int64),
        "similar_indices": weights.indices.astype(np.int32),
        "similar_values": weights.data.astype(np.float32),
    }


@numba.njit(cache=True, nogil=True)
def _gather_systems(  # type: ignore[no-untyped-def]
    start,
    g_indptr,
    g_indices,
    g_data,
    c_indptr,
    c_indices,
    c_data,
    indptr,
    near,
    penalty,
    system,
    goal,
):
    slot = np.full(len(indptr), -1, np.int32)
    for row in range(len(system)):
        low, high = indptr[start + row], indptr[start + row + 1]
        for place in range(low, high):
            slot[near[place]] = place - low
        for place in range(low, high):
            other = near[place]
            for entry in range(g_indptr[other], g_indptr[other + 1]):
                at = slot[g_indices[entry]]
                if at >= 0:
                    system[row, place - low, at] = g_data[entry]
            system[row, place - low, place - low] += penalty
        for entry in range(c_indptr[start + row], c_indptr[start + row + 1]):
            at = slot[c_indices[entry]]
            if at >= 0:
                goal[row, at, 0] = c_data[entry]
        for place in range(high - low, system.shape[1]):
            system[row, place, place] = 1.0
        for place in range(low, high):
            slot[near[place]] = -1
