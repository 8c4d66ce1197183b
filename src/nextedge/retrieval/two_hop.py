"""Friends of friends: candidates at distance two, by Adamic-Adar over common neighbors.

Adamic, Adar: "Friends and Neighbors on the Web", Social Networks 25(3), 2003.
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from nextedge.config import Settings
from nextedge.graph.scope import Scope
from nextedge.graph.two_hop import Score, pair_scores, top_two_hop
from nextedge.graph.wedge_join import WedgeJoin
from nextedge.retrieval.source import Source
from nextedge.types import CONNECTS, Candidates, FloatArray, Requests

JOINED = "found_"
"""Prefix of the arrays that an engine's join wrote: ``query`` ascending, and ``indptr``,
``candidate`` and ``score`` of their candidates, best first."""


class TwoHopConfig(Settings):
    """Settings of the two-hop source."""

    min_common: int = Field(1, ge=0)
    """Fewest common neighbors of a candidate."""
    score: Score = "adamic_adar"
    """Neighborhood score that orders the candidates."""
    hub_cap: int = Field(0, ge=0)
    """The walk skips neighbors with more edges than this; 0 = no limit."""


class TwoHop(Source[TwoHopConfig]):
    """People who share connections with the query."""

    name = "two_hop"
    relations = (CONNECTS,)
    reason = "mutual_connections"

    @classmethod
    def usable(cls, scope: Scope) -> bool:
        return scope.snapshot.connections.edges > 0

    def join(self, limit: int) -> WedgeJoin:
        """The join that gives the same candidates, for an engine to run."""
        config = self.config
        return WedgeJoin(limit, config.min_common, config.score, config.hub_cap or None)

    def candidates(self, requests: Requests, limit: int) -> Candidates:
        if f"{JOINED}query" in self.arrays:
            return self._joined(requests).head(limit)
        graph, config = self.scope.graph, self.config
        hops = top_two_hop(
            graph.indptr,
            graph.indices,
            requests.query,
            n=limit,
            min_common=config.min_common,
            score=config.score,
            hub_cap=config.hub_cap or None,  # a cap of 0 would skip every neighbor
        )
        return Candidates(hops.indptr, hops.candidate, {"score": getattr(hops, config.score)})

    def _joined(self, requests: Requests) -> Candidates:
        query, indptr, candidate, score = (
            self.arrays[f"{JOINED}{name}"] for name in ("query", "indptr", "candidate", "score")
        )
        # The join covers every query of a window, so each one has a row.
        row = np.searchsorted(query, requests.query)
        size = indptr[row + 1] - indptr[row]
        starts = np.concatenate(([0], np.cumsum(size)))
        joined = np.arange(starts[-1]) + np.repeat(indptr[row] - starts[:-1], size)
        return Candidates(starts, candidate[joined], {"score": score[joined]})

    def pair_scores(self, requests: Requests, candidates: Candidates) -> FloatArray:
        graph, pairs = self.scope.graph, (candidates.indptr, candidates.candidate)
        hops = pair_scores(graph.indptr, graph.indices, requests.query, *pairs)
        score: FloatArray = getattr(hops, self.config.score)
        return score
