"""Many small ridge systems at once by conjugate gradients: BLAS for what all rows share.

Row r asks for x in ``(G + Σ_{i in row} v_i v_iᵀ + ridge_r I) x = Σ_{i in row} v_i``. The d × d
matrix G is common, so a step of a whole block of rows is one matrix product, and the row's own
part costs 4 d flops an edge: no d × d system is ever formed (Takács, Pilászy, Tikk 2011).
"""

from __future__ import annotations

import numba
import numpy as np

from nextedge.graph.threads import run_blocks
from nextedge.types import FloatArray, IndexArray, IntArray

BLOCK_VALUES = 1 << 20


def least_squares_rows(
    indptr: IntArray,
    indices: IndexArray,
    fixed: FloatArray,
    gramian: FloatArray,
    ridge: FloatArray,
    start: FloatArray,
    *,
    steps: int,
    tolerance: float = 0.0,
) -> FloatArray:
    """float32[Q, d]: the solutions, improved from ``start`` by at most ``steps`` steps.

    Args:
        indptr, indices: ragged int32 rows over the vectors of ``fixed``, Q rows.
        fixed: float32[N, d].
        gramian: float32[d, d], the common matrix G, symmetric and not negative.
        ridge: float32[Q], above 0.
        start: float32[Q, d], the first guess; left as it is.
        tolerance: stop a block where every residual's norm is below this share of its
            right-hand side's.

    Rows without entries are 0, which solves their system exactly.
    """
    out = np.empty_like(start)
    rows, width = start.shape
    step = max(1, BLOCK_VALUES // max(1, width))
    for begin in range(0, rows, step):
        part = slice(begin, min(begin + step, rows))
        out[part] = _solve_block(
            indptr[begin : part.stop + 1],
            indices,
            fixed,
            gramian,
            ridge[part],
            start[part],
            steps,
            tolerance,
        )
    out[np.diff(indptr) == 0] = 0.0
    return out


def _solve_block(
    indptr: IntArray,
    indices: IndexArray,
    fixed: FloatArray,
    gramian: FloatArray,
    ridge: FloatArray,
    start: FloatArray,
    steps: int,
    tolerance: float,
) -> FloatArray:
    """Conjugate gradients preconditioned by the diagonal, every row with its own step sizes."""
    x = start.copy()
    product = x @ gramian
    residual = np.empty_like(x)
    scale = np.empty_like(x)
    squared = np.zeros(len(x), np.float32)
    common = np.ascontiguousarray(np.diag(gramian))
    run_blocks(
        _begin, len(x), indptr, indices, fixed, common, ridge, x, product, residual, scale, squared
    )
    direction = residual * scale
    energy = np.einsum("ij,ij->i", residual, direction)
    for _ in range(steps):
        if tolerance and np.all(
            np.einsum("ij,ij->i", residual, residual) <= tolerance**2 * squared
        ):
            break
        product = direction @ gramian
        run_blocks(
            _advance,
            len(x),
            indptr,
            indices,
            fixed,
            ridge,
            product,
            scale,
            x,
            residual,
            direction,
            energy,
        )
    return x


@numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _begin(  # type: ignore[no-untyped-def]
    block, blocks, indptr, indices, fixed, common, ridge, x, product, residual, scale, squared
):
    """Residual of the first guess and the inverse diagonal of each row's system."""
    width = fixed.shape[1]
    goal = np.empty(width, np.float32)
    for row in range(block, len(x), blocks):
        goal[:] = 0.0
        for axis in range(width):
            residual[row, axis] = -product[row, axis] - ridge[row] * x[row, axis]
            scale[row, axis] = common[axis] + ridge[row]
        for place in range(indptr[row], indptr[row + 1]):
            vector = fixed[indices[place]]
            dot = np.float32(0.0)
            for axis in range(width):
                dot += vector[axis] * x[row, axis]
            for axis in range(width):
                goal[axis] += vector[axis]
                residual[row, axis] += (np.float32(1.0) - dot) * vector[axis]
                scale[row, axis] += vector[axis] * vector[axis]
        for axis in range(width):
            squared[row] += goal[axis] * goal[axis]
            scale[row, axis] = np.float32(1.0) / scale[row, axis]


@numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _advance(  # type: ignore[no-untyped-def]
    block, blocks, indptr, indices, fixed, ridge, product, scale, x, residual, direction, energy
):
    """One step of each row; ``product`` holds direction · G and becomes direction · A."""
    width = fixed.shape[1]
    for row in range(block, len(x), blocks):
        if energy[row] <= 1e-30:
            continue
        for axis in range(width):
            product[row, axis] += ridge[row] * direction[row, axis]
        for place in range(indptr[row], indptr[row + 1]):
            vector = fixed[indices[place]]
            dot = np.float32(0.0)
            for axis in range(width):
                dot += vector[axis] * direction[row, axis]
            for axis in range(width):
                product[row, axis] += dot * vector[axis]
        curve = np.float32(0.0)
        for axis in range(width):
            curve += direction[row, axis] * product[row, axis]
        length = energy[row] / curve
        fresh = np.float32(0.0)
        for axis in range(width):
            x[row, axis] += length * direction[row, axis]
            residual[row, axis] -= length * product[row, axis]
            fresh += residual[row, axis] * residual[row, axis] * scale[row, axis]
        keep = fresh / energy[row]
        energy[row] = fresh
        for axis in range(width):
            direction[row, axis] = (
                residual[row, axis] * scale[row, axis] + keep * direction[row, axis]
            )
