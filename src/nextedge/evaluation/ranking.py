"""Ranking metrics over ragged lists: one value a query, so that intervals can be drawn.

Positives are binary. Recall divides by all positives of the query, precision by k, average
precision and the ideal of NDCG by min(k, positives). Queries without positives are NaN.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from nextedge.graph.csr import Graph
from nextedge.types import Candidates, FloatArray, IndexArray, IntArray

Values = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class RankMetrics:
    """float64[Q] each; NaN where the query has no positive."""

    recall: Values
    ndcg: Values
    mrr: Values
    hit_rate: Values
    precision: Values
    average_precision: Values

    def mean(self) -> dict[str, float]:
        """Means over the queries that have positives (NaN when none has)."""
        means = {}
        for field in fields(self):
            values = getattr(self, field.name)
            kept = values[~np.isnan(values)]
            means[field.name] = float(kept.mean()) if len(kept) else float("nan")
        return means

    @staticmethod
    def joined(parts: list[RankMetrics]) -> RankMetrics:
        """The metrics of several batches of queries, one after the other."""
        names = [field.name for field in fields(RankMetrics)]
        return RankMetrics(*(np.concatenate([getattr(p, n) for p in parts]) for n in names))


def rank_metrics(
    ranked: Candidates, query: IndexArray, positives: Graph, k: int = 20
) -> RankMetrics:
    """Metrics at k of ranked lists.

    Args:
        ranked: best first within each of Q queries.
        query: int32[Q], whose lists they are: rows of ``positives``.
        positives: query × candidate, the edges to be found.
    """
    queries = ranked.queries
    place = ranked.position()
    row = ranked.row_query
    hit = positives.contains(query[row], ranked.candidate) & (place < k)
    wanted = positives.degree[query].astype(np.float64)
    wanted[wanted == 0] = np.nan
    ideal = np.minimum(wanted, k)

    def total(values: npt.NDArray[np.floating]) -> Values:
        return np.bincount(row, values, minlength=queries)

    hits = total(hit.astype(np.float64))
    gains = total(hit / np.log2(place + 2.0))
    best = np.concatenate(([0.0], np.cumsum(1.0 / np.log2(np.arange(k) + 2.0))))
    first = np.full(queries, np.inf)
    np.minimum.at(first, row[hit], place[hit])
    before = np.concatenate(([0], np.cumsum(hit)))
    hits_so_far = before[1:] - before[ranked.indptr[row]]
    precision_sum = total(np.where(hit, hits_so_far / (place + 1.0), 0.0))
    known = np.where(np.isnan(wanted), np.nan, 1.0)
    return RankMetrics(
        recall=hits / wanted,
        ndcg=gains / best[np.nan_to_num(ideal, nan=1.0).astype(int)] * known,
        mrr=np.where(np.isfinite(first), 1.0 / (first + 1.0), 0.0) * known,
        hit_rate=(hits > 0) * known,
        precision=hits / k * known,
        average_precision=precision_sum / ideal,
    )


def ndcg_of_rows(score: FloatArray, label: FloatArray, group: IntArray, k: int = 20) -> float:
    """Mean NDCG@k of scored rows grouped by query; ideal counts the labels among the rows."""
    queries = len(group)
    if not queries:
        return float("nan")
    row = np.repeat(np.arange(queries), group)
    order = np.lexsort((-score, row))
    start = np.repeat(np.concatenate(([0], np.cumsum(group)[:-1])), group)
    place = np.arange(len(row)) - start
    gain = np.bincount(
        row, np.where(place < k, label[order], 0.0) / np.log2(place + 2.0), minlength=queries
    )
    wanted = np.minimum(np.bincount(row, label, minlength=queries), k).astype(int)
    best = np.concatenate(([1.0], np.cumsum(1.0 / np.log2(np.arange(k) + 2.0))))
    return float((gain / best[wanted])[wanted > 0].mean()) if (wanted > 0).any() else float("nan")
