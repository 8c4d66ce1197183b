"""Training of the re-ranker, on the heads of lists that a ranker of earlier windows made.

It is fitted on the windows between the first and the last, watched on half of the last window's
queries and judged on the other half. It serves only where it ranks those better for certain.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nextedge.build.time_split.window_pipeline import batches
from nextedge.config import SurfaceConfig
from nextedge.evaluation.bootstrap import paired_bootstrap
from nextedge.graph.csr import Graph
from nextedge.models.rankers.cross_attention import CrossAttention, HeadList
from nextedge.models.rankers.labelled_rows import LabelledRows
from nextedge.models.rankers.learners import Task, learners
from nextedge.models.rankers.ranker import CalibratedRanker
from nextedge.ranking.pipeline import SCORE, RankingPipeline
from nextedge.ranking.reranker import head_of

FEWEST_LISTS = 40


@dataclass(frozen=True, eq=False)
class LabelWindow:
    """A window's pipeline without ranker, its new edges, and the labelled rows before it."""

    pipeline: RankingPipeline
    positives: Graph
    earlier: Sequence[LabelledRows]


def train_reranker(
    windows: Sequence[LabelWindow], ranker: CalibratedRanker, trees: int, surface: SurfaceConfig
) -> tuple[CrossAttention | None, dict[str, Any]]:
    """Fit on all windows but the last and judge on the last; None where there is too little.

    Args:
        ranker: the one that serves, whose kind and calibration the earlier rankers share.
        trees: how many it has.

    Returns:
        The re-ranker, and what was measured: whether it should be ``served``, NDCG@20 of the
        heads, its ratio to that before with an interval, and milliseconds a list.
    """
    settings = surface.reranker
    heads = [_heads(window, ranker, trees, surface) for window in windows]
    training, later = [head for part in heads[:-1] for head in part], heads[-1]
    # The watched half chooses the epoch, so that it cannot judge.
    watched, judged = later[::2], later[1::2]
    if min(len(training), len(watched), len(judged)) < FEWEST_LISTS:
        found = f"{len(training)} and {len(later)} lists with a new edge in their head"
        return None, {"served": False, "reason": f"too few to learn from: {found}"}
    model, curve = CrossAttention.fit(training, watched, settings)
    # A last layer of 0 corrects nothing: the order of the ranker alone.
    before = CrossAttention(settings, {**model.arrays, "last": np.zeros_like(model.arrays["last"])})
    started = time.perf_counter()
    after = model.qualities(judged)
    spent_ms = (time.perf_counter() - started) * 1e3 / len(judged)
    ratio = paired_bootstrap(after, before.qualities(judged)).ratio
    # The low end, because a mean above 1 may be chance.
    served = ratio.low > 1.0
    return model, {
        "served": served,
        "reason": "ranks the heads of the last window better" if served else "no certain gain",
        "ndcg": round(float(after.mean()), 6),
        "ratio": [round(value, 4) for value in (ratio.mean, ratio.low, ratio.high)],
        "watched": [round(value, 6) for value in curve],
        "lists": [len(training), len(watched), len(judged)],
        "milliseconds": round(spent_ms, 3),
    }


def _heads(
    window: LabelWindow, ranker: CalibratedRanker, trees: int, surface: SurfaceConfig
) -> list[HeadList]:
    """Heads with a new edge, ranked by a ranker that has not seen the window."""
    earlier = [part for part in window.earlier if (part.label > 0).any()]
    if not earlier:
        return []
    task = Task(ranker.features, surface.ranker)
    unseen = learners()[ranker.name].whole(task, LabelledRows.joined(earlier), trees)
    unseen.calibrator = ranker.calibrator
    pipeline, settings = window.pipeline.with_ranker(unseen), surface.reranker
    random = np.random.default_rng([settings.seed, 4])
    queries = random.permutation(np.flatnonzero(window.positives.degree))[: settings.queries]
    heads = []
    for requests in batches(queries, pipeline.scope.snapshot.as_of, 1):
        ranked = pipeline.run(requests)
        pair = requests.query[ranked.row_query], ranked.candidate
        label = window.positives.weights(*pair)
        for row in range(len(requests)):
            head = head_of(pipeline.scope, settings, requests, ranked, row, SCORE, label)
            if head.label.any():
                heads.append(head)
    return heads
