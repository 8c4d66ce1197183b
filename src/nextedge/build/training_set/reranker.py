"""Training of the re-ranker: on the heads of lists that a ranker of earlier windows made.

It is fitted on the windows between the first and the last, watched on half of the last window's queries and
judged on the other half. Where it does not rank those better for certain it is not served.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nextedge.config import SurfaceConfig
from nextedge.evaluation.bootstrap import paired_bootstrap
from nextedge.graph.csr import Graph
from nextedge.models.rankers.cross_attention import CrossAttention, HeadList
from nextedge.models.rankers.labelled_rows import LabelledRows
from nextedge.models.rankers.learners import learners
from nextedge.models.rankers.ranker import CalibratedRanker
from nextedge.ranking.pipeline import SCORE, RankingPipeline
from nextedge.ranking.reranker import head_of
from nextedge.types import Requests

FEWEST_LISTS = 40
_BATCH = 64


@dataclass(frozen=True, eq=False)
class LabelWindow:
    """A window's line without ranker, its new edges, and the labelled rows before it."""

    line: RankingPipeline
    positives: Graph
    earlier: Sequence[LabelledRows]


def train_reranker(
    windows: Sequence[LabelWindow], ranker: CalibratedRanker, trees: int, surface: SurfaceConfig
) -> tuple[CrossAttention | None, dict[str, Any]]:
    """Fit on all windows but the last and judge on that; None where there is too little.

    Args:
        ranker: the one that is served, whose kind and calibration the others share.
        trees: how many it has.

    Returns:
        The re-ranker, and what was measured: whether it should be ``served``, NDCG@20 of the
        heads, its ratio to that before with an interval, and milliseconds a list.
    """
    settings = surface.reranker
    heads = [_heads(window, ranker, trees, surface) for window in windows]
    fitted, later = [each for part in heads[:-1] for each in part], heads[-1]
    watched, judged = later[::2], later[1::2]
    if min(len(fitted), len(watched), len(judged)) < FEWEST_LISTS:
        found = f"{len(fitted)} and {len(later)} lists with a new edge in their head"
        return None, {"served": False, "reason": f"too few to learn from: {found}"}
    model, curve = CrossAttention.fit(fitted, watched, settings)
    before = CrossAttention(settings, {**model.arrays, "last": np.zeros_like(model.arrays["last"])})
    started = time.perf_counter()
    after = model.qualities(judged)
    spent_ms = (time.perf_counter() - started) * 1e3 / len(judged)
    ratio = paired_bootstrap(after, before.qualities(judged)).ratio
    served = ratio.low > 1.0
    return model, {
        "served": served,
        "reason": "ranks the heads of the last window better" if served else "no certain gain",
        "ndcg": round(float(after.mean()), 6),
        "ratio": [round(value, 4) for value in (ratio.mean, ratio.low, ratio.high)],
        "watched": [round(value, 6) for value in curve],
        "lists": [len(fitted), len(watched), len(judged)],
        "milliseconds": round(spent_ms, 3),
    }


def _heads(
    window: LabelWindow, ranker: CalibratedRanker, trees: int, surface: SurfaceConfig
) -> list[HeadList]:
    """Heads that hold a new edge, ranked by a ranker that has not seen the window."""
    earlier = [part for part in window.earlier if (part.label > 0).any()]
    if not earlier:
        return []
    unseen = learners()[ranker.name].whole(
        LabelledRows.joined(earlier), ranker.features, surface.ranker, trees
    )
    unseen.calibrator = ranker.calibrator
    line, settings = window.line.with_ranker(unseen), surface.reranker
    random = np.random.default_rng([settings.seed, 4])
    queries = random.permutation(np.flatnonzero(window.positives.degree))[: settings.queries]
    found = []
    for start in range(0, len(queries), _BATCH):
        query = queries[start : start + _BATCH].astype(np.int32)
        requests = Requests(query, line.scope.snapshot.as_of, 1)
        ranked = line.run(requests)
        label = window.positives.weights(query[ranked.row_query], ranked.candidate)
        for row in range(len(query)):
            head = head_of(line.scope, settings, requests, ranked, row, SCORE, label)
            if head.label.any():
                found.append(head)
    return found
