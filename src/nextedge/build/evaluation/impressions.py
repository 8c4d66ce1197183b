"""What the evaluation window showed: every system on the same impressions, features as of its start."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nextedge.build.time_split.window_pipeline import batches
from nextedge.build.training_set.impressions import Impressions, favours_of, outcomes
from nextedge.config import RankerConfig
from nextedge.evaluation.impressions import Choice, ShownReport, best_of_each, measure_shown
from nextedge.graph.csr import build_graph
from nextedge.ranking.pipeline import RankingPipeline
from nextedge.schema import ACTIONS
from nextedge.types import Candidates, FloatArray, IndexArray, IntArray

MOST_ROWS = 100_000
_MOST_PLACES = 100
_FULL, _POPULAR, _RANDOM, _LOGISTIC = "full_line", "popularity", "random", "logistic_regression"


def impression_metrics(
    line: RankingPipeline, shown: Impressions | None, settings: RankerConfig
) -> ShownReport | None:
    """Measure what was shown after the line's snapshot; None where nothing can be told.

    ``logistic_regression`` learns from these impressions themselves, by every feature;
    ``full_line`` brings one number, ``popularity`` another.
    """
    if shown is None:
        return None
    relation, scope = line.scope.relation, line.scope
    end = max(int(shown.acted.max(initial=0)), int(shown.time.max(initial=0)))
    shown = shown.keep((shown.time > scope.snapshot.as_of) & scope.recommendable[shown.target])
    answered, is_open = outcomes(shown, end, settings)
    taken = answered & np.isin(shown.action, [ACTIONS.index(a) for a in favours_of(relation)])
    decided = taken | ~is_open
    if decided.sum() > MOST_ROWS:
        drawn = np.random.default_rng(settings.seed).permutation(np.flatnonzero(decided))
        decided = np.zeros(len(decided), bool)
        decided[drawn[:MOST_ROWS]] = True
    shown, taken = shown.keep(decided), taken[decided]
    if not len(taken):
        return None
    matrix, score, chance = _considered(line, shown)
    clipped = np.clip(score.astype(np.float64), 1e-9, 1 - 1e-9)
    numbers = {
        _FULL: (np.log(clipped) - np.log1p(-clipped))[:, None],
        _LOGISTIC: matrix,
        _POPULAR: np.log1p(scope.candidate_degree[shown.target])[:, None],
        _RANDOM: np.zeros((len(taken), 1)),
    }
    choice = Choice(shown.propensity, chance)
    return measure_shown(taken, shown.source, numbers, choice, settings.seed)


def _considered(
    line: RankingPipeline, shown: Impressions
) -> tuple[FloatArray, FloatArray, dict[str, npt.NDArray[np.float64]]]:
    """float32[n, F] features and float32[n] scores of the shown, and their chances by system."""
    scope = line.scope
    graph = build_graph(shown.source, shown.target, len(scope.graph), scope.graph.targets)
    queries = np.flatnonzero(graph.degree)
    places = min(_MOST_PLACES, max(1, len(np.unique(shown.position[shown.position >= 0]))))
    matrix = np.empty((len(shown.source), len(line.features.names)), np.float32)
    score = np.empty(len(matrix), np.float32)
    chance = {name: np.empty(len(matrix)) for name in (_FULL, _POPULAR)}
    chance[_RANDOM] = np.full(len(matrix), 1.0 / max(1, int(scope.recommendable.sum())))
    of_row = np.searchsorted(queries, shown.source)
    start = 0
    for requests in batches(queries, scope.snapshot.as_of, 1):
        own = np.flatnonzero((of_row >= start) & (of_row < start + len(requests)))
        given = Candidates(*graph.gather(requests.query))
        found = line.consider(requests, given)
        features = line.matrix(requests, found)
        value = line.score(requests, found, features)
        rows = _rows_of(found, of_row[own] - start, shown.target[own])
        matrix[own], score[own] = features[rows], value[rows]
        popular = scope.candidate_degree[found.candidate].astype(np.float64)
        for name, of_found in ((_FULL, value), (_POPULAR, popular)):
            chance[name][own] = best_of_each(of_found, found.row_query, places)[rows]
        start += len(requests)
    return matrix, score, chance


def _rows_of(found: Candidates, row: IntArray, target: IndexArray) -> IntArray:
    """int64[n]: where each (query of the batch, candidate) stands among the found."""
    keys = (found.row_query.astype(np.int64) << 32) | found.candidate
    order = np.argsort(keys, kind="stable")
    wanted = (row.astype(np.int64) << 32) | target
    return order[np.searchsorted(keys[order], wanted)]
