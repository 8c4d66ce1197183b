"""Rank metrics of ragged recommendation lists, per query and all at once.

With h(r) = 1 when the candidate at rank r is a positive of the query, and n positives:

- recall@k = Σ h(r) / n: the denominator is **all** positives of the query, also when n > k;
- precision@k = Σ h(r) / k, also when the list is shorter than k;
- hit_rate@k = 1 when any h(r) = 1;
- mrr@k = 1 / (rank of the first hit), 0 without one;
- ndcg@k = Σ h(r) / log2(r + 1), over the same sum of an ideal list of min(k, n) hits
  (Järvelin and Kekäläinen, 2002); the gain is the candidate's relevance, never its score;
- map@k = mean over queries of Σ h(r) · precision@r / min(k, n).

Axes: Q queries, K ranks, R candidates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nextedge.evaluation._ragged import (
    BLOCK_VALUES,
    BoolArray,
    FloatArray,
    IntArray,
    check_k,
    check_ragged,
    check_same_queries,
    cut,
    locate,
    row_of,
    top_k,
)

RECALL_DENOMINATOR = "all positives of the query"
"""What recall is divided by, in the words of the report."""


@dataclass(frozen=True, slots=True, eq=False)
class RankMetrics:
    """Metrics of each query, float64[Q] each; NaN for a query without positives."""

    k: int
    ndcg: FloatArray
    recall: FloatArray
    hit_rate: FloatArray
    mrr: FloatArray
    precision: FloatArray
    map: FloatArray

    def named(self) -> dict[str, FloatArray]:
        """Return the arrays by their names with the cut-off, main metrics first."""
        return {
            f"ndcg@{self.k}": self.ndcg,
            f"recall@{self.k}": self.recall,
            f"hit_rate@{self.k}": self.hit_rate,
            f"mrr@{self.k}": self.mrr,
            f"precision@{self.k}": self.precision,
            f"map@{self.k}": self.map,
        }

    def mean(self) -> dict[str, float]:
        """Return the mean over queries with positives; NaN where there is none."""
        return {name: _mean(values) for name, values in self.named().items()}


def rank_metrics(
    indptr: IntArray,
    candidate: IntArray,
    positive_indptr: IntArray,
    positive: IntArray,
    k: int = 20,
) -> RankMetrics:
    """Return the metrics of every query, in memory bounded whatever the number of queries.

    ``indptr int64[Q+1]`` cuts ``candidate int32[R]``, best first, and ``positive_indptr
    int64[Q+1]`` cuts ``positive int32[P]``, ascending. A query without positives has NaN at
    its place. Raises InputError when the arrays do not have this form.

    >>> import numpy as np
    >>> metrics = rank_metrics(
    ...     np.array([0, 3, 5]), np.array([7, 2, 9, 4, 1]),
    ...     np.array([0, 2, 3]), np.array([2, 8, 5]), k=3)
    >>> metrics.recall.tolist(), metrics.mrr.tolist()
    ([0.5, 0.0], [0.5, 0.0])
    """
    check_ragged("candidates", indptr, candidate)
    check_ragged("positives", positive_indptr, positive)
    check_same_queries(indptr, positive_indptr)
    check_k(k)
    queries = len(indptr) - 1
    table = np.empty((6, queries), dtype=np.float64)
    # In blocks, because the matrix of hits has a place for every query and rank.
    step = max(1, BLOCK_VALUES // k)
    for start in range(0, queries, step):
        stop = min(start + step, queries)
        hit_QK = hit_matrix(
            *cut(indptr, candidate, start, stop), *cut(positive_indptr, positive, start, stop), k
        )
        table[:, start:stop] = _metrics_of(hit_QK, np.diff(positive_indptr[start : stop + 1]))
    return RankMetrics(k, *table)


def hit_matrix(
    indptr: IntArray, candidate: IntArray, positive_indptr: IntArray, positive: IntArray, k: int
) -> BoolArray:
    """Return bool[Q, k]: whether the candidate at each rank is a positive of its query."""
    top_indptr, top_candidate = top_k(indptr, candidate, k)
    row_R = row_of(top_indptr)
    rank_R = np.arange(len(top_candidate)) - top_indptr[row_R]
    hit_QK = np.zeros((len(indptr) - 1, k), dtype=np.bool_)
    hit_QK[row_R, rank_R] = locate(top_indptr, top_candidate, positive_indptr, positive) >= 0
    return hit_QK


def _metrics_of(hit_QK: BoolArray, positives_Q: IntArray) -> FloatArray:
    """Return float64[6, Q] in the order of the fields of RankMetrics."""
    k = hit_QK.shape[1]
    rank_K = np.arange(1, k + 1)
    discount_K = 1.0 / np.log2(rank_K + 1)
    ideal_Q = np.minimum(positives_Q, k)
    known_Q = np.where(positives_Q > 0, 1.0, np.nan)  # times this: NaN without positives
    hits_Q = hit_QK.sum(axis=1)
    any_Q = hits_Q > 0
    # Place 0 is NaN: a query without positives has no ideal list.
    ideal_gain_Q = np.concatenate(([np.nan], np.cumsum(discount_K)))[ideal_Q]
    precision_QK = np.cumsum(hit_QK, axis=1) / rank_K
    return np.stack(
        [
            hit_QK @ discount_K / ideal_gain_Q,
            hits_Q / (positives_Q * known_Q),
            any_Q * known_Q,
            # Argmax is 0 without a hit too.
            np.where(any_Q, 1.0 / (hit_QK.argmax(axis=1) + 1), 0.0) * known_Q,
            hits_Q / k * known_Q,
            (precision_QK * hit_QK).sum(axis=1) / (ideal_Q * known_Q),
        ]
    )


def _mean(values: FloatArray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")
