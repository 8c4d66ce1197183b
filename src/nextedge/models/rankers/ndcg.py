"""The quality of an order over labelled rows, for choosing between models."""

from __future__ import annotations

import numba
import numpy as np

from nextedge.graph.csr import Graph
from nextedge.types import FloatArray, IntArray


def ndcg_of_rows(
    score: FloatArray,
    label: FloatArray,
    group: IntArray,
    k: int = 20,
    weight: FloatArray | None = None,
) -> float:
    """Mean NDCG@k of scored rows grouped by query; the ideal counts the labels among the rows.

    A label above 0 is the gain of its row.
    A row of weight w stands for w candidates, and pushes those below it down by as many.

    >>> rows = np.array([0.1, 0.9]), np.array([0.0, 1.0]), np.array([2])
    >>> ndcg_of_rows(*rows)
    1.0
    """
    if not len(group):
        return float("nan")
    weight = np.ones(len(label), np.float32) if weight is None else weight
    return float(
        _mean_ndcg(
            np.asarray(score, np.float64),
            np.asarray(label, np.float32),
            group,
            np.asarray(weight, np.float32),
            k,
        )
    )


def full_ranking_ndcg(
    query: FloatArray,
    candidate: FloatArray,
    known: Graph,
    positives: Graph,
    *,
    own: bool,
    k: int = 20,
    most: int = 2000,
    seed: int = 0,
) -> float:
    """Mean NDCG@k of embeddings over all candidates but known edges (and self, where ``own``).

    Args:
        query, candidate: float32[Q, d] and [N, d]; scores are dot products.
        known, positives: edges to leave out, and to find.
        most: queries measured; more are drawn from by seed.
    """
    queries = np.flatnonzero(positives.degree).astype(np.int32)
    if len(queries) > most:
        queries = np.sort(np.random.default_rng(seed).choice(queries, most, replace=False))
    discount = 1.0 / np.log2(np.arange(k) + 2.0)
    ideal = np.cumsum(discount)
    gains = []
    for start in range(0, len(queries), 512):
        rows = queries[start : start + 512]
        score = query[rows] @ candidate.T
        indptr, edges = known.gather(rows)
        score[np.repeat(np.arange(len(rows)), np.diff(indptr)), edges] = -np.inf
        if own:
            score[np.arange(len(rows)), rows] = -np.inf
        width = min(k, score.shape[1])
        top = np.argpartition(-score, width - 1, axis=1)[:, :width]
        value = np.take_along_axis(score, top, axis=1)
        top = np.take_along_axis(top, np.argsort(-value, axis=1, kind="stable"), axis=1)
        hit = positives.contains(np.repeat(rows, width), top.ravel().astype(np.int32))
        gain = (hit.reshape(top.shape) * discount[:width]).sum(axis=1)
        gains.append(gain / ideal[np.minimum(positives.degree[rows], k) - 1])
    return float(np.concatenate(gains).mean()) if gains else 0.0


@numba.njit(cache=True, nogil=True)
def _mean_ndcg(score, label, group, weight, k):  # type: ignore[no-untyped-def]
    """Each positive's rank is the weight of what is ahead of it: no sort; ties by place."""
    discount = 1.0 / np.log2(np.arange(k) + 2.0)
    total, counted, begin = 0.0, 0, 0
    for size in group:
        gain, positives = 0.0, 0
        worth = np.empty(size)
        for row in range(begin, begin + size):
            if label[row] <= 0:
                continue
            worth[positives] = label[row]
            positives += 1
            ahead = 0.0
            for other in range(begin, begin + size):
                if score[other] > score[row] or (score[other] == score[row] and other < row):
                    ahead += weight[other]
            if ahead < k:
                gain += label[row] / np.log2(ahead + 2.0)
        if positives:
            best = -np.sort(-worth[:positives])[:k]
            total += gain / (best * discount[: len(best)]).sum()
            counted += 1
        begin += size
    return total / counted if counted else np.nan
