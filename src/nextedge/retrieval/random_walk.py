"""Candidates by a random walk with restart.

``combined_walk`` walks over connections and engagements: users and items are nodes of one graph,
so it reaches people through shared items, and items through people.
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from nextedge.config import Settings
from nextedge.graph.csr import build_graph
from nextedge.graph.random_walk import pair_walk, top_walk
from nextedge.graph.scope import Scope
from nextedge.retrieval.source import Arrays, Source
from nextedge.types import Candidates, FloatArray, Requests


class RandomWalkConfig(Settings):
    """Settings of a random walk."""

    restart: float = Field(0.3, gt=0, le=1)
    """Chance that a step goes back to the query."""
    tolerance: float = Field(1e-6, gt=0)
    """Residual mass per edge below which the walk does not expand a node."""


class RandomWalk(Source[RandomWalkConfig]):
    """Personalised PageRank over the edges of the predicted relation."""

    name = "random_walk"
    reason = "close_in_network"

    @classmethod
    def usable(cls, scope: Scope) -> bool:
        return scope.graph.edges > 0

    @classmethod
    def fit(cls, scope: Scope, config: RandomWalkConfig) -> Arrays:
        if scope.relation.self_typed:  # the snapshot has this adjacency already
            return {}
        return _union_graph(scope, connections=False)

    @property
    def _offset(self) -> int:
        # Items follow the users in the numbering of the union graph.
        return 0 if self.scope.relation.self_typed else len(self.scope.snapshot.entities.users)

    def _adjacency(self) -> tuple[np.ndarray, np.ndarray]:
        if "indptr" in self.arrays:
            return self.arrays["indptr"], self.arrays["indices"]
        return self.scope.graph.indptr, self.scope.graph.indices

    def candidates(self, requests: Requests, limit: int) -> Candidates:
        indptr, indices = self._adjacency()
        offset = self._offset
        excluded_indptr, excluded = self.scope.excluded(requests)
        ranked = top_walk(
            indptr,
            indices,
            requests.query,
            n=limit,
            exclude=(excluded_indptr, excluded + np.int32(offset)),
            low=offset,  # the walk reaches users too, who are no candidates
            high=offset + self.scope.graph.targets,
            restart=self.config.restart,
            tolerance=self.config.tolerance,
        )
        return Candidates(ranked.indptr, ranked.candidate - np.int32(offset), ranked.columns)

    def pair_scores(self, requests: Requests, candidates: Candidates) -> FloatArray:
        return pair_walk(
            *self._adjacency(),
            requests.query,
            candidates.indptr,
            candidates.candidate + np.int32(self._offset),
            restart=self.config.restart,
            tolerance=self.config.tolerance,
        )


class CombinedWalk(RandomWalk):
    """Personalised PageRank over connections and engagements as one graph."""

    name = "combined_walk"
    reason = "close_in_network"

    @classmethod
    def usable(cls, scope: Scope) -> bool:
        return scope.snapshot.connections.edges > 0 and scope.snapshot.engagements.edges > 0

    @classmethod
    def fit(cls, scope: Scope, config: RandomWalkConfig) -> Arrays:
        return _union_graph(scope, connections=True)


def _union_graph(scope: Scope, *, connections: bool) -> Arrays:
    """Symmetric adjacency of users (first) and items over engagements, and connections too."""
    snapshot = scope.snapshot
    users, items = len(snapshot.entities.users), len(snapshot.entities.items)
    engaged = snapshot.engagements
    user = np.repeat(np.arange(users, dtype=np.int32), engaged.degree)
    item = (engaged.indices + users).astype(np.int32)
    # Both directions, so that the walk returns from an item to its users.
    source, target = [user, item], [item, user]
    if connections:
        friends = snapshot.connections
        ends = np.repeat(np.arange(users, dtype=np.int32), friends.degree)
        source += [ends, np.asarray(friends.indices)]  # repeated pairs merge below
        target += [np.asarray(friends.indices), ends]
    graph = build_graph(
        np.concatenate(source), np.concatenate(target), users + items, users + items
    )
    return {"indptr": graph.indptr, "indices": graph.indices}
