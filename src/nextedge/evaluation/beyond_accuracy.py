"""Measures of lists beside accuracy: coverage, novelty, diversity, popularity bias.

Per-query values are NaN for an empty list (for fewer than two candidates, in diversity).
Axes: Q queries, R candidates, N catalogue, D embedding dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from nextedge.config import NEW_BELOW
from nextedge.errors import InputError
from nextedge.evaluation._ragged import (
    BoolArray,
    FloatArray,
    IntArray,
    check_k,
    check_ragged,
    check_same_queries,
    row_of,
    top_k,
)
from nextedge.evaluation.bootstrap import (
    DEFAULT_BOOTSTRAP,
    UNKNOWN,
    BootstrapConfig,
    Interval,
    bootstrap_intervals,
    paired_bootstrap,
)

if TYPE_CHECKING:
    from scipy import sparse

NOT_A_NUMBER = float("nan")


@dataclass(frozen=True, slots=True, eq=False)
class Catalogue:
    """All N candidates that could be recommended, numbered from 0.

    ``popularity[N]`` counts the edges of each at the time of the features. ``category int[N]``
    (negative: unknown) measures diversity.
    """

    popularity: npt.NDArray[np.number]
    category: IntArray | None = None

    def __post_init__(self) -> None:
        size = len(self.popularity)
        if self.category is not None and len(self.category) != size:
            raise InputError(f"category has {len(self.category)} rows; popularity has {size}")


@dataclass(frozen=True, slots=True)
class BeyondAccuracy:
    """Means with intervals over queries; coverage and Gini are of the whole system.

    ``popularity_bias`` is the mean popularity percentile of the recommended candidates minus that
    of the positives, over the queries that have both: above 0, the system prefers popular ones.

    ``exposure_new`` is the share of a list's exposure, 1 / log2(1 + rank) a position, that new
    candidates get (of fewer than ``NEW_BELOW`` edges), ``positive_new`` their share of the
    positives. ``fairness_new`` is the first over the second: 1 where exposure is in proportion to
    merit, less where new candidates get too little (Singh, Joachims: "Fairness of Exposure in
    Rankings", KDD 2018, section 4.2).
    """

    catalogue_coverage: float
    novelty: Interval
    intra_list_diversity: Interval
    popularity_recommended: Interval
    popularity_positive: Interval
    popularity_bias: Interval
    exposure_gini: float
    exposure_new: Interval = UNKNOWN
    positive_new: Interval = UNKNOWN
    fairness_new: Interval = UNKNOWN


def measure_beyond_accuracy(
    lists: tuple[IntArray, IntArray],
    positives: tuple[IntArray, IntArray],
    catalogue: Catalogue,
    *,
    k: int = 20,
    config: BootstrapConfig = DEFAULT_BOOTSTRAP,
) -> BeyondAccuracy:
    """Measure the first ``k`` of ragged ``lists`` (indptr, candidate) of the catalogue.

    Raises InputError when an id lies outside the catalogue.
    """
    check_k(k)
    check_same_queries(lists[0], positives[0])
    _check_ids("candidates", *lists, len(catalogue.popularity))
    _check_ids("positives", *positives, len(catalogue.popularity))
    indptr, candidate = top_k(*lists, k)
    percentile_N = popularity_percentile(catalogue.popularity)
    recommended_Q = list_mean(indptr, candidate, percentile_N)
    positive_Q = list_mean(*positives, percentile_N)
    columns = {
        "novelty": list_mean(indptr, candidate, self_information(catalogue.popularity)),
        "recommended": recommended_Q,
        "positive": positive_Q,
        "bias": recommended_Q - positive_Q,
    }
    new_N = np.asarray(catalogue.popularity) < NEW_BELOW
    exposure_Q = exposure_share(indptr, candidate, new_N)
    positive_new_Q = list_mean(*positives, new_N.astype(np.float64))
    columns |= {"exposure_new": exposure_Q, "positive_new": positive_new_Q}
    # A ratio needs the same queries above and below.
    both = np.isfinite(exposure_Q) & np.isfinite(positive_new_Q)
    if catalogue.category is not None:
        columns["diversity"] = category_diversity(indptr, candidate, catalogue.category)
    interval = bootstrap_intervals(columns, config)
    exposure_N = np.bincount(candidate, minlength=len(catalogue.popularity))
    return BeyondAccuracy(
        catalogue_coverage=float((exposure_N > 0).mean()) if len(exposure_N) else NOT_A_NUMBER,
        novelty=interval["novelty"],
        intra_list_diversity=interval.get("diversity", UNKNOWN),
        popularity_recommended=interval["recommended"],
        popularity_positive=interval["positive"],
        popularity_bias=interval["bias"],
        exposure_gini=gini(exposure_N),
        exposure_new=interval["exposure_new"],
        positive_new=interval["positive_new"],
        fairness_new=_ratio(exposure_Q[both], positive_new_Q[both], config),
    )


def exposure_share(indptr: IntArray, candidate: IntArray, marked: BoolArray) -> FloatArray:
    """float64[Q]: share of each list's exposure that marked candidates (bool[N]) get.

    >>> exposure_share(np.array([0, 2]), np.array([1, 0]), np.array([True, False])).round(2)
    array([0.39])
    """
    row = row_of(indptr)
    rank = np.arange(len(candidate)) - indptr[row]
    exposure = 1.0 / np.log2(rank + 2.0)
    queries = len(indptr) - 1
    total = np.bincount(row, exposure, minlength=queries)
    share = np.bincount(row, exposure * marked[candidate], minlength=queries)
    return np.asarray(share / np.where(total > 0, total, np.nan), np.float64)


def _ratio(above_Q: FloatArray, below_Q: FloatArray, config: BootstrapConfig) -> Interval:
    """Ratio of the means; unknown where the second is 0."""
    if not len(below_Q) or below_Q.sum() == 0:
        return UNKNOWN
    return paired_bootstrap(
        above_Q, below_Q, resamples=config.resamples, seed=config.seed, level=config.level
    ).ratio


def self_information(popularity: npt.NDArray[np.number]) -> FloatArray:
    """Return −log2 p of each candidate in bits, float64[N] (Zhou et al., 2010).

    p = (popularity + 1) / (total + N).
    """
    # Without the 1 a candidate without edges would be infinitely novel.
    smoothed_N = popularity.astype(np.float64) + 1
    return np.asarray(-np.log2(smoothed_N / smoothed_N.sum()), dtype=np.float64)


def popularity_percentile(popularity: npt.NDArray[np.number]) -> FloatArray:
    """Return float64[N] in (0, 1): the share of the catalogue below, with half of the ties."""
    _, place_N, count = np.unique(popularity, return_inverse=True, return_counts=True)
    middle = np.cumsum(count) - count / 2
    return np.asarray(middle[place_N] / max(len(popularity), 1), dtype=np.float64)


def list_mean(indptr: IntArray, candidate: IntArray, value_N: FloatArray) -> FloatArray:
    """Return float64[Q]: the mean value of each query's candidates, NaN for an empty list."""
    _check_ids("candidates", indptr, candidate, len(value_N))
    length_Q = np.diff(indptr)
    total_Q = _membership(indptr, candidate, len(value_N)) @ value_N
    return np.asarray(total_Q / np.where(length_Q > 0, length_Q, np.nan), dtype=np.float64)


def category_diversity(indptr: IntArray, candidate: IntArray, category: IntArray) -> FloatArray:
    """Return float64[Q]: 1 − the share of pairs in a list that are of the same category.

    An unknown category (negative) is like no other, nor like another unknown.
    """
    _check_ids("candidates", indptr, candidate, len(category))
    code_R = category[candidate].astype(np.int64)
    known_R = code_R >= 0
    width = int(code_R.max(initial=0)) + 1
    # Known ones only: a negative code would make the key one of the query before.
    key, count = np.unique((row_of(indptr) * width + code_R)[known_R], return_counts=True)
    same_Q = np.bincount(key // width, weights=count * (count - 1), minlength=len(indptr) - 1)
    return np.asarray(1 - same_Q / _ordered_pairs(indptr), dtype=np.float64)


def gini(exposure: npt.NDArray[np.number]) -> float:
    """Return the Gini coefficient of counts: 0 for equal counts, near 1 where one candidate has all."""
    total = float(exposure.sum())
    if total == 0:
        return NOT_A_NUMBER
    size = len(exposure)
    weight = 2.0 * np.arange(1, size + 1) - size - 1
    return float(weight @ np.sort(exposure) / (size * total))


def _membership(indptr: IntArray, candidate: IntArray, size: int) -> sparse.csr_array:
    """Return the lists as a sparse Q × N matrix of ones."""
    from scipy import sparse

    ones = np.ones(len(candidate), dtype=np.float64)
    return sparse.csr_array((ones, candidate, indptr), shape=(len(indptr) - 1, size))


def _ordered_pairs(indptr: IntArray) -> FloatArray:
    length_Q = np.diff(indptr).astype(np.float64)
    return np.where(length_Q > 1, length_Q * (length_Q - 1), np.nan)


def _check_ids(name: str, indptr: IntArray, candidate: IntArray, size: int) -> None:
    check_ragged(name, indptr, candidate)
    if len(candidate) and candidate.max() >= size:
        raise InputError(f"{name} name id {candidate.max()}; the catalogue ends at {size - 1}")
