"""Classic heuristics for people, each tuned on edges held back from train.

Common neighbours, Adamic-Adar, resource allocation and Jaccard choose the fewest common
neighbours and what breaks ties; personalised PageRank chooses its restart and how far popular
nodes are damped; preferential attachment has nothing to choose. All rank everyone who is not
a neighbour, by dense rows of sparse products: slow, and without the engine's code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import scipy.sparse as sp

from nextedge.evaluation.ranking import RankMetrics, rank_metrics
from nextedge.graph.csr import Graph, build_graph

BATCH = 256
TOP = 20
MAX_TUNING_QUERIES = 1500
Scores = Callable[[np.ndarray], np.ndarray]
"""float64[Q, N] scores of everyone for a batch of queries."""


def tuned_heuristics(
    graph: Graph, known: np.ndarray, positives: Graph, queries: np.ndarray, seed: int = 5
) -> dict[str, tuple[str, RankMetrics]]:
    """Per heuristic the variant that was best on held-back train edges, and its test metrics.

    The held-back edges are the latest tenth where edges carry times, else a seeded tenth.
    """
    inner, held = _held_back(graph, seed)
    tuning = np.flatnonzero(held.degree).astype(np.int32)
    tuning = np.random.default_rng(seed).permutation(tuning)[:MAX_TUNING_QUERIES]
    inner_known = known & (inner.degree > 0)
    found = {}
    variants = dict(_variants(inner))
    quality = {
        name: float(np.nanmean(_measure(scores, inner, inner_known, held, tuning).ndcg))
        for name, scores in variants.items()
    }
    full = dict(_variants(graph))
    for heuristic in dict.fromkeys(name.split("(")[0] for name in variants):
        own = [name for name in variants if name.split("(")[0] == heuristic]
        best = max(own, key=lambda name: quality[name])
        found[heuristic] = (best, _measure(full[best], graph, known, positives, queries))
    return found


def _held_back(graph: Graph, seed: int) -> tuple[Graph, Graph]:
    """The graph without a tenth of its edges, and those edges, both mirrored."""
    source = np.repeat(np.arange(len(graph), dtype=np.int32), graph.degree)
    once = source < graph.indices
    place = np.asarray(graph.first)[once].astype(np.float64)
    if not len(np.unique(place)) > 20:
        place = np.random.default_rng(seed).permutation(int(once.sum())).astype(np.float64)
    later = place > np.quantile(place, 0.9)

    def of(mask: np.ndarray) -> Graph:
        left, right = source[once][mask], graph.indices[once][mask]
        ends = np.concatenate((left, right)), np.concatenate((right, left))
        return build_graph(*ends, len(graph), len(graph))

    return of(~later), of(later)


def _variants(graph: Graph) -> Iterator[tuple[str, Scores]]:
    nodes, degree = len(graph), graph.degree.astype(np.float64)
    entries = (np.ones(graph.edges), graph.indices, graph.indptr)
    edges = sp.csr_matrix(entries, (nodes, nodes))
    weights = {
        "common_neighbors": np.ones(nodes),
        "adamic_adar": 1 / np.log(np.maximum(degree, 2)),
        "resource_allocation": 1 / np.maximum(degree, 1),
    }
    popular = degree / max(degree.max(), 1) * 1e-6
    for least in (1, 2, 3):
        for ties, extra in (("id", 0.0), ("degree", popular)):
            for name, weight in weights.items():
                yield f"{name}(min_common={least}, ties={ties})", _sums(edges, weight, least, extra)
            yield f"jaccard(min_common={least}, ties={ties})", _jaccard(edges, least, extra)
    yield "preferential_attachment", lambda query: np.tile(degree, (len(query), 1))
    for restart in (0.1, 0.15, 0.3, 0.5, 0.7, 0.85):
        for damping in (0.0, 0.5):
            name = f"personalised_pagerank(restart={restart}, degree_damping={damping})"
            yield name, _pagerank(edges, degree, restart, damping)


def _sums(edges: sp.csr_matrix, weight: np.ndarray, least: int, extra: np.ndarray) -> Scores:
    def scores(query: np.ndarray) -> np.ndarray:
        found = (edges[query].multiply(weight[None, :]).tocsr() @ edges).toarray()
        if least > 1:
            found = np.where((edges[query] @ edges).toarray() >= least, found, 0.0)
        return found + extra

    return scores


def _jaccard(edges: sp.csr_matrix, least: int, extra: np.ndarray) -> Scores:
    degree = np.diff(edges.indptr)

    def scores(query: np.ndarray) -> np.ndarray:
        common = (edges[query] @ edges).toarray()
        union = degree[query][:, None] + degree[None, :] - common
        return np.where(common >= least, common / np.maximum(union, 1), 0.0) + extra

    return scores


def _pagerank(edges: sp.csr_matrix, degree: np.ndarray, restart: float, damping: float) -> Scores:
    step = sp.diags(1 / np.maximum(degree, 1)) @ edges
    damped = np.maximum(degree, 1) ** damping
    steps = min(int(np.ceil(np.log(1e-3) / np.log(1 - restart))), 30)

    def scores(query: np.ndarray) -> np.ndarray:
        start = np.zeros((len(query), len(degree)))
        start[np.arange(len(query)), query] = 1.0
        walk = start
        for _ in range(steps):
            walk = restart * start + (1 - restart) * (step.T @ walk.T).T
        return walk / damped

    return scores


def _measure(
    scores: Scores, graph: Graph, known: np.ndarray, positives: Graph, queries: np.ndarray
) -> RankMetrics:
    tops = []
    for start in range(0, len(queries), BATCH):
        query = queries[start : start + BATCH]
        found = np.where(known, scores(query), -np.inf)
        indptr, seen = graph.gather(query.astype(np.int32))
        found[np.repeat(np.arange(len(query)), np.diff(indptr)), seen] = -np.inf
        found[np.arange(len(query)), query] = -np.inf
        tops.append(_best(found))
    ranked = np.concatenate(tops) if tops else np.zeros((0, TOP), np.int32)
    indptr, positive = positives.gather(queries.astype(np.int32))
    listed = ranked >= 0
    ends = np.concatenate(([0], np.cumsum(listed.sum(1))))
    return rank_metrics(ends, ranked[listed], indptr, positive)


def _best(score: np.ndarray) -> np.ndarray:
    """int32[Q, TOP]: the best of each row, ties to the smaller id, -1 where nobody scores."""
    part = (
        np.argpartition(-score, TOP - 1, axis=1)[:, : TOP * 3]
        if score.shape[1] > TOP * 3
        else (np.tile(np.arange(score.shape[1]), (len(score), 1)))
    )
    value = np.take_along_axis(score, part, axis=1)
    order = np.lexsort((part, -value), axis=1)[:, :TOP]
    top = np.take_along_axis(part, order, axis=1)
    return np.where(np.take_along_axis(value, order, axis=1) > 0, top, -1).astype(np.int32)
