"""The contract of a model: what every model found by ``model_classes`` keeps.

A model is checked by a test class that derives from ``ModelContract`` and has a fixture
``planted_fit``: what ``fit_planted`` gives for the model and a relation.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nextedge.graph.csr import build_graph, mirrored
from nextedge.models.artifact import Artifact
from nextedge.models.model import Model, TrainingData
from nextedge.models.scoring import pair_scores, top_candidates
from nextedge.types import CONNECTS, ENGAGES, Candidates, Relation


def planted(
    relation: Relation, *, groups: int = 4, users: int = 120, items: int = 80, seed: int = 0
) -> tuple[TrainingData, np.ndarray, np.ndarray]:
    """A graph whose edges lie within groups, and the group of each query and candidate.

    Edges carry times in a random order; nine in ten join nodes of one group.
    """
    random = np.random.default_rng(seed)
    candidates = users if relation.self_typed else items
    of_query = np.arange(users) % groups
    of_candidate = np.arange(candidates) % groups
    source = np.repeat(np.arange(users, dtype=np.int32), 14)
    same = random.random(len(source)) < 0.9
    # A candidate's group is its position modulo the number of groups.
    near = of_query[source] + groups * random.integers(0, candidates // groups, len(source))
    target = np.where(same, near, random.integers(0, candidates, len(source))).astype(np.int32)
    if relation.self_typed:
        kept = source != target  # nobody connects to oneself
        source, target = mirrored(source[kept], target[kept])  # type: ignore[assignment]
    # Both directions of a pair bear one time.
    low, high = np.minimum(source, target), np.maximum(source, target)
    key = low.astype(np.int64) * 1009 + high if relation.self_typed else np.arange(len(source))
    # A hash of the pair, as times must not follow the positions.
    time = 1 + (key * 2654435761) % 1_000_003
    graph = build_graph(source, target, users, candidates, None, time.astype(np.int64))
    return TrainingData(relation, graph), of_query, of_candidate


@dataclass(frozen=True)
class PlantedFit:
    """A model fitted on the planted graph of a relation, and what it told on the way."""

    model: Model[Any]
    data: TrainingData
    of_query: np.ndarray
    of_candidate: np.ndarray
    artifact: Artifact
    progress: list[tuple[str, int, int]]


def fit_planted(model: Model[Any], relation: Relation) -> PlantedFit:
    """Fit a model, with its default configuration, on the planted graph of a relation."""
    progress: list[tuple[str, int, int]] = []
    data, of_query, of_candidate = planted(relation)
    artifact = model.fit(data, model.config_class(), lambda *step: progress.append(step))
    return PlantedFit(model, data, of_query, of_candidate, artifact, progress)


class ModelContract:
    """One test a promise; ``planted_fit`` is a fixture of the class that derives from this one."""

    QUERIES = np.array([0, 7, 30, -1], np.int32)
    """The last is unknown."""

    def test_values_are_finite_numbers(self, planted_fit: PlantedFit) -> None:
        for name, values in planted_fit.artifact.arrays.items():
            assert values.dtype != object  # it would need pickle to load
            assert np.isfinite(values).all(), name

    def test_a_second_fit_gives_the_same(self, planted_fit: PlantedFit) -> None:
        model = planted_fit.model
        again = model.fit(planted_fit.data, model.config_class(), lambda *_: None)
        for name, values in planted_fit.artifact.arrays.items():
            np.testing.assert_allclose(values, again.arrays[name], rtol=1e-4, atol=1e-5)

    def test_progress_stays_within_its_total(self, planted_fit: PlantedFit) -> None:
        assert all(0 <= done <= total for _, done, total in planted_fit.progress)

    def test_a_saved_model_gives_the_same_lists(
        self, planted_fit: PlantedFit, tmp_path: Path
    ) -> None:
        planted_fit.artifact.save(tmp_path / planted_fit.model.name)
        loaded = Artifact.load(tmp_path / planted_fit.model.name)
        saved, fitted = (self._lists(each, planted_fit) for each in (loaded, planted_fit.artifact))
        np.testing.assert_array_equal(saved.candidate, fitted.candidate)
        np.testing.assert_array_equal(saved.columns["score"], fitted.columns["score"])

    def test_an_unknown_query_has_no_candidates(self, planted_fit: PlantedFit) -> None:
        lists = self._lists(planted_fit.artifact, planted_fit)
        assert lists.queries == len(self.QUERIES)
        assert np.diff(lists.indptr)[-1] == 0

    def test_edges_of_the_graph_are_no_candidates(self, planted_fit: PlantedFit) -> None:
        lists = self._lists(planted_fit.artifact, planted_fit)
        query = np.repeat(self.QUERIES, np.diff(lists.indptr))
        assert not planted_fit.data.graph.contains(query, lists.candidate).any()

    def test_pair_scores_are_the_scores_of_the_lists(self, planted_fit: PlantedFit) -> None:
        artifact, graph = planted_fit.artifact, planted_fit.data.graph
        lists = self._lists(artifact, planted_fit)
        score = pair_scores(artifact, graph, self.QUERIES, lists.indptr, lists.candidate)
        np.testing.assert_allclose(score, lists.columns["score"], rtol=1e-3, atol=1e-4)

    def test_most_candidates_are_of_the_querys_group(self, planted_fit: PlantedFit) -> None:
        graph = planted_fit.data.graph
        everyone = np.arange(len(graph), dtype=np.int32)
        lists = top_candidates(planted_fit.artifact, graph, everyone, 5, graph.gather(everyone))
        group = planted_fit.of_candidate[lists.candidate]
        share = (planted_fit.of_query[lists.row_query] == group).mean()
        assert share > 0.6, f"{share:.2f} of the best are of the query's group; chance 0.25"

    def _lists(self, artifact: Artifact, planted_fit: PlantedFit) -> Candidates:
        graph = planted_fit.data.graph
        return top_candidates(artifact, graph, self.QUERIES, 10, graph.gather(self.QUERIES))


RELATIONS = (CONNECTS, ENGAGES)
