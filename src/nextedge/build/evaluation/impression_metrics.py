"""The impressions of the evaluation window: every system on the same rows, features as of its start."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nextedge.build.time_split.window_pipeline import batches
from nextedge.build.training_set.impression_outcomes import Impressions, taken_and_open
from nextedge.config import RankerConfig
from nextedge.evaluation.impressions import (
    Choice,
    ImpressionReport,
    best_of_each,
    measure_impressions,
)
from nextedge.graph.csr import build_graph
from nextedge.ranking.pipeline import RankingPipeline
from nextedge.types import Candidates, FloatArray, IndexArray, IntArray

MOST_ROWS = 100_000
_MOST_POSITIONS = 100
_FULL, _POPULAR, _RANDOM, _LOGISTIC = "full_line", "popularity", "random", "logistic_regression"


def impression_metrics(
    pipeline: RankingPipeline, rows: Impressions | None, settings: RankerConfig
) -> ImpressionReport | None:
    """Measure the impressions after the pipeline's snapshot; None where there is nothing to tell.

    ``logistic_regression`` learns from these impressions themselves, by every feature;
    ``full_line`` brings one number, ``popularity`` another.
    """
    if rows is None:
        return None
    scope = pipeline.scope
    end = max(int(rows.acted.max(initial=0)), int(rows.time.max(initial=0)))
    rows = rows.keep((rows.time > scope.snapshot.as_of) & scope.recommendable[rows.target])
    taken, is_open = taken_and_open(rows, scope.relation, end, settings)
    decided = taken | ~is_open
    if decided.sum() > MOST_ROWS:
        drawn = np.random.default_rng(settings.seed).permutation(np.flatnonzero(decided))
        decided = np.zeros(len(decided), bool)
        # A mask, so that the rows keep their order.
        decided[drawn[:MOST_ROWS]] = True
    rows, taken = rows.keep(decided), taken[decided]
    if not len(taken):
        return None
    matrix, score, chance = _scored(pipeline, rows)
    clipped = np.clip(score.astype(np.float64), 1e-9, 1 - 1e-9)  # the log-odds of 0 are infinite
    numbers = {
        _FULL: (np.log(clipped) - np.log1p(-clipped))[:, None],
        _LOGISTIC: matrix,
        _POPULAR: np.log1p(scope.candidate_degree[rows.target])[:, None],
        _RANDOM: np.zeros((len(taken), 1)),
    }
    choice = Choice(rows.propensity, chance)
    return measure_impressions(taken, rows.source, numbers, choice, settings.seed)


def _scored(
    pipeline: RankingPipeline, rows: Impressions
) -> tuple[FloatArray, FloatArray, dict[str, npt.NDArray[np.float64]]]:
    """float32[n, F] features and float32[n] scores of impressions, and their chances by system."""
    scope = pipeline.scope
    graph = build_graph(rows.source, rows.target, len(scope.graph), scope.graph.targets)
    queries = np.flatnonzero(graph.degree)
    positions = min(_MOST_POSITIONS, max(1, len(np.unique(rows.position[rows.position >= 0]))))
    matrix = np.empty((len(rows.source), len(pipeline.features.names)), np.float32)
    score = np.empty(len(matrix), np.float32)
    chance = {name: np.empty(len(matrix)) for name in (_FULL, _POPULAR)}
    chance[_RANDOM] = np.full(len(matrix), 1.0 / max(1, int(scope.recommendable.sum())))
    query_of_row = np.searchsorted(queries, rows.source)
    start = 0
    for requests in batches(queries, scope.snapshot.as_of, 1):
        stop = start + len(requests)
        batch = np.flatnonzero((query_of_row >= start) & (query_of_row < stop))
        impressions = Candidates(*graph.gather(requests.query))
        # An impression that no source finds needs a row too.
        candidates = pipeline.consider(requests, impressions)
        features = pipeline.matrix(requests, candidates)
        value = pipeline.score(requests, candidates, features)
        at = _rows_of(candidates, query_of_row[batch] - start, rows.target[batch])
        matrix[batch], score[batch] = features[at], value[at]
        popular = scope.candidate_degree[candidates.candidate].astype(np.float64)
        for name, values in ((_FULL, value), (_POPULAR, popular)):
            chance[name][batch] = best_of_each(values, candidates.row_query, positions)[at]
        start = stop
    return matrix, score, chance


def _rows_of(candidates: Candidates, query: IntArray, target: IndexArray) -> IntArray:
    """int64[n]: the row of each (query of the batch, candidate)."""
    # A pair as one number, so that one search finds all rows.
    keys = (candidates.row_query.astype(np.int64) << 32) | candidates.candidate
    order = np.argsort(keys, kind="stable")
    wanted = (query.astype(np.int64) << 32) | target
    return order[np.searchsorted(keys[order], wanted)]
