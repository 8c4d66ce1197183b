"""Many small ridge systems at once by conjugate gradients: one BLAS product for all rows.

Row r solves ``(G + Σ_{i in row} v_i v_iᵀ + ridge_r I) x = Σ_{i in row} v_i``. The d × d matrix G is
common, so a step of a whole block of rows is one matrix product, and the part of a row costs 4 d
flops an edge: no d × d system is ever formed (Takács, Pilászy, Tikk: "Applications of the Conjugate
Gradient Method for Implicit Feedback Collaborative Filtering", RecSys 2011).
"""

from __future__ import annotations

import numba
import numpy as np

from nextedge.graph.threads import run_blocks
from nextedge.types import FloatArray, IndexArray, IntArray

# Bounds the temporaries: a block has some arrays of this many float32 values, 4 MiB each.
BLOCK_VALUES = 1 << 20


def least_squares_rows(
    rows: tuple[IntArray, IndexArray],
    fixed: FloatArray,
    gramian: FloatArray,
    ridge: FloatArray,
    start: FloatArray,
    *,
    steps: int,
) -> FloatArray:
    """float32[Q, d]: the solutions, improved from ``start`` by ``steps`` steps.

    Args:
        rows: ragged positions int32 in ``fixed``, Q rows.
        fixed: float32[N, d].
        gramian: float32[d, d], the common matrix G, symmetric and not negative.
        ridge: float32[Q], above 0.
        start: float32[Q, d], the first guess; stays as it is.

    The solution of a row without entries is 0.
    """
    indptr, indices = rows
    out = np.empty_like(start)
    block = max(1, BLOCK_VALUES // max(1, start.shape[1]))
    for begin in range(0, len(start), block):
        part = slice(begin, min(begin + block, len(start)))
        block_rows = indptr[begin : part.stop + 1], indices
        out[part] = _solve_block(block_rows, fixed, gramian, ridge[part], start[part], steps)
    # A few steps leave a rest of ``start`` in rows whose exact solution is 0.
    out[np.diff(indptr) == 0] = 0.0
    return out


def _solve_block(
    rows: tuple[IntArray, IndexArray],
    fixed: FloatArray,
    gramian: FloatArray,
    ridge: FloatArray,
    start: FloatArray,
    steps: int,
) -> FloatArray:
    """Conjugate gradients preconditioned by the diagonal; each row has its own step sizes."""
    x = start.copy()
    residual, scale = np.empty_like(x), np.empty_like(x)
    diagonal = np.ascontiguousarray(np.diag(gramian))
    run_blocks(_begin, len(x), *rows, fixed, diagonal, ridge, x, x @ gramian, residual, scale)
    direction = residual * scale
    energy = np.einsum("ij,ij->i", residual, direction)
    for _ in range(steps):
        product = direction @ gramian
        state = x, residual, direction, energy
        run_blocks(_advance, len(x), *rows, fixed, ridge, product, scale, *state)
    return x


# Sums in one fixed order would not be vectorised.
@numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _begin(block, blocks, indptr, indices, fixed, diagonal, ridge, x, product, residual, scale):  # type: ignore[no-untyped-def]
    """Residual of the first guess and the inverse diagonal of the system of each row."""
    width = fixed.shape[1]
    for row in range(block, len(x), blocks):
        for axis in range(width):
            residual[row, axis] = -product[row, axis] - ridge[row] * x[row, axis]
            scale[row, axis] = diagonal[axis] + ridge[row]
        for entry in range(indptr[row], indptr[row + 1]):
            vector = fixed[indices[entry]]
            # A plain 0.0 would make the sum float64, at half the vector width.
            dot = np.float32(0.0)
            for axis in range(width):
                dot += vector[axis] * x[row, axis]
            for axis in range(width):
                residual[row, axis] += (np.float32(1.0) - dot) * vector[axis]
                scale[row, axis] += vector[axis] * vector[axis]
        for axis in range(width):
            scale[row, axis] = np.float32(1.0) / scale[row, axis]


@numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _advance(  # type: ignore[no-untyped-def]
    block, blocks, indptr, indices, fixed, ridge, product, scale, x, residual, direction, energy
):
    """One step of each row; ``product`` is direction · G and becomes direction · A."""
    width = fixed.shape[1]
    for row in range(block, len(x), blocks):
        # A solved row has no direction left: its step length would be 0 / 0.
        if energy[row] <= 1e-30:
            continue
        for axis in range(width):
            product[row, axis] += ridge[row] * direction[row, axis]
        for entry in range(indptr[row], indptr[row + 1]):
            vector = fixed[indices[entry]]
            dot = np.float32(0.0)
            for axis in range(width):
                dot += vector[axis] * direction[row, axis]
            for axis in range(width):
                product[row, axis] += dot * vector[axis]
        curve = np.float32(0.0)
        for axis in range(width):
            curve += direction[row, axis] * product[row, axis]
        length = energy[row] / curve
        new_energy = np.float32(0.0)
        for axis in range(width):
            x[row, axis] += length * direction[row, axis]
            residual[row, axis] -= length * product[row, axis]
            new_energy += residual[row, axis] * residual[row, axis] * scale[row, axis]
        ratio = new_energy / energy[row]
        energy[row] = new_energy
        for axis in range(width):
            direction[row, axis] = (
                residual[row, axis] * scale[row, axis] + ratio * direction[row, axis]
            )
