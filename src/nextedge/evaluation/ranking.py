"""Ranking metrics over ragged lists: one value a query, so that intervals can be drawn.

Positives are binary: the gain of a place is the relevance of the candidate that stands there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from nextedge.evaluation._ragged import (
    FloatArray,
    IntArray,
    check_k,
    check_ragged,
    check_same_queries,
    locate,
    row_of,
)

RECALL_DENOMINATOR = "all positives of the query"


@dataclass(frozen=True, eq=False)
class RankMetrics:
    """float64[Q] each; NaN where the query has no positive.

    Recall divides hits by all positives of the query, precision by k, average precision and
    the ideal of NDCG by min(k, positives); the reciprocal rank is of the first hit within k.
    """

    ndcg: FloatArray
    recall: FloatArray
    mrr: FloatArray
    hit_rate: FloatArray
    precision: FloatArray
    average_precision: FloatArray
    k: int

    def named(self) -> dict[str, FloatArray]:
        """The metrics by the names they are reported under, main ones first."""
        k = self.k
        return {
            f"NDCG@{k}": self.ndcg,
            f"Recall@{k}": self.recall,
            f"MRR@{k}": self.mrr,
            f"HitRate@{k}": self.hit_rate,
            f"Precision@{k}": self.precision,
            f"MAP@{k}": self.average_precision,
        }

    def mean(self) -> dict[str, float]:
        """Means over the queries that have positives; NaN when none has."""
        kept = {name: values[~np.isnan(values)] for name, values in self.named().items()}
        return {name: float(v.mean()) if len(v) else float("nan") for name, v in kept.items()}

    @staticmethod
    def joined(parts: Sequence[RankMetrics]) -> RankMetrics:
        """The metrics of several batches of queries, one after the other."""
        names = [field.name for field in fields(RankMetrics) if field.name != "k"]
        columns = (np.concatenate([getattr(part, name) for part in parts]) for name in names)
        return RankMetrics(*columns, k=parts[0].k)


def rank_metrics(
    indptr: IntArray, candidate: IntArray, positive_indptr: IntArray, positive: IntArray, k: int = 20
) -> RankMetrics:
    """Metrics at k of the ranked lists of Q queries.

    Args:
        indptr, candidate: int64[Q + 1], int32[R]; best first within each query.
        positive_indptr, positive: int64[Q + 1], int32[P]; ascending within each query.
        k: length of list that counts.

    Raises:
        InputError: the two are not of the same queries, or k is below 1.

    >>> rank_metrics(np.array([0, 2]), np.array([7, 3]), np.array([0, 1]), np.array([3])).mrr
    array([0.5])
    """
    check_k(k)
    check_ragged("candidates", indptr, candidate)
    check_ragged("positives", positive_indptr, positive)
    check_same_queries(indptr, positive_indptr)
    queries, row = len(indptr) - 1, row_of(indptr)
    place = np.arange(len(candidate)) - np.asarray(indptr)[row]
    hit = (locate(indptr, candidate, positive_indptr, positive) >= 0) & (place < k)
    wanted = np.diff(positive_indptr).astype(np.float64)
    wanted[wanted == 0] = np.nan
    ideal = np.minimum(wanted, k)
    best = np.concatenate(([np.nan], np.cumsum(1.0 / np.log2(np.arange(k) + 2.0))))
    before = np.concatenate(([0], np.cumsum(hit)))
    so_far = before[1:] - before[np.asarray(indptr)[row]]
    first = np.full(queries, np.inf)
    np.minimum.at(first, row[hit], place[hit])

    def total(values: FloatArray) -> FloatArray:
        return np.bincount(row, values, minlength=queries)

    hits = total(hit.astype(np.float64))
    known = np.where(np.isnan(wanted), np.nan, 1.0)
    return RankMetrics(
        ndcg=total(hit / np.log2(place + 2.0)) / best[np.nan_to_num(ideal).astype(int)],
        recall=hits / wanted,
        mrr=known / (first + 1.0),
        hit_rate=(hits > 0) * known,
        precision=hits / k * known,
        average_precision=total(np.where(hit, so_far / (place + 1.0), 0.0)) / ideal,
        k=k,
    )
