"""Candidates of fitted models: by dot products of embeddings, similarities to the history, or both.

Every model is a source with the model's name; a build does not fit a model that is switched off.
"""

from __future__ import annotations

from functools import cache, cached_property
from typing import Any, ClassVar

import numpy as np

from nextedge.features.node_features import node_features
from nextedge.graph.decay import latest_first
from nextedge.graph.scope import Scope, cached_per_snapshot
from nextedge.index.sharded import Searcher
from nextedge.models.artifact import Artifact
from nextedge.models.model import Model, ModelConfig, TrainingData
from nextedge.models.scoring import pair_scores, top_candidates
from nextedge.retrieval.eligibility import eligible
from nextedge.retrieval.source import Arrays, Source
from nextedge.types import Candidates, FloatArray, IndexArray, IntArray, Requests


class ModelSource(Source[ModelConfig]):
    """The candidates with the highest scores of one fitted model."""

    model: ClassVar[type[Model[Any]]]
    index: Searcher | None = None
    """Index of the candidates' embeddings; None compares with all candidates."""

    @classmethod
    def usable(cls, scope: Scope) -> bool:
        return scope.graph.edges > 0 and (scope.timed or not cls.model.needs_times)

    @classmethod
    def fit(cls, scope: Scope, config: ModelConfig) -> Arrays:
        """Return the arrays of a model that is cheap enough to fit for every graph."""
        artifact = cls.model().fit(training_data(scope), config, lambda *_: None)
        return dict(artifact.arrays)

    @cached_property
    def artifact(self) -> Artifact:
        """The fitted model."""
        return Artifact(self.name, self.config.model_dump(), self.arrays)

    def candidates(self, requests: Requests, limit: int) -> Candidates:
        excluded = self.scope.excluded(requests)
        if self.index is not None:
            return self._nearest(self.index, requests, limit, excluded)
        return top_candidates(
            self.artifact, self.scope.graph, requests.query, limit, excluded, self.weight
        )

    def pair_scores(self, requests: Requests, candidates: Candidates) -> FloatArray:
        pairs = candidates.indptr, candidates.candidate
        return pair_scores(self.artifact, self.scope.graph, requests.query, *pairs, self.weight)

    def _nearest(
        self, index: Searcher, requests: Requests, limit: int, excluded: tuple[IntArray, IndexArray]
    ) -> Candidates:
        # An unknown query is -1, which would read the last user's vector.
        rows = np.flatnonzero(requests.query >= 0)
        vectors = self.arrays["query"][requests.query[rows]]
        hidden = np.diff(excluded[0])
        allowed = eligible(self.scope, requests) if requests.filters else None
        # The index does not know the excluded candidates, so ask for as many more.
        width = limit + int(hidden.max(initial=0))
        nearest_QN, score_QN = index.search(vectors, width, allowed, requests.waiting)
        nearest, score = nearest_QN.ravel(), score_QN.ravel()
        row = np.repeat(rows, nearest_QN.shape[1])
        # A pair as one number, to look it up among the excluded pairs.
        pairs = (np.repeat(np.arange(len(hidden)), hidden) << 32) | excluded[1]
        valid = (nearest >= 0) & ~np.isin((row << 32) | nearest, pairs)
        # A vector of zeros belongs to a node that the model has not seen.
        valid &= score != 0
        valid &= np.repeat(np.abs(vectors).sum(axis=1) > 0, nearest_QN.shape[1])
        size = np.bincount(row[valid], minlength=len(requests))
        indptr = np.concatenate(([0], np.cumsum(size)))
        return Candidates(indptr, nearest[valid], {"score": score[valid]}).head(limit)

    @property
    def weight(self) -> FloatArray | None:
        """float32[E]: weight of each edge of a history; None if all weigh the same."""
        decay = self.arrays.get("decay")
        return None if decay is None else _history_decay(self.scope, float(decay))


@cache
def source_of(model: type[Model[Any]]) -> type[ModelSource]:
    """Return the source class of a model: a subclass of ``ModelSource`` with the model's name."""
    attributes = ("name", "relations", "reason", "enabled", "config_class", "__doc__")
    members = {attribute: getattr(model, attribute) for attribute in attributes}
    return type(f"{model.__name__}Source", (ModelSource,), {**members, "model": model})


def training_data(scope: Scope) -> TrainingData:
    """Return the part of a scope that a model may read."""
    snapshot, people = scope.snapshot, scope.relation.self_typed
    users = _user_features(scope)
    items = users if people else _item_features(scope)
    other = "engagements" if people else "connections"
    others = {other: getattr(snapshot, other)}
    return TrainingData(scope.relation, scope.graph, users, items, others)


@cached_per_snapshot
def _user_features(scope: Scope) -> FloatArray | None:
    entities = scope.snapshot.entities
    return node_features(entities.user_attributes, len(entities.users))


@cached_per_snapshot
def _item_features(scope: Scope) -> FloatArray | None:
    entities = scope.snapshot.entities
    return node_features(entities.item_attributes, len(entities.items))


@cached_per_snapshot
def _history_decay(scope: Scope, decay: float) -> FloatArray:
    """float32[E]: 1 for each query's latest edge, ``decay`` for the one before, …"""
    return (decay ** latest_first(scope)).astype(np.float32)
