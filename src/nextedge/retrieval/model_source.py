"""Candidates by fitted models: dot products of embeddings, similarities to the history, or both.

One source a model, each named as its model; a model that is switched off is never fitted.
"""

from __future__ import annotations

from functools import cached_property
from typing import ClassVar

import numpy as np
from pydantic import ValidationError

from nextedge.errors import ConfigError
from nextedge.features.node_features import node_features
from nextedge.graph.decay import latest_first
from nextedge.graph.scope import Scope, cached_per_snapshot
from nextedge.index.sharded import Searcher
from nextedge.models.artifact import Artifact
from nextedge.models.model import Model, ModelConfig, TrainingData, model_classes
from nextedge.models.scoring import pair_scores, top_candidates
from nextedge.retrieval.eligibility import eligible
from nextedge.retrieval.source import Arrays, Options, Source
from nextedge.types import CONNECTS, ENGAGES, Candidates, FloatArray, IndexArray, IntArray, Requests


class ModelSource(Source):
    """What one fitted model scores highest."""

    model: ClassVar[str]
    index: Searcher | None = None
    """Over the candidates' embeddings; without one all candidates are compared."""

    @classmethod
    def usable(cls, scope: Scope) -> bool:
        return scope.graph.edges > 0

    @classmethod
    def fit(cls, scope: Scope, options: Options) -> Arrays:
        """Arrays of a model that is cheap enough to be fitted for every graph."""
        model = cls.model_class()()
        artifact = model.fit(training_data(scope), cls.config(options), lambda *_: None)
        return dict(artifact.arrays)

    @classmethod
    def model_class(cls) -> type[Model]:
        """The model's class."""
        return model_classes()[cls.model]

    @classmethod
    def config(cls, options: Options) -> ModelConfig:
        """The model's settings; raises ConfigError where an option is none of them."""
        try:
            return cls.model_class().config_class.model_validate(options)
        except ValidationError as error:
            faults = "; ".join(
                f"{'.'.join(map(str, fault['loc']))}: {fault['msg']} (given: {fault['input']!r})"
                for fault in error.errors()
            )
            raise ConfigError(f"options of source {cls.name!r}: {faults}") from None

    @cached_property
    def artifact(self) -> Artifact:
        """The fitted model."""
        return Artifact(self.model, self.config(self.options).model_dump(), self.arrays)

    def candidates(self, requests: Requests, limit: int) -> Candidates:
        excluded = self.scope.excluded(requests)
        if self.index is not None:
            return self._nearest(self.index, requests, limit, excluded)
        return top_candidates(
            self.artifact, self.scope.graph, requests.query, limit, excluded, self.weight
        )

    def pair_scores(self, requests: Requests, candidates: Candidates) -> FloatArray:
        return pair_scores(
            self.artifact,
            self.scope.graph,
            requests.query,
            candidates.indptr,
            candidates.candidate,
            self.weight,
        )

    def _nearest(
        self, index: Searcher, requests: Requests, limit: int, excluded: tuple[IntArray, IndexArray]
    ) -> Candidates:
        """What the index finds: so many more than asked for as may have to be left out."""
        rows = np.flatnonzero(requests.query >= 0)
        vectors = self.arrays["query"][requests.query[rows]]
        hidden = np.diff(excluded[0])
        allowed = eligible(self.scope, requests) if requests.filters else None
        most = limit + int(hidden.max(initial=0))
        found, score = index.search(vectors, most, allowed, requests.waiting)
        row = np.repeat(rows, found.shape[1])
        keys = (np.repeat(np.arange(len(hidden)), hidden) << 32) | excluded[1]
        kept = (found.ravel() >= 0) & ~np.isin((row << 32) | found.ravel(), keys)
        kept &= score.ravel() != 0  # a vector of zeros: nothing is known of it
        kept &= np.repeat(np.abs(vectors).sum(axis=1) > 0, found.shape[1])
        size = np.bincount(row[kept], minlength=len(requests))
        indptr = np.concatenate(([0], np.cumsum(size)))
        return Candidates(indptr, found.ravel()[kept], {"score": score.ravel()[kept]}).head(limit)

    @property
    def weight(self) -> FloatArray | None:
        """float32[E]: what each edge of a history counts, or None where all count 1."""
        return None


def training_data(scope: Scope) -> TrainingData:
    """What a model may read of a scope."""
    snapshot, own = scope.snapshot, scope.relation.self_typed
    users = _user_features(scope)
    items = users if own else _item_features(scope)
    others = {"engagements": snapshot.engagements} if own else {"connections": snapshot.connections}
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


class AlsSource(ModelSource):
    """Items by alternating least squares."""

    name = model = "als"
    relations = (ENGAGES,)
    reason = "people_like_you"


class EaseSource(ModelSource):
    """Items by regression on the query's own."""

    name = model = "ease"
    relations = (ENGAGES,)
    reason = "because_you_liked"


class GraphFilterSource(ModelSource):
    """Items by the closed-form graph filter."""

    name = model = "graph_filter"
    relations = (ENGAGES,)
    reason = "because_you_liked"


class SlistSource(ModelSource):
    """Items that follow what the query engaged with last."""

    name = model = "slist"
    relations = (ENGAGES,)
    reason = "because_you_liked"

    @classmethod
    def usable(cls, scope: Scope) -> bool:
        return scope.timed and scope.graph.edges > 0

    @property
    def weight(self) -> FloatArray | None:
        return _history_decay(self.scope, float(self.arrays["decay"]))


class GraphSageSource(ModelSource):
    """People whom the inductive graph network puts near."""

    name = model = "graphsage"
    relations = (CONNECTS,)
    reason = "close_in_network"
    enabled = False


class LightGcnSource(ModelSource):
    """Candidates near in embeddings that were smoothed over the graph."""

    name = model = "lightgcn"
    reason = "people_like_you"
    enabled = False


class BprSource(ModelSource):
    """Candidates by matrix factorisation with a pairwise loss."""

    name = model = "bpr"
    reason = "people_like_you"
    enabled = False


class TwoTowerSource(ModelSource):
    """Candidates whose tower's vector is near the query's."""

    name = model = "two_tower"
    reason = "people_like_you"
    enabled = False


class SasRecSource(ModelSource):
    """Items that the sequential tower expects next."""

    name = model = "sasrec"
    relations = (ENGAGES,)
    reason = "because_you_liked"
    enabled = False

    @classmethod
    def usable(cls, scope: Scope) -> bool:
        return scope.timed and scope.graph.edges > 0
