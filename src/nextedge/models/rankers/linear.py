"""A linear blend of features, fitted listwise: few parameters, hard to overfit.

It is the base on which the trees are boosted, so that a tenant with little data gets at
least a good weighting of its sources. Loss: softmax cross-entropy over each query's
candidates (ListNet, Cao et al., ICML 2007) with an L2 penalty, minimised by L-BFGS.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numba
import numpy as np
import numpy.typing as npt

from nextedge.types import FloatArray, IntArray

_MOST_ROWS = 400_000  # a few dozen weights need no more
_ABSENT_RANK = np.log(5000.0)


@dataclass(frozen=True, eq=False)
class LinearBlend:
    """``score = Σ_f weight_f · (signed_log(x_f) − center_f) / scale_f``.

    Attributes:
        weight, center, scale, missing: float32[F]; ``missing`` stands in for NaN.
    """

    weight: FloatArray
    center: FloatArray
    scale: FloatArray
    missing: FloatArray

    def __call__(self, matrix: FloatArray) -> FloatArray:
        """float32[R] scores."""
        used = np.flatnonzero(self.weight)
        score = np.zeros(len(matrix), np.float32)
        size = _sizes(matrix, used, self.missing)
        np.log(size, out=size)  # NumPy's is vectorised, a compiled loop's is not
        parts = (self.weight, self.center, self.scale, self.missing)
        _add_weighted(matrix, size, used, *(part[used] for part in parts), score)
        return score

    def parts(self, matrix: FloatArray) -> FloatArray:
        """float32[R, F]: what each feature adds to the score."""
        return self._standard(matrix, np.arange(len(self.weight))) * self.weight

    @classmethod
    def single(cls, features: Sequence[str], chosen: str) -> LinearBlend:
        """The order of one feature alone: the ranker that others must beat."""
        count = len(features)
        weight = np.array([float(name == chosen) for name in features], np.float32)
        zeros, ones = np.zeros(count, np.float32), np.ones(count, np.float32)
        return cls(weight, zeros, ones, zeros)

    def _standard(self, matrix: FloatArray, used: IntArray) -> FloatArray:
        """float32[R, U] of the columns in ``used``."""
        columns = matrix[:, used]
        filled = np.where(np.isfinite(columns), columns, self.missing[used])
        standard = (_signed_log(filled) - self.center[used]) / self.scale[used]
        return np.clip(standard, -30.0, 30.0, out=standard)

    @classmethod
    def fit(
        cls,
        matrix: FloatArray,
        label: FloatArray,
        group: IntArray,
        features: Sequence[str],
        penalty: float = 1e-2,  # weights chase single windows with 1e-3 (docs/log.md)
        row_weight: FloatArray | None = None,
    ) -> LinearBlend:
        """Fit on rows grouped by query (``group``: int64[Q] rows of each).

        ``row_weight`` (float32[R]) says how many candidates a row stands for, default 1.
        """
        # Whole queries: the softmax over a part of a list has another denominator.
        rows = int(np.searchsorted(np.cumsum(group), _MOST_ROWS)) + 1
        group = group[:rows]
        size = int(group.sum())
        blend = cls.scaling(matrix[:size], features)
        # The scale of one-sided features drifts as history grows: NDCG@20 on the next window fell
        # to 0.003 (docs/log.md). What they say of popularity the sources say better.
        used = np.flatnonzero([not name.startswith(("query_", "candidate_")) for name in features])
        standard = blend._standard(matrix[:size], used)
        stands_for = np.ones(size, np.float32) if row_weight is None else row_weight[:size]
        weight = np.zeros(len(features), np.float32)
        weight[used] = _fit_listwise(standard, label[:size], group, stands_for, penalty)
        return replace(blend, weight=weight)

    @classmethod
    def scaling(cls, matrix: FloatArray, features: Sequence[str]) -> LinearBlend:
        """How rows are standardised, without weights."""
        missing = np.array(
            [_missing(name, matrix[:, f]) for f, name in enumerate(features)], np.float32
        )
        logs = _signed_log(np.where(np.isfinite(matrix), matrix, missing))
        # float32 sums over so many rows lose digits.
        center, scale = logs.mean(axis=0, dtype=np.float64), logs.std(axis=0, dtype=np.float64)
        # A constant column has no deviation to divide by.
        scale = np.where(scale > 1e-6, scale, 1.0)
        weight = np.zeros(len(features), np.float32)
        return cls(weight, center.astype(np.float32), scale.astype(np.float32), missing)

    @classmethod
    def nothing(cls, features: Sequence[str]) -> LinearBlend:
        """A blend that scores everything 0."""
        zeros, ones = np.zeros(len(features), np.float32), np.ones(len(features), np.float32)
        return cls(zeros, zeros, ones, zeros)

    def standard(self, matrix: FloatArray) -> FloatArray:
        """float32[R, F]: standardised columns."""
        return self._standard(matrix, np.arange(len(self.weight)))

    def save(self, directory: Path) -> None:
        """Write ``blend_….npy`` into an existing folder."""
        for part in fields(self):
            np.save(directory / f"blend_{part.name}.npy", getattr(self, part.name))

    @classmethod
    def load(cls, directory: Path) -> LinearBlend:
        """Read what ``save`` wrote."""
        return cls(*(np.load(directory / f"blend_{part.name}.npy") for part in fields(cls)))


@numba.njit(cache=True, nogil=True)
def _sizes(matrix, used, missing):  # type: ignore[no-untyped-def]
    """float32[R, U]: |value| × 1,000 + 1, whose logarithm is that of ``_signed_log``."""
    size = np.empty((matrix.shape[0], len(used)), np.float32)
    for row in range(matrix.shape[0]):
        for place in range(len(used)):
            value = matrix[row, used[place]]
            value = value if np.isfinite(value) else missing[used[place]]
            size[row, place] = np.abs(value) * np.float32(1e3) + np.float32(1.0)
    return size


@numba.njit(cache=True, nogil=True)
def _add_weighted(matrix, size, used, weight, center, scale, missing, score):  # type: ignore[no-untyped-def]
    """Add the weighted, standardised columns to the scores."""
    # Row by row in one order: a matrix product's rounding depends on how many rows there are.
    for row in range(matrix.shape[0]):
        for place in range(len(used)):
            value = matrix[row, used[place]]
            value = value if np.isfinite(value) else missing[place]
            signed = size[row, place] if value >= 0 else -size[row, place]
            standard = (signed - center[place]) / scale[place]
            score[row] += min(max(standard, np.float32(-30)), np.float32(30)) * weight[place]


def _missing(name: str, values: FloatArray) -> float:
    # A candidate that a source lacks stands behind its list: a mean would lift it.
    if name.endswith("_rank"):
        return float(_ABSENT_RANK)
    if name.endswith("_score"):
        return 0.0
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else 0.0


def _signed_log(values: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """Compress heavy tails."""
    # Probabilities of a walk are tiny: without the factor their logarithms would all be near 0.
    return np.copysign(np.log(np.abs(values) * np.float32(1e3) + np.float32(1.0)), values)


def _fit_listwise(
    standard: FloatArray, label: FloatArray, group: IntArray, stands_for: FloatArray, penalty: float
) -> npt.NDArray[np.float64]:
    from scipy.optimize import minimize

    start = np.concatenate(([0], np.cumsum(group)))[:-1]
    positives = np.add.reduceat((label > 0).astype(np.float32), start)
    share = label / np.repeat(np.maximum(positives, 1), group)
    worth = np.repeat(np.add.reduceat(share, start), group)
    used = np.repeat(positives > 0, group)
    queries = max(int((positives > 0).sum()), 1)

    def loss(weight: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        raw = standard @ weight.astype(np.float32)
        # The exponential of a large score would overflow.
        raw -= np.repeat(np.maximum.reduceat(raw, start), group)
        power = np.exp(raw) * stands_for
        total = np.repeat(np.add.reduceat(power, start), group)
        value = -float((share * (raw - np.log(total)))[used].sum()) / queries
        slope = (
            np.where(used, worth * power / total - share, 0.0).astype(np.float32)
            @ standard
            / queries
        )
        return value + penalty * float(weight @ weight), slope + 2 * penalty * weight

    found = minimize(
        loss, np.zeros(standard.shape[1]), jac=True, method="L-BFGS-B", options={"maxiter": 100}
    )
    return np.asarray(found.x)
