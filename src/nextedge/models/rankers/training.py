"""Train a ranker on label windows and choose its number of trees."""

from __future__ import annotations

from typing import Any

import numpy as np

from nextedge.config import RankerConfig
from nextedge.errors import TrainingError
from nextedge.models.rankers.labelled_rows import LabelledRows, ndcg_of
from nextedge.models.rankers.learners import best_source, learners
from nextedge.models.rankers.ranker import CalibratedRanker, Calibrator

FEWEST_POSITIVES = 30
"""Weights fitted on fewer follow chance; the fused order of the sources is safer."""


def train(
    parts: list[LabelledRows], features: list[str], settings: RankerConfig
) -> tuple[CalibratedRanker | None, dict[str, Any]]:
    """Choose and fit the ranker; None when there is nothing to learn from.

    Every model is judged on windows later than those it was fitted on, by the geometric mean
    of NDCG@20 over them, so that one lucky window does not choose. Returns the ranker and
    what was compared.

    Raises:
        TrainingError: a model was asked for by name, and there are no labels to fit it.
    """
    parts = [part for part in parts if (part.label > 0).any()]
    positives = sum(int((part.label > 0).sum()) for part in parts)
    if len(parts) < 2 or positives < FEWEST_POSITIVES:
        found = f"{positives} in {len(parts)} windows"
        if settings.model != "auto":
            raise TrainingError(
                f"ranker.model = {settings.model!r} needs {FEWEST_POSITIVES} new edges in at least "
                f"two windows; found {found}: give more history, or use ranker.model = 'auto'"
            )
        reason = f"too few new edges to learn from: {found}, expected {FEWEST_POSITIVES} in two"
        return None, {"model": "rough_score", "reason": reason, "ndcg": {}}
    named = dict.fromkeys((*settings.compare, *_named(settings)))
    names = list(named or RankerConfig().compare)  # ``auto`` has something to choose from
    kinds = {name: learners()[name] for name in names}
    ndcg: dict[str, list[float]] = {name: [] for name in kinds}
    curves: dict[str, list[list[float]]] = {name: [] for name in kinds}
    scores: dict[str, np.ndarray] = {}
    last: dict[str, CalibratedRanker] = {}
    for place in range(1, len(parts)):
        training, later = LabelledRows.joined(parts[:place]), parts[place]
        for name, kind in kinds.items():
            learned = kind.watched(training, later, features, settings)
            scores[name], last[name] = learned.ranker.raw(later.matrix), learned.ranker
            ndcg[name].append(ndcg_of(scores[name], later))
            curves[name].append(learned.curve)
    mean = {name: _geometric_mean(values) for name, values in ndcg.items()}
    chosen = settings.model if settings.model != "auto" else max(mean, key=lambda name: mean[name])
    trees = best_trees(curves[chosen]) if any(curves[chosen]) else 0
    rows = LabelledRows.joined(parts)
    ranker = last[chosen]
    if kinds[chosen].refits:
        ranker = kinds[chosen].whole(rows, features, settings, trees)
    ranker.calibrator = Calibrator.fit(scores[chosen], parts[-1].positive, parts[-1].weight)
    reason = "as configured" if settings.model != "auto" else "best NDCG@20 on later windows"
    return ranker, {
        "model": chosen,
        "reason": reason,
        "trees": trees,
        "ndcg": {name: round(value, 6) for name, value in mean.items()},
        "ndcg_by_window": {
            name: [round(value, 6) for value in values] for name, values in ndcg.items()
        },
        "best_source": best_source(rows, features),
        "rows": int(sum(len(part.label) for part in parts)),
        "positives": positives,
    }


def _named(settings: RankerConfig) -> tuple[str, ...]:
    return () if settings.model == "auto" else (settings.model,)


def best_trees(curves: list[list[float]]) -> int:
    """The number of trees whose quality, relative to each window's best, is highest on average.

    A window that stopped early is taken to stay at its last value.
    """
    longest = max(len(curve) for curve in curves)
    total = np.zeros(longest)
    for curve in curves:
        padded = np.pad(np.asarray(curve), (0, longest - len(curve)), mode="edge")
        total += padded / max(float(padded.max()), 1e-12)
    return int(np.argmax(total)) + 1


def _geometric_mean(values: list[float]) -> float:
    return float(np.exp(np.mean(np.log(np.maximum(values, 1e-9)))))
