"""Bootstrap intervals over queries (Efron, 1979), all columns in one pass of bounded memory.

Queries are drawn with replacement; every statistic here is a ratio of two sums over queries
(a mean is a sum over a count), so one matrix product of draw counts by per-query columns
gives all resampled statistics, and systems that are compared share their draws.

Beyond 16,384 queries these are first dealt at random into that many groups of equal size
(to one), and groups are drawn instead. Groups dealt at random are exchangeable, so the
interval estimates the same variance, itself known to √(2 / 16,384), about one per cent.

Axes: Q queries, G groups, M columns, B resamples.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nextedge.errors import InputError
from nextedge.evaluation._ragged import BLOCK_VALUES, FloatArray

GROUPS = 16_384
NOT_A_NUMBER = float("nan")


@dataclass(frozen=True, slots=True)
class Interval:
    """A measured mean and the ends of its interval; NaN where nothing was measured."""

    mean: float
    low: float
    high: float


UNKNOWN = Interval(NOT_A_NUMBER, NOT_A_NUMBER, NOT_A_NUMBER)


@dataclass(frozen=True, slots=True)
class BootstrapConfig:
    """How intervals are made: the number of resamples, the seed, the level covered."""

    resamples: int = 1000
    seed: int = 0
    level: float = 0.95

    def __post_init__(self) -> None:
        if self.resamples < 1:
            raise InputError(f"resamples is {self.resamples}; expected at least 1")
        if not 0 < self.level < 1:
            raise InputError(f"level is {self.level}; expected a share between 0 and 1, as 0.95")


DEFAULT_BOOTSTRAP = BootstrapConfig()


@dataclass(frozen=True, slots=True)
class PairedInterval:
    """System a against system b on the same queries: mean a − mean b, and mean a / mean b."""

    difference: Interval
    ratio: Interval


def bootstrap_interval(
    values: npt.ArrayLike, *, resamples: int = 1000, seed: int = 0, level: float = 0.95
) -> Interval:
    """Return the mean of ``values float[Q]`` and its percentile interval; NaN is left out.

    Same values, same seed: same interval. Nothing to average gives NaN.

    >>> interval = bootstrap_interval([0.0, 1.0, 1.0, 0.0], seed=1)
    >>> interval.mean, interval.low <= 0.5 <= interval.high
    (0.5, True)
    """
    config = BootstrapConfig(resamples, seed, level)
    return bootstrap_intervals({"value": np.asarray(values, dtype=np.float64)}, config)["value"]


def bootstrap_intervals(
    values: Mapping[str, FloatArray], config: BootstrapConfig = DEFAULT_BOOTSTRAP
) -> dict[str, Interval]:
    """Return the interval of the mean of each column ``float64[Q]``.

    Columns whose NaN stand at the same queries share one pass, so many metrics cost little
    more than one.
    """
    alike: dict[bytes, list[str]] = {}
    for name, column_Q in values.items():
        _check_column(name, column_Q)
        alike.setdefault(np.isnan(column_Q).tobytes(), []).append(name)
    found: dict[str, Interval] = {}
    for names in alike.values():
        column_QM = np.stack([values[name] for name in names], axis=1)
        column_QM = column_QM[~np.isnan(column_QM[:, 0])]
        count_Q1 = np.ones((len(column_QM), 1))
        found.update(zip(names, ratio_intervals(column_QM, count_Q1, config), strict=True))
    return {name: found[name] for name in values}  # as given, not by pass


def paired_bootstrap(
    a: npt.ArrayLike, b: npt.ArrayLike, *, resamples: int = 1000, seed: int = 0, level: float = 0.95
) -> PairedInterval:
    """Compare ``a float[Q]`` with ``b float[Q]``, measured on the same queries in the same order.

    A query that is NaN in either is left out of both. A resample where b sums to zero and a
    does not counts as an infinite ratio; where both do, it says nothing and is left out.
    Raises InputError when the shapes differ.
    """
    a_Q, b_Q = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    _check_column("a", a_Q)
    if a_Q.shape != b_Q.shape:
        raise InputError(f"a has shape {a_Q.shape} and b {b_Q.shape}; give the same queries")
    known_Q = ~(np.isnan(a_Q) | np.isnan(b_Q))
    pair_Q2 = np.stack([a_Q[known_Q], b_Q[known_Q]], axis=1)
    queries = len(pair_Q2)
    if not queries:
        return PairedInterval(UNKNOWN, UNKNOWN)
    config = BootstrapConfig(resamples, seed, level)
    sum_B3 = resampled_sums(np.column_stack([pair_Q2, np.ones(queries)]), config)
    a_B, b_B, count_B = sum_B3.T
    a_mean, b_mean = pair_Q2.mean(axis=0)
    return PairedInterval(
        _interval(a_mean - b_mean, (a_B - b_B) / count_B, level),
        _interval(float(_divide(a_mean, b_mean)), _divide(a_B, b_B), level),
    )


def ratio_intervals(
    numerator_QM: FloatArray, denominator_QM: FloatArray, config: BootstrapConfig
) -> list[Interval]:
    """Return the interval of Σ numerator / Σ denominator of each column, queries resampled.

    The denominator may have one column for all. Neither may hold NaN.
    """
    columns = numerator_QM.shape[1]
    if not len(numerator_QM):
        return [UNKNOWN] * columns
    sum_BM = resampled_sums(np.concatenate([numerator_QM, denominator_QM], axis=1), config)
    ratio_BM = _divide(sum_BM[:, :columns], sum_BM[:, columns:])
    mean_M = _divide(_column_sums(numerator_QM), _column_sums(denominator_QM))
    return [_interval(float(mean_M[m]), ratio_BM[:, m], config.level) for m in range(columns)]


def resampled_sums(column_QM: FloatArray, config: BootstrapConfig) -> FloatArray:
    """Return float64[B, M]: the sums of the columns over each resample of the queries."""
    random = np.random.default_rng(config.seed)
    column_GM = _deal(column_QM, random)
    groups = len(column_GM)
    sum_BM = np.empty((config.resamples, column_QM.shape[1]))
    # In blocks: the counts of all resamples at once are resamples × groups values.
    step = max(1, BLOCK_VALUES // groups)
    for start in range(0, config.resamples, step):
        block = min(step, config.resamples - start)
        drawn = random.integers(0, groups, size=(block, groups))
        # Each resample in a range of its own, so that one bincount serves the block.
        drawn += np.arange(block)[:, None] * groups
        count_BG = np.bincount(drawn.ravel(), minlength=block * groups).reshape(block, groups)
        # As floats, because BLAS multiplies no whole numbers.
        sum_BM[start : start + block] = count_BG.astype(np.float64) @ column_GM
    return sum_BM


def _deal(column_QM: FloatArray, random: np.random.Generator) -> FloatArray:
    """Return the columns summed over groups of queries dealt at random, when there are many."""
    queries = len(column_QM)
    if queries <= GROUPS:
        return column_QM
    group_Q = np.empty(queries, dtype=np.int64)
    group_Q[random.permutation(queries)] = np.arange(queries) % GROUPS
    return np.stack(
        [np.bincount(group_Q, weights=column, minlength=GROUPS) for column in column_QM.T], axis=1
    )


def _column_sums(column_QM: FloatArray) -> FloatArray:
    # Along contiguous memory numpy adds pairwise; down a column it would gather rounding.
    return np.asarray(np.ascontiguousarray(column_QM.T).sum(axis=1), dtype=np.float64)


def _divide(numerator: npt.ArrayLike, denominator: npt.ArrayLike) -> FloatArray:
    # A division by 0 is meant: x / 0 is an infinite ratio, 0 / 0 an unknown one.
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.true_divide(numerator, denominator), dtype=np.float64)


def _interval(mean: float, sample_B: FloatArray, level: float) -> Interval:
    # A resample of 0 / 0 says nothing.
    known = sample_B[~np.isnan(sample_B)]
    if not len(known):
        return Interval(float(mean), NOT_A_NUMBER, NOT_A_NUMBER)
    tail = (1 - level) / 2
    # A drawn value, not one between two, so that an infinite ratio stays infinite.
    low, high = np.quantile(known, [tail, 1 - tail], method="inverted_cdf")
    return Interval(float(mean), float(low), float(high))


def _check_column(name: str, column_Q: FloatArray) -> None:
    if column_Q.ndim != 1:
        raise InputError(
            f"values of {name!r} have shape {column_Q.shape}; expected one number a query"
        )
