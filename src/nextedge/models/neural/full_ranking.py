"""NDCG of embeddings over all candidates, which decides when a training stops."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nextedge.graph.csr import Graph, build_graph
from nextedge.models.model import TrainingData
from nextedge.types import FloatArray, IndexArray

_QUERIES_AT_ONCE = 512  # bounds the memory of scores of all candidates
Edges = tuple[IndexArray, IndexArray]
"""Sources and targets, int32[E] each."""
Embed = Callable[[], tuple[FloatArray, FloatArray]]
"""Gives the present embeddings of all queries and candidates."""


def validation_of(
    data: TrainingData, known: Graph, edges: Edges, embed: Embed
) -> Callable[[], float]:
    """Gives the NDCG of the present embeddings on some edges, without the known ones."""

    def validate() -> float:
        positives = build_graph(*edges, len(data.graph), data.graph.targets)
        self_typed = data.relation.self_typed
        return full_ranking_ndcg(*embed(), known, positives, self_typed=self_typed, seed=data.seed)

    return validate


def full_ranking_ndcg(
    query: FloatArray,
    candidate: FloatArray,
    known: Graph,
    positives: Graph,
    *,
    self_typed: bool,
    k: int = 20,
    max_queries: int = 2000,
    seed: int = 0,
) -> float:
    """Mean NDCG@k of dot products over all candidates but known edges (and self, if self_typed).

    Args:
        query, candidate: float32[Q, d] and [N, d].
        known, positives: edges to leave out, and edges to rank high.
        max_queries: queries measured; of more, the seed draws that many.
    """
    queries = np.flatnonzero(positives.degree).astype(np.int32)
    if len(queries) > max_queries:
        # The same queries in every epoch, so that their NDCG compares.
        queries = np.sort(np.random.default_rng(seed).choice(queries, max_queries, replace=False))
    discount = 1.0 / np.log2(np.arange(k) + 2.0)
    ideal = np.cumsum(discount)
    gains = []
    for start in range(0, len(queries), _QUERIES_AT_ONCE):
        rows = queries[start : start + _QUERIES_AT_ONCE]
        score_QN = query[rows] @ candidate.T
        indptr, edges = known.gather(rows)
        score_QN[np.repeat(np.arange(len(rows)), np.diff(indptr)), edges] = -np.inf
        if self_typed:
            score_QN[np.arange(len(rows)), rows] = -np.inf
        top_QK = best_columns(score_QN, k)
        hit_QK = positives.contains(np.repeat(rows, top_QK.shape[1]), top_QK.ravel())
        gain = (hit_QK.reshape(top_QK.shape) * discount[: top_QK.shape[1]]).sum(axis=1)
        gains.append(gain / ideal[np.minimum(positives.degree[rows], k) - 1])
    return float(np.concatenate(gains).mean()) if gains else 0.0


def best_columns(score_QN: FloatArray, k: int) -> np.ndarray:
    """int32[Q, min(k, N)]: the columns of the highest scores of each row, best first."""
    width = min(k, score_QN.shape[1])
    # A partition first: only k of N columns need an order.
    top_QK = np.argpartition(-score_QN, width - 1, axis=1)[:, :width]
    value_QK = np.take_along_axis(score_QN, top_QK, axis=1)
    order_QK = np.argsort(-value_QK, axis=1, kind="stable")
    return np.take_along_axis(top_QK, order_QK, axis=1).astype(np.int32)
