"""The contract of a model: what every model found by ``model_classes`` keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from nextedge.graph.csr import build_graph, mirrored
from nextedge.models.artifact import Artifact
from nextedge.models.model import Model, TrainingData
from nextedge.models.scoring import pair_scores, top_candidates
from nextedge.types import CONNECTS, ENGAGES, Relation


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
    near = of_query[source] + groups * random.integers(0, candidates // groups, len(source))
    target = np.where(same, near, random.integers(0, candidates, len(source))).astype(np.int32)
    if relation.self_typed:
        kept = source != target
        source, target = mirrored(source[kept], target[kept])  # type: ignore[assignment]
    # Both directions of a pair bear one time.
    low, high = np.minimum(source, target), np.maximum(source, target)
    key = low.astype(np.int64) * 1009 + high if relation.self_typed else np.arange(len(source))
    time = 1 + (key * 2654435761) % 1_000_003
    graph = build_graph(source, target, users, candidates, None, time.astype(np.int64))
    return TrainingData(relation, graph), of_query, of_candidate


def check_model(model: Model[Any], relation: Relation, directory: Path) -> None:
    """Fit on a planted graph and check everything a model promises.

    Raises:
        AssertionError: not reproducible, not saved whole, scores that disagree with each
            other, or lists no better than chance.
    """
    data, of_query, of_candidate = planted(relation)
    config = model.config_class()
    told: list[tuple[str, int, int]] = []
    fitted = model.fit(data, config, lambda *said: told.append(said))
    again = model.fit(data, config, lambda *_: None)
    for name, values in fitted.arrays.items():
        assert values.dtype != object
        assert np.isfinite(values).all(), name
        np.testing.assert_allclose(values, again.arrays[name], rtol=1e-4, atol=1e-5)
    assert all(0 <= done <= total for _, done, total in told)
    fitted.save(directory / model.name)
    loaded = Artifact.load(directory / model.name)
    query = np.array([0, 7, 30, -1], np.int32)
    exclude = data.graph.gather(query)
    top = top_candidates(loaded, data.graph, query, 10, exclude)
    assert top.queries == len(query)
    assert np.diff(top.indptr)[-1] == 0  # an unknown query has neither history nor embedding
    hidden = np.repeat(query, np.diff(top.indptr))
    assert not data.graph.contains(hidden, top.candidate).any()
    score = pair_scores(loaded, data.graph, query, top.indptr, top.candidate)
    np.testing.assert_allclose(score, top.columns["score"], rtol=1e-3, atol=1e-4)
    everyone = np.arange(len(data.graph), dtype=np.int32)
    lists = top_candidates(loaded, data.graph, everyone, 5, data.graph.gather(everyone))
    same = of_query[lists.row_query] == of_candidate[lists.candidate]
    assert same.mean() > 0.6, f"{same.mean():.2f} of the best are of the query's group; chance 0.25"


RELATIONS = (CONNECTS, ENGAGES)
