"""Candidates that joined or were active most recently, so that new ones get impressions."""

from __future__ import annotations

import numpy as np

from nextedge.graph.scope import Scope
from nextedge.retrieval.popular import SharedOrder
from nextedge.retrieval.source import NoConfig
from nextedge.types import FloatArray


class Recent(SharedOrder[NoConfig]):
    """Candidates by the time of their latest edge, or of their arrival."""

    name = "recent"
    reason = "new"

    @classmethod
    def usable(cls, scope: Scope) -> bool:
        return scope.timed

    @classmethod
    def popularity(cls, scope: Scope, config: NoConfig) -> FloatArray:
        latest = np.zeros(scope.graph.targets, np.int64)
        np.maximum.at(latest, scope.graph.indices, scope.graph.last)
        created = scope.candidate_attributes.instant("created_at")
        if created is not None:
            # A creation time after the snapshot is no news yet.
            latest = np.maximum(latest, np.where(created <= scope.snapshot.as_of, created, 0))
        days = (latest - scope.snapshot.as_of) / 86_400_000_000
        return np.exp2(np.maximum(days, -3650.0) / 365.0).astype(np.float32)
