"""The two-stage path of one surface: sources → merge → features → ranker.

Training, evaluation, ``recommend --all`` and a single request all run this object; the
policy that follows is in ``nextedge.stages.policy``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

import numpy as np

from nextedge.config import SurfaceConfig
from nextedge.features.feature import FeatureInput, FeatureSet
from nextedge.models.artifact import Artifact
from nextedge.models.ranker import Ranker
from nextedge.stages.embedding import ModelSource, training_data
from nextedge.stages.merge import (
    ROUGH,
    gather_sources,
    merge_candidates,
    rank_column,
    score_column,
    standard_column,
)
from nextedge.stages.source import Arrays, Scope, Source, source_classes
from nextedge.types import Candidates, FloatArray, Requests

SCORE = "score"


@dataclass(frozen=True, eq=False)
class Line:
    """Everything that turns a batch of requests into ranked candidates.

    Attributes:
        scope: snapshot and relation.
        sources: fitted candidate sources by name.
        limits: candidates per query of each source.
        size: candidates per query after the merge.
        features: the columns that the ranker reads.
        ranker: orders the candidates; None ranks by the rough score.
        weights: weight of each source in the rough score, default 1.
    """

    scope: Scope
    sources: Mapping[str, Source]
    limits: Mapping[str, int]
    size: int
    features: FeatureSet
    ranker: Ranker | None = None
    weights: Mapping[str, float] = field(default_factory=dict)

    def with_ranker(self, ranker: Ranker) -> Line:
        """The same line with a ranker, and the columns in the order that it was trained on."""
        return replace(self, ranker=ranker, features=self.features.ordered_as(ranker.features))

    def retrieve(self, requests: Requests) -> Candidates:
        """Merged candidates of all sources, by rough score."""
        if not self.sources:
            return Candidates.empty(len(requests))
        found = gather_sources(self.sources, self.limits, requests)
        return merge_candidates(found, self.scope.known, self.size, self.weights)

    def matrix(self, requests: Requests, candidates: Candidates) -> FloatArray:
        """float32[R, F]: the ranker's features of the candidates."""
        return self.features.matrix(FeatureInput(self.scope, requests, candidates))

    def rank(self, requests: Requests, candidates: Candidates) -> Candidates:
        """The candidates with a ``score``, best first."""
        if self.ranker is None:
            score = candidates.columns.get(ROUGH, np.zeros(0, np.float32))
        else:
            score = self.ranker.predict(self.matrix(requests, candidates), candidates)
        return candidates.with_columns(**{SCORE: score}).sorted_by(SCORE)

    def run(self, requests: Requests) -> Candidates:
        """Retrieve and rank."""
        return self.rank(requests, self.retrieve(requests))


def fit_sources(
    scope: Scope, surface: SurfaceConfig, trained: Mapping[str, Artifact]
) -> dict[str, Arrays]:
    """Arrays of every enabled source that the tenant's tables can feed.

    ``trained`` models only make their embeddings of this scope; one that is missing there
    could not be trained, and its source is left out.
    """
    arrays = {}
    for name, cls in enabled_sources(scope, surface).items():
        setting = surface.sources.get(name)
        if not _is_trained(cls):
            arrays[name] = cls.fit(scope, setting.options if setting else {})
        elif name in trained:
            model = cast(type[ModelSource], cls).model_class()()
            arrays[name] = dict(model.embed(trained[name], training_data(scope)).arrays)
    return arrays


def _is_trained(cls: type[Source]) -> bool:
    return issubclass(cls, ModelSource) and cls.model_class().trained


def enabled_sources(scope: Scope, surface: SurfaceConfig) -> dict[str, type[Source]]:
    """Source classes that apply to the relation, are usable, and are not switched off."""
    return {
        name: cls
        for name, cls in sorted(source_classes().items())
        if scope.relation in cls.relations
        and (surface.sources[name].enabled if name in surface.sources else cls.enabled)
        and cls.usable(scope)
    }


def declared_features(
    scope: Scope, surface: SurfaceConfig, exclude: Sequence[str] = ()
) -> FeatureSet:
    """The features of a surface: those its tables allow, but none of sources that are off."""
    off = source_classes().keys() - enabled_sources(scope, surface).keys()
    columns = [
        column
        for name in off
        for column in (score_column(name), rank_column(name), standard_column(score_column(name)))
    ]
    return FeatureSet.of(scope, (*exclude, *columns))


def build_line(
    scope: Scope,
    surface: SurfaceConfig,
    arrays: Mapping[str, Arrays],
    *,
    features: FeatureSet,
    ranker: Ranker | None = None,
) -> Line:
    """A line over fitted sources.

    ``features`` are declared on the tenant's whole history, so that every window has the
    same columns; what a window cannot compute is missing there.
    """
    sources, limits = {}, {}
    for name, cls in enabled_sources(scope, surface).items():
        if _is_trained(cls) and name not in arrays:
            continue
        setting = surface.sources.get(name)
        options = setting.options if setting else {}
        sources[name] = cls(scope, options, arrays.get(name, {}))
        limits[name] = (setting.limit if setting else None) or surface.candidates
    return Line(scope, sources, limits, surface.candidates, features, ranker)
