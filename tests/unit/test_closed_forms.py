"""Closed-form models against naive oracles."""

from __future__ import annotations

import numpy as np
import pytest

from nextedge.graph.csr import build_graph
from nextedge.models.als import Als, AlsConfig
from nextedge.models.ease import Ease, EaseConfig
from nextedge.models.graph_filter import GraphFilter, GraphFilterConfig
from nextedge.models.model import TrainingData
from nextedge.models.scoring import top_candidates
from nextedge.models.slist import Slist, SlistConfig
from nextedge.types import ENGAGES


@pytest.fixture(scope="module")
def data() -> TrainingData:
    random = np.random.default_rng(3)
    source = np.repeat(np.arange(60, dtype=np.int32), 20)
    target = random.integers(0, 25, len(source)).astype(np.int32)
    time = random.permutation(len(source)).astype(np.int64) + 1
    return TrainingData(ENGAGES, build_graph(source, target, 60, 25, None, time))


def dense(data: TrainingData) -> np.ndarray:
    graph = data.graph
    out = np.zeros((len(graph), graph.targets))
    out[np.repeat(np.arange(len(graph)), graph.degree), graph.indices] = 1.0
    return out


def weights(arrays: dict[str, np.ndarray], items: int) -> np.ndarray:
    out = np.zeros((items, items))
    row = np.repeat(np.arange(items), np.diff(arrays["similar_indptr"]))
    out[row, arrays["similar_indices"]] = arrays["similar_values"]
    return out


def test_ease_on_all_neighbors_is_the_published_closed_form(data: TrainingData) -> None:
    config = EaseConfig(neighbors=25, penalty=0.5, query_exponent=0.0, target_exponent=0.0)
    fitted = Ease().fit(data, config, lambda *_: None)
    x = dense(data)
    penalty = 0.5 * data.graph.edges / (data.graph.target_degree > 0).sum()
    inverse = np.linalg.inv(x.T @ x + penalty * np.eye(25))
    expected = -inverse / np.diag(inverse)[None, :]
    np.fill_diagonal(expected, 0.0)
    np.testing.assert_allclose(weights(fitted.arrays, 25), expected, atol=1e-4)


def test_ease_leaves_out_the_longest_histories_of_a_graph_it_may_only_read() -> None:
    source = np.concatenate((np.zeros(30), np.repeat(np.arange(1, 20), 2))).astype(np.int32)
    target = np.concatenate((np.arange(30), np.tile([0, 1], 19))).astype(np.int32)
    graph = build_graph(source, target, 20, 30)
    before = graph.indices.copy()
    graph.indices.setflags(write=False)
    fitted = Ease().fit(TrainingData(ENGAGES, graph), EaseConfig(longest=10), lambda *_: None)
    assert np.flatnonzero(weights(fitted.arrays, 30).any(axis=1)).tolist() == [0, 1]
    assert graph.indices.tolist() == before.tolist()


def test_graph_filter_is_its_formula(data: TrainingData) -> None:
    config = GraphFilterConfig(neighbors=25, target_exponent=0.2, query_exponent=1.0)
    fitted = GraphFilter().fit(data, config, lambda *_: None)
    x = dense(data)
    n = x.sum(axis=0)
    expected = n[:, None] ** -0.8 * n[None, :] ** -0.2 * (x.T @ (x / x.sum(axis=1)[:, None]))
    np.fill_diagonal(expected, 0.0)
    np.testing.assert_allclose(weights(fitted.arrays, 25), expected, rtol=1e-4, atol=1e-6)


def test_als_solves_its_normal_equations(data: TrainingData) -> None:
    config = AlsConfig(dimensions=8, sweeps=40, steps=8)
    arrays = Als().fit(data, config, lambda *_: None).arrays
    x = dense(data)
    y = arrays["candidate"].astype(np.float64)
    mass = config.unobserved_mass * data.graph.edges / (data.graph.degree > 0).sum()
    alpha = mass / data.graph.targets
    for user in (0, 17, 59):
        ridge = config.regularisation * (x[user].sum() + mass) ** config.frequency_exponent
        system = alpha * y.T @ y + y[x[user] > 0].T @ y[x[user] > 0] + ridge * np.eye(8)
        expected = np.linalg.solve(system, y[x[user] > 0].sum(axis=0))
        np.testing.assert_allclose(arrays["query"][user], expected, rtol=2e-2, atol=2e-3)


def test_slist_on_all_neighbors_is_its_ridge_regression(data: TrainingData) -> None:
    config = SlistConfig(neighbors=25, penalty=0.3, window=3, decay=0.5, query_exponent=0.0)
    fitted = Slist().fit(data, config, lambda *_: None)
    graph = data.graph
    before, after = [], []
    for user in range(len(graph)):
        low, high = graph.indptr[user], graph.indptr[user + 1]
        items = graph.indices[low:high][np.argsort(graph.last[low:high])]
        for step in range(1, len(items)):
            x, y = np.zeros(25), np.zeros(25)
            for distance in range(3):
                if step - 1 - distance >= 0:
                    x[items[step - 1 - distance]] += 0.5**distance
                if step + distance < len(items):
                    y[items[step + distance]] += 0.5**distance
            before.append(x)
            after.append(y)
    x, y = np.array(before), np.array(after)
    gram = x.T @ x
    penalty = 0.3 * np.trace(gram) / (graph.target_degree > 0).sum()
    expected = np.linalg.solve(gram + penalty * np.eye(25), x.T @ y)
    found = weights(fitted.arrays, 25)
    # A candidate is regressed on what has preceded it at least once.
    met = (x.T @ y) > 0
    assert met.mean() > 0.9
    assert np.corrcoef(found[met], expected[met])[0, 1] > 0.99


def test_scores_weigh_the_history(data: TrainingData) -> None:
    fitted = GraphFilter().fit(data, GraphFilterConfig(), lambda *_: None)
    query = np.array([4], np.int32)
    only = np.zeros(data.graph.edges, np.float32)
    only[data.graph.indptr[4]] = 2.0
    found = top_candidates(
        fitted, data.graph, query, 25, (np.zeros(2, np.int64), np.zeros(0, np.int32)), only
    )
    expected = 2.0 * weights(fitted.arrays, 25)[data.graph.row(4)[0]]
    np.testing.assert_allclose(found.columns["score"], expected[found.candidate], rtol=1e-5)
