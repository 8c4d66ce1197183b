"""Every model that is discovered keeps the contract; none is listed here."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nextedge.errors import TrainingError
from nextedge.graph.csr import build_graph
from nextedge.models.model import model_classes
from nextedge.models.scoring import top_candidates
from nextedge.testing.models import RELATIONS, ModelContract, PlantedFit, fit_planted, planted
from nextedge.types import ENGAGES, Relation


@pytest.mark.parametrize("relation", RELATIONS, ids=lambda each: each.name, scope="class")
@pytest.mark.parametrize("name", sorted(model_classes()), scope="class")
class TestModel(ModelContract):
    @pytest.fixture(scope="class")
    @classmethod
    def planted_fit(cls, name: str, relation: Relation) -> PlantedFit:
        return fit_planted(model_classes()[name](), relation)


@pytest.mark.parametrize("name", sorted(n for n, m in model_classes().items() if m.trained))
def test_a_curriculum_that_ends_with_hard_negatives_trains(name: str) -> None:
    model, (data, of_query, of_candidate) = model_classes()[name](), planted(ENGAGES)
    curriculum = {
        "stages": [[0.3, "uniform"], [0.6, "popularity"], [1.0, "hard"]],
        "negatives": 16,
        "hard_pool": [20, 60],
    }
    config = model.config_class.model_validate({"curriculum": curriculum})
    fitted = model.fit(data, config, lambda *_: None)
    everyone = np.arange(len(data.graph), dtype=np.int32)
    lists = top_candidates(fitted, data.graph, everyone, 5, data.graph.gather(everyone))
    assert (of_query[lists.row_query] == of_candidate[lists.candidate]).mean() > 0.5


@pytest.mark.parametrize("name", sorted(model_classes()))
def test_a_graph_without_edges_is_refused_with_a_reason(name: str) -> None:
    model = model_classes()[name]()
    none = np.zeros(0, np.int32)
    data = replace(planted(ENGAGES)[0], graph=build_graph(none, none, 5, 4))
    with pytest.raises(TrainingError, match=name):
        model.fit(data, model.config_class(), lambda *_: None)


@pytest.mark.parametrize("name", sorted(model_classes()))
def test_one_item_and_constant_features_are_survived(name: str) -> None:
    model = model_classes()[name]()
    users = np.arange(300, dtype=np.int32)
    graph = build_graph(users, np.zeros(300, np.int32), 300, 1)
    ones, nans = np.ones((300, 2), np.float32), np.full((1, 2), np.nan, np.float32)
    data = replace(planted(ENGAGES)[0], graph=graph, query_features=ones, candidate_features=nans)
    try:
        fitted = model.fit(data, model.config_class(), lambda *_: None)
    except TrainingError as error:
        assert name in str(error)  # noqa: PT017
        return
    assert all(np.isfinite(values).all() for values in fitted.arrays.values())


def _quick(name: str) -> dict[str, object]:
    """Settings that train for one epoch."""
    return {"trainer": {"epochs": 1}} if model_classes()[name].trained else {}


@pytest.mark.parametrize("items", [10_000, pytest.param(100_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", sorted(model_classes()))
def test_a_user_with_an_edge_to_every_item_is_survived(name: str, items: int) -> None:
    """Long for 100,000 items."""
    random = np.random.default_rng(0)
    source = np.concatenate((np.zeros(items, np.int32), random.integers(1, 200, 4000))).astype("i4")
    target = np.concatenate((np.arange(items), random.integers(0, 300, 4000))).astype("i4")
    time = 1 + random.permutation(len(source)).astype(np.int64)
    data = replace(planted(ENGAGES)[0], graph=build_graph(source, target, 200, items, None, time))
    model = model_classes()[name]()
    fitted = model.fit(data, model.config_class.model_validate(_quick(name)), lambda *_: None)
    query = np.array([0, 5], np.int32)
    top = top_candidates(fitted, data.graph, query, 10, data.graph.gather(query))
    assert np.diff(top.indptr)[0] == 0  # nothing is left for who has everything
    assert all(np.isfinite(values).all() for values in fitted.arrays.values())


@pytest.mark.parametrize("name", sorted(model_classes()))
def test_a_graph_of_isolated_pairs_is_survived(name: str) -> None:
    own = np.arange(400, dtype=np.int32)
    data = replace(planted(ENGAGES)[0], graph=build_graph(own, own, 400, 400, None, own + 1))
    model = model_classes()[name]()
    try:
        fitted = model.fit(data, model.config_class.model_validate(_quick(name)), lambda *_: None)
    except TrainingError as error:
        assert name in str(error)  # noqa: PT017
        return
    assert all(np.isfinite(values).all() for values in fitted.arrays.values())
