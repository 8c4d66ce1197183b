"""The two-stage path of one surface: sources → merge → features → ranker → re-ranker.

Training, evaluation, ``recommend --all`` and a single request all run this object. The policy
follows it (``nextedge.policy.policy``).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, cast

import numpy as np

from nextedge.config import SourceConfig, SurfaceConfig
from nextedge.features.feature import FeatureInput, FeatureSet
from nextedge.graph.scope import Scope
from nextedge.models.artifact import Artifact
from nextedge.models.inference import IN_PROCESS, Inference
from nextedge.models.rankers.ranker import Ranker
from nextedge.ranking.reranker import Reranker
from nextedge.retrieval.eligibility import eligible, share_eligible
from nextedge.retrieval.fusion import Fusion
from nextedge.retrieval.merge import merge_candidates
from nextedge.retrieval.model_source import ModelSource, training_data
from nextedge.retrieval.registry import SourceClass, enabled_sources, source_classes, source_config
from nextedge.retrieval.source import Arrays, Source
from nextedge.retrieval.source_features import source_features
from nextedge.types import (
    ROUGH,
    BoolArray,
    Candidates,
    FloatArray,
    IndexArray,
    Requests,
    standard_column,
)

RunSource = Callable[[str, Callable[[], Candidates]], Candidates | None]
SCORE = "score"
_WIDEST = 8.0
"""Most candidates of a source, as a multiple of its limit, where a filter drops many of them."""


def blank_of(name: str, values: np.ndarray) -> float | int:
    """Value of a column for a candidate that no source has."""
    if name in (SCORE, ROUGH) or name.endswith(standard_column("")):
        return 0
    return np.nan if values.dtype.kind == "f" else int(np.iinfo(values.dtype).max)


def ordered(candidates: Candidates, score: FloatArray) -> Candidates:
    """The candidates of each query with a ``score`` (float32[R]), best first."""
    return candidates.with_columns(**{SCORE: score}).sorted_by(SCORE)


def ranked_as(ranked: Candidates, lists: Sequence[IndexArray]) -> Candidates:
    """The candidates of each list, in order, with their columns in ``ranked``.

    A candidate that is not in ``ranked`` has score 0 and blank columns.
    """
    positions: list[int] = []
    for rows, wanted in zip(ranked.rows(), lists, strict=True):
        known = {c: rows.start + at for at, c in enumerate(ranked.candidate[rows].tolist())}
        positions += [known.get(int(c), -1) for c in wanted]
    row = np.asarray(positions, np.int64)
    is_ranked = row >= 0
    columns = {}
    for name, values in ranked.columns.items():
        columns[name] = np.full(len(row), blank_of(name, values), values.dtype)
        columns[name][is_ranked] = values[row[is_ranked]]
    indptr = np.concatenate(([0], np.cumsum([len(wanted) for wanted in lists], dtype=np.int64)))
    return Candidates(indptr, np.concatenate(lists).astype(np.int32), columns)


@dataclass(frozen=True, eq=False)
class RankingPipeline:
    """Turns a batch of requests into ranked candidates.

    Attributes:
        scope: snapshot and relation.
        sources: fitted candidate sources by name.
        limits: candidates per query of each source.
        size: candidates per query after the merge.
        features: the columns that the ranker reads.
        ranker: orders the candidates; None orders by the rough score.
        cold_start_ranker: orders those of queries without an edge; None: ``ranker`` does.
        reranker: orders the head of every list anew; None keeps it.
        fusion: worth of a rank in each source, in the rough score.
    """

    scope: Scope
    sources: Mapping[str, Source[Any]]
    limits: Mapping[str, int]
    size: int
    features: FeatureSet
    ranker: Ranker | None = None
    cold_start_ranker: Ranker | None = None
    reranker: Reranker | None = None
    fusion: Fusion = field(default_factory=Fusion)

    def with_ranker(self, ranker: Ranker, cold_start: Ranker | None = None) -> RankingPipeline:
        """The same pipeline with rankers, and the features in the order of their training."""
        features = self.features.ordered_as(ranker.features)
        return replace(self, ranker=ranker, cold_start_ranker=cold_start, features=features)

    def over(self, scope: Scope) -> RankingPipeline:
        """The same pipeline over a scope of the same entities with other edges."""
        sources = {name: source.over(scope) for name, source in self.sources.items()}
        reranker = None if self.reranker is None else replace(self.reranker, scope=scope)
        return replace(self, scope=scope, sources=sources, reranker=reranker)

    def retrieve(self, requests: Requests, run: RunSource = lambda _, find: find()) -> Candidates:
        """Merged candidates of the sources, by rough score, without those that a filter drops.

        Args:
            run: gets the name of a source and the call that retrieves its candidates; returns
                them, or None to leave the source out.
        """
        if not self.sources:
            return Candidates.empty(len(requests))
        return self.merge(requests, self.search(requests, run))

    def search(
        self, requests: Requests, run: RunSource = lambda _, search: search()
    ) -> dict[str, Candidates]:
        """Each source's own candidates, best first; ``run`` as of ``retrieve``."""
        # The merge drops what the filters refuse, so each source is asked for more.
        wider = min(1.0 / max(share_eligible(self.scope, requests), 1e-9), _WIDEST)
        # The merge reads a score of every source, also of one that was left out.
        empty = Candidates.empty(len(requests)).with_columns(score=np.zeros(0, np.float32))
        found = {}
        for name, source in self.sources.items():
            part = run(name, partial(source.candidates, requests, int(self.limits[name] * wider)))
            found[name] = empty if part is None else part
        return found

    def merge(self, requests: Requests, found: Mapping[str, Candidates]) -> Candidates:
        """The union of the sources' candidates, by rough score, without those that a filter drops."""
        return merge_candidates(found, eligible(self.scope, requests), self.size, self.fusion)

    def consider(self, requests: Requests, more: Candidates) -> Candidates:
        """Retrieved candidates and, after them, those of ``more`` that no source has."""
        found = self.retrieve(requests)
        indptr, candidate = found.indptr, found.candidate
        missing = np.ones(len(more), bool)
        for rows, retrieved in zip(more.rows(), found.rows(), strict=True):
            missing[rows] = ~np.isin(more.candidate[rows], candidate[retrieved])
        added = more.keep(missing)
        where = np.repeat(indptr[1:], np.diff(added.indptr))
        columns = {
            name: np.insert(values, where, np.full(len(where), blank_of(name, values)))
            for name, values in found.columns.items()
        }
        return Candidates(
            indptr + added.indptr, np.insert(candidate, where, added.candidate), columns
        )

    def matrix(self, requests: Requests, candidates: Candidates) -> FloatArray:
        """float32[R, F]: the ranker's features of the candidates."""
        return self.features.matrix(FeatureInput(self.scope, requests, candidates))

    def renewed(self, requests: Requests, candidates: Candidates, matrix: FloatArray) -> FloatArray:
        """float32[R, F]: cached features, with those that events change computed again."""
        if not self.features.live:
            return matrix
        return self.features.renewed(FeatureInput(self.scope, requests, candidates), matrix)

    def score(
        self, requests: Requests, candidates: Candidates, matrix: FloatArray | None = None
    ) -> FloatArray:
        """float32[R]: probability of each candidate, or its rough score without a ranker.

        Args:
            matrix: the features, where the caller has them.
        """
        if self.ranker is None:
            # An empty list has no columns.
            return candidates.columns.get(ROUGH, np.zeros(0, np.float32))
        matrix = self.matrix(requests, candidates) if matrix is None else matrix
        parts = np.empty(len(candidates), np.float32)
        for ranker, rows in self._ranked_by(requests, candidates):
            parts[rows] = ranker.predict(matrix[rows])
        return parts

    def contributions(self, requests: Requests, candidates: Candidates) -> FloatArray | None:
        """float32[R, F + 1]: contribution of each feature to the raw score, the base last."""
        if self.ranker is None or not len(candidates):
            return None
        matrix = self.matrix(requests, candidates)
        parts = np.zeros((len(matrix), matrix.shape[1] + 1), np.float32)
        for ranker, rows in self._ranked_by(requests, candidates):
            part = ranker.contributions(matrix[rows])
            if part is None:
                return None
            parts[rows] = part
        return parts

    def _ranked_by(
        self, requests: Requests, candidates: Candidates
    ) -> list[tuple[Ranker, BoolArray | slice]]:
        """Each ranker that the batch needs, and its rows."""
        assert self.ranker is not None
        query = requests.query
        # An unknown query is -1, which would read the degree of the last user.
        cold = (query < 0) | (self.scope.graph.degree[np.maximum(query, 0)] == 0)
        if self.cold_start_ranker is None or not cold.any():
            return [(self.ranker, slice(None))]  # a slice copies no rows
        if cold.all():
            return [(self.cold_start_ranker, slice(None))]
        rows = cold[candidates.row_query]
        return [(self.ranker, ~rows), (self.cold_start_ranker, rows)]

    def rank(
        self, requests: Requests, candidates: Candidates, matrix: FloatArray | None = None
    ) -> Candidates:
        """The candidates with a ``score``, best first; ``matrix`` as of ``score``."""
        return self.rerank(requests, ordered(candidates, self.score(requests, candidates, matrix)))

    def rerank(self, requests: Requests, ranked: Candidates) -> Candidates:
        """Ranked candidates, the head of each list in the re-ranker's order where there is one."""
        return ranked if self.reranker is None else self.reranker.rerank(requests, ranked, SCORE)

    def run(self, requests: Requests) -> Candidates:
        """Retrieve and rank."""
        return self.rank(requests, self.retrieve(requests))


def fitted_sources(
    scope: Scope, surface: SurfaceConfig, trained: Collection[str]
) -> dict[str, SourceClass]:
    """The enabled sources of a pipeline over this scope, by name.

    Args:
        trained: models that were trained; a model that is missing here could not be trained, and
            its source is left out.
    """
    enabled = enabled_sources(scope, surface).items()
    return {name: cls for name, cls in enabled if name in trained or not is_trained(cls)}


def fit_source(
    scope: Scope,
    surface: SurfaceConfig,
    name: str,
    trained: Artifact | None = None,
    inference: Inference = IN_PROCESS,
) -> Arrays:
    """Return the arrays of one source; of a model that was trained, its embeddings of this scope."""
    cls = source_classes()[name]
    if trained is None:
        return cls.fit(scope, source_config(surface, cls))
    model = cast(type[ModelSource], cls).model()
    return dict(model.embed(trained, training_data(scope), inference).arrays)


def is_trained(cls: SourceClass) -> bool:
    """Whether a source is a model that is trained once, for several graphs."""
    return issubclass(cls, ModelSource) and cls.model.trained


def declared_features(
    scope: Scope, surface: SurfaceConfig, exclude: Sequence[str] = ()
) -> FeatureSet:
    """The features of a surface that its tables and its enabled sources allow."""
    sources = source_features(list(enabled_sources(scope, surface)))
    return FeatureSet.of(scope, sources, tuple(exclude))


def build_pipeline(
    scope: Scope, surface: SurfaceConfig, arrays: Mapping[str, Arrays], *, features: FeatureSet
) -> RankingPipeline:
    """Return the pipeline over fitted sources.

    Args:
        features: declared on the tenant's whole history, so that every window has the same
            columns; a value that a window cannot compute is missing there.
    """
    sources, limits = {}, {}
    for name, cls in fitted_sources(scope, surface, arrays.keys()).items():
        sources[name] = cls(scope, source_config(surface, cls), arrays.get(name, {}))
        limits[name] = surface.sources.get(name, SourceConfig()).limit or surface.candidates
    return RankingPipeline(scope, sources, limits, surface.candidates, features)
