"""Train every compared ranker on earlier windows, judge it on later ones, and choose one."""

from __future__ import annotations

from typing import Any

import numpy as np

from nextedge.config import RankerConfig
from nextedge.errors import TrainingError
from nextedge.models.rankers.labelled_rows import LabelledRows, ndcg_of
from nextedge.models.rankers.learners import Task, best_source, learners
from nextedge.models.rankers.ranker import CalibratedRanker, Calibrator

FEWEST_POSITIVES = 30
"""Weights fitted on fewer follow chance; the fused order of the sources is safer."""


def train(
    parts: list[LabelledRows], features: list[str], settings: RankerConfig
) -> tuple[CalibratedRanker | None, dict[str, Any]]:
    """Choose and fit the ranker; None where there is nothing to learn from.

    Args:
        parts: labelled rows of each label window, in order.

    Returns:
        The ranker, and what was compared.

    Raises:
        TrainingError: the settings name a model, and there are no labels to fit it.
    """
    # A window without a new edge neither teaches nor judges.
    parts = [part for part in parts if (part.label > 0).any()]
    positives = sum(int((part.label > 0).sum()) for part in parts)
    if len(parts) < 2 or positives < FEWEST_POSITIVES:
        return None, _too_few(parts, positives, settings)
    named = () if settings.model == "auto" else (settings.model,)
    # ``auto`` needs models to choose from where the settings compare none.
    names = list(dict.fromkeys((*settings.compare, *named)) or RankerConfig().compare)
    task, kinds = Task(features, settings), {name: learners()[name] for name in names}
    ndcg: dict[str, list[float]] = {name: [] for name in names}
    curves: dict[str, list[list[float]]] = {name: [] for name in names}
    scores: dict[str, np.ndarray] = {}
    last: dict[str, CalibratedRanker] = {}
    for number in range(1, len(parts)):
        training, later = LabelledRows.joined(parts[:number]), parts[number]
        for name, kind in kinds.items():
            learned = kind.watched(task, training, later)
            scores[name], last[name] = learned.ranker.raw(later.matrix), learned.ranker
            ndcg[name].append(ndcg_of(scores[name], later))
            curves[name].append(learned.curve)
    # The geometric mean, so that one lucky window does not choose.
    mean = {name: _geometric_mean(values) for name, values in ndcg.items()}
    chosen = settings.model if named else max(mean, key=lambda name: mean[name])
    trees = best_trees(curves[chosen]) if any(curves[chosen]) else 0
    rows, ranker = LabelledRows.joined(parts), last[chosen]
    # A network refitted has another scale of scores than the calibrator's.
    if kinds[chosen].refits:
        ranker = kinds[chosen].whole(task, rows, trees)
    # By the scores of a model that has not seen the last window: its own rows would look certain.
    ranker.calibrator = Calibrator.fit(scores[chosen], parts[-1].positive, parts[-1].weight)
    return ranker, {
        "model": chosen,
        "reason": "as configured" if named else "best NDCG@20 on later windows",
        "trees": trees,
        "ndcg": {name: round(value, 6) for name, value in mean.items()},
        "ndcg_by_window": {
            name: [round(value, 6) for value in values] for name, values in ndcg.items()
        },
        "best_source": best_source(rows, features),
        "rows": int(sum(len(part.label) for part in parts)),
        "positives": positives,
    }


def _too_few(parts: list[LabelledRows], positives: int, settings: RankerConfig) -> dict[str, Any]:
    """What to report where there is no ranker; raises where the settings name one."""
    found = f"{positives} in {len(parts)} windows"
    if settings.model != "auto":
        raise TrainingError(
            f"ranker.model = {settings.model!r} needs {FEWEST_POSITIVES} new edges in at least "
            f"two windows; found {found}: give more history, or use ranker.model = 'auto'"
        )
    reason = f"too few new edges to learn from: {found}, expected {FEWEST_POSITIVES} in two"
    return {"model": "rough_score", "reason": reason, "ndcg": {}}


def best_trees(curves: list[list[float]]) -> int:
    """The number of trees whose quality, relative to each window's best, is highest on average."""
    longest = max(len(curve) for curve in curves)
    total = np.zeros(longest)
    for curve in curves:
        # A window that stopped early counts with its last value from there on.
        padded = np.pad(np.asarray(curve), (0, longest - len(curve)), mode="edge")
        # Relative: a window with high NDCG would decide alone.
        total += padded / max(float(padded.max()), 1e-12)
    return int(np.argmax(total)) + 1


def _geometric_mean(values: list[float]) -> float:
    # One window at 0 would make the mean 0, whatever the others say.
    return float(np.exp(np.mean(np.log(np.maximum(values, 1e-9)))))
