"""The quality of an order over labelled rows, for choosing between models."""

from __future__ import annotations

import numba
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

    A label above 0 is the gain of its row.
    A row of weight w stands for w candidates, and pushes those below it down by as many.

    >>> rows = np.array([0.1, 0.9]), np.array([0.0, 1.0]), np.array([2])
    >>> ndcg_of_rows(*rows)
    1.0
    """
    if not len(group):
        return float("nan")
    weight = np.ones(len(label), np.float32) if weight is None else weight
    # Numba would compile the kernel again for arguments of other types.
    return float(
        _mean_ndcg(
            np.asarray(score, np.float64),
            np.asarray(label, np.float32),
            group,
            np.asarray(weight, np.float32),
            k,
        )
    )


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
