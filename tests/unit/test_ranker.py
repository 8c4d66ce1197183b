"""The ranker's parts: sampled rows stand for all, the calibrator keeps the order."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import ndcg_score

from nextedge.build.training_set.label_rows import sample_rows
from nextedge.config import RankerConfig
from nextedge.models.rankers.labelled_rows import LabelledRows
from nextedge.models.rankers.lightgbm_training import Softmax, boost
from nextedge.models.rankers.linear import LinearBlend
from nextedge.models.rankers.ndcg import ndcg_of_rows
from nextedge.models.rankers.ranker import Calibrator
from nextedge.models.rankers.training import best_trees
from nextedge.types import Candidates


@pytest.fixture(scope="module")
def scored() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(5)
    raw = random.normal(-3.0, 2.0, 20_000).astype(np.float32)
    label = (random.random(20_000) < 1 / (1 + np.exp(-raw))).astype(np.float32)
    return raw, label


def test_calibrator_keeps_the_order_and_finds_the_probabilities(scored):
    raw, label = scored
    calibrator = Calibrator.fit(raw, label, np.ones_like(raw))
    wide = np.linspace(-30, 30, 2001).astype(np.float32)
    assert (np.diff(calibrator(wide)) >= 0).all()
    order = np.argsort(-raw[:2000], kind="stable")
    probability = calibrator(raw[:2000])
    assert (np.diff(probability[order]) <= 0).all()
    assert len(np.unique(probability)) > 0.98 * len(np.unique(raw[:2000]))
    assert np.abs(probability - 1 / (1 + np.exp(-raw[:2000]))).mean() < 0.02
    assert calibrator(raw).mean() == pytest.approx(label.mean(), abs=0.005)


def test_calibrator_counts_weighted_rows_as_many(scored):
    raw, label = scored
    kept = (label > 0) | (np.arange(len(raw)) % 4 == 0)
    weight = np.where(label[kept] > 0, 1.0, 4.0).astype(np.float32)
    thinned = Calibrator.fit(raw[kept], label[kept], weight)
    whole = Calibrator.fit(raw, label, np.ones_like(raw))
    assert np.abs(thinned(raw) - whole(raw)).mean() < 0.01


def test_calibrator_of_one_level_and_one_score():
    same = Calibrator.fit(np.ones(4, np.float32), np.array([0, 1, 0, 1], "f4"), np.ones(4, "f4"))
    assert same(np.ones(1, np.float32))[0] == pytest.approx(0.5, abs=0.01)


def test_softmax_gradient_is_that_of_its_loss():
    random = np.random.default_rng(0)
    group = np.array([5, 7])
    label = np.array([1, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0], np.float32)
    weight = random.uniform(1, 5, 12).astype(np.float32)
    rows = LabelledRows(np.zeros((12, 1), np.float32), label, group, weight)
    score = random.normal(size=12)

    def loss(values: np.ndarray) -> float:
        total = 0.0
        for part in (slice(0, 5), slice(5, 12)):
            share = label[part] / label[part].sum()
            log_sum = np.log((weight[part] * np.exp(values[part])).sum())
            total -= (share * (values[part] - log_sum)).sum()
        return total

    gradient, _ = Softmax(rows)(score, None)
    for place in range(12):
        step = np.zeros(12)
        step[place] = 1e-5
        expected = (loss(score + step) - loss(score - step)) / 2e-5
        assert gradient[place] == pytest.approx(expected, abs=1e-6)


def test_drawn_rows_stand_for_all():
    random = np.random.default_rng(1)
    sizes = np.array([1500, 900, 50, 1500])
    indptr = np.concatenate(([0], np.cumsum(sizes)))
    candidates = Candidates(indptr, np.arange(sizes.sum(), dtype=np.int32))
    label = random.random(len(candidates)) < 0.01
    label[indptr[2] : indptr[3]] = False
    kept, weight = sample_rows(candidates, label, RankerConfig(), random)
    assert not kept[indptr[2] : indptr[3]].any(), "queries without a positive teach nothing"
    assert kept[label].all() and (weight[label] == 1).all()
    for query in (0, 1, 3):
        part = slice(indptr[query], indptr[query + 1])
        assert weight[part][kept[part]].sum() == pytest.approx(sizes[query], rel=0.15)


def test_weighted_ndcg_estimates_that_of_all_rows():
    """The gain is convex in the rank, so the estimate leans up a little; unweighted, a lot."""
    random = np.random.default_rng(2)
    score = random.normal(size=(30, 400))
    label = (random.random((30, 400)) < 0.02).astype(float)
    score += 1.5 * label
    whole = ndcg_of_rows(score.ravel(), label.ravel(), np.full(30, 400))
    weighted, unweighted = [], []
    for _ in range(40):
        kept = (label > 0) | (random.random((30, 400)) < 0.3)
        rows = score[kept], label[kept], kept.sum(1)
        weight = np.where(label > 0, 1.0, 1 / 0.3)[kept]
        weighted.append(ndcg_of_rows(*rows, weight=weight))
        unweighted.append(ndcg_of_rows(*rows))
    assert np.mean(weighted) == pytest.approx(whole, rel=0.15)
    assert np.mean(unweighted) > 1.4 * whole


def test_trees_carry_on_from_the_blend():
    random = np.random.default_rng(3)
    matrix = random.normal(size=(4000, 3)).astype(np.float32)
    group = np.full(100, 40)
    appeal = matrix[:, 0] + 2.0 * (matrix[:, 1] > 0.5) * (matrix[:, 2] > 0.5)
    chosen = appeal.reshape(100, 40).argmax(1) + np.arange(100) * 40
    label = np.zeros(4000, np.float32)
    label[chosen] = 1
    rows = LabelledRows(matrix, label, group, np.ones(4000, np.float32))
    blend = LinearBlend.fit(matrix, label, group, ["a", "b", "c"])
    booster = boost(blend, rows, ["a", "b", "c"], RankerConfig(min_rows_in_leaf=5), 40)
    fresh = random.normal(size=(4000, 3)).astype(np.float32)
    appeal = fresh[:, 0] + 2.0 * (fresh[:, 1] > 0.5) * (fresh[:, 2] > 0.5)
    wanted = np.zeros(4000, np.float32)
    wanted[appeal.reshape(100, 40).argmax(1) + np.arange(100) * 40] = 1
    alone = ndcg_of_rows(blend(fresh), wanted, group)
    boosted = ndcg_of_rows(blend(fresh) + booster.predict(fresh), wanted, group)
    assert boosted > alone


def test_best_trees_weighs_every_window_alike():
    assert best_trees([[0.1, 0.2, 0.3], [0.001, 0.002, 0.001]]) == 2
    assert best_trees([[0.5]]) == 1


def test_ndcg_equals_a_library() -> None:
    random = np.random.default_rng(8)
    label = (random.random((50, 60)) < 0.1).astype(np.float32)
    label[:, 0] = 1.0
    score = random.normal(size=(50, 60))
    expected = ndcg_score(label, score, k=20)
    found = ndcg_of_rows(score.ravel(), label.ravel(), np.full(50, 60))
    assert found == pytest.approx(expected, abs=1e-6)
