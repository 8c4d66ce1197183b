"""The labels of a window: edges that appear after its snapshot."""

from __future__ import annotations

import numpy as np

from nextedge.build.time_split.history import EdgeRecords
from nextedge.build.time_split.pairs import Pairs
from nextedge.build.time_split.split import Window
from nextedge.build.training_set.impression_outcomes import action_worth
from nextedge.config import RankerConfig
from nextedge.graph.csr import Graph, build_graph, mirrored
from nextedge.graph.scope import Scope
from nextedge.types import FloatArray


def positives_of(
    scope: Scope, pairs: Pairs, window: Window, worth: FloatArray | None = None
) -> Graph:
    """The window's new edges between a known query and a known candidate, query by query.

    Args:
        worth: float32[pairs], the weight of each edge; pairs of 0 are left out. None is 1 each.
    """
    worth = np.ones(len(pairs.source), np.float32) if worth is None else worth
    labels = window.labels & (worth > 0)
    source, target, value = pairs.source[labels], pairs.target[labels], worth[labels]
    if pairs.symmetric:
        source, target, value = mirrored(source, target, value)  # type: ignore[assignment]
    known = scope.recommendable[target] & scope.snapshot.known_users[source]
    # Sources leave existing edges out, so that none can be found.
    known &= ~scope.graph.contains(source, target)
    return build_graph(
        source[known], target[known], len(scope.graph), scope.graph.targets, value[known]
    )


def edge_worth(
    records: EdgeRecords, pairs: Pairs, end: int | None, settings: RankerConfig
) -> FloatArray | None:
    """float32[pairs]: worth of each pair's best event up to ``end``; None is 1 each."""
    if records.action is None or not settings.action_weights:
        return None
    value = action_worth(records.action, settings)
    if end is not None:
        # A better event after the window would leak into its label.
        value = np.where(records.time <= end, value, 0.0)
    worth = np.zeros(len(pairs.source), np.float32)
    np.maximum.at(worth, pairs.numbers(records), value.astype(np.float32))
    return worth
