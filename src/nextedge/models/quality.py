"""The quality of an order over labelled rows, for choosing between models."""

from __future__ import annotations

import numpy as np

from nextedge.types import FloatArray, IntArray


def ndcg_of_rows(
    score: FloatArray,
    label: FloatArray,
    group: IntArray,
    k: int = 20,
    weight: FloatArray | None = None,
) -> float:
    """Mean NDCG@k of scored rows grouped by query; the ideal counts the labels among the rows.

    A row of weight w stands for w candidates, and pushes those below it down by as many.

    >>> rows = np.array([0.1, 0.9]), np.array([0.0, 1.0]), np.array([2])
    >>> ndcg_of_rows(*rows)
    1.0
    """
    queries = len(group)
    if not queries:
        return float("nan")
    row = np.repeat(np.arange(queries), group)
    order = np.lexsort((-score, row))
    ahead = np.arange(len(row), dtype=np.float64)
    if weight is not None:
        ahead = np.cumsum(weight[order], dtype=np.float64) - weight[order]
    place = ahead - np.repeat(ahead[np.concatenate(([0], np.cumsum(group)[:-1]))], group)
    gains = np.where(place < k, label[order], 0.0) / np.log2(place + 2.0)
    gain = np.bincount(row, gains, minlength=queries)
    wanted = np.minimum(np.bincount(row, label, minlength=queries), k).astype(int)
    best = np.concatenate(([1.0], np.cumsum(1.0 / np.log2(np.arange(k) + 2.0))))
    return float((gain / best[wanted])[wanted > 0].mean()) if (wanted > 0).any() else float("nan")
