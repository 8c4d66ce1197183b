"""Every kind of ranker learns, is kept without pickle, and explains what it can."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nextedge.config import RankerConfig
from nextedge.errors import ReleaseError, TrainingError
from nextedge.models.rankers.boosted_blend import BoostedBlend
from nextedge.models.rankers.labelled_rows import LabelledRows, ndcg_of
from nextedge.models.rankers.learners import Task, learners, load_rankers
from nextedge.models.rankers.ranker import MANIFEST, Calibrator
from nextedge.models.rankers.training import train

FEATURES = ["a_score", "b_score", "age", "empty", "query_degree_log"]


def labelled(seed: int, queries: int = 300, size: int = 30) -> LabelledRows:
    """Edges come where both scores are high, or neither is missing and the age is in between."""
    random = np.random.default_rng(seed)
    matrix = random.random((queries * size, 5)).astype(np.float32)
    matrix[random.random(len(matrix)) < 0.2, 1] = np.nan
    matrix[:, 3] = np.nan
    matrix[random.integers(0, len(matrix), 20), 2] = np.inf
    known = np.nan_to_num(matrix, posinf=1.0)
    logit = 3 * known[:, 0] + 2 * known[:, 1] - 8 * np.abs(known[:, 2] - 0.5) - 3
    label = (random.random(len(matrix)) < 1 / (1 + np.exp(-logit))).astype(np.float32)
    group = np.full(queries, size)
    return LabelledRows(matrix, label, group, np.ones(len(matrix), np.float32))


@pytest.fixture(scope="module")
def windows() -> list[LabelledRows]:
    return [labelled(seed) for seed in range(3)]


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=pytest.mark.slow) if kind == "two_tower" else kind
        for kind in sorted(learners())
    ],
)
def test_a_ranker_learns_and_is_kept(
    kind: str, windows: list[LabelledRows], tmp_path: Path
) -> None:
    """Long for the networks, which must learn enough to beat the best source."""
    pytest.importorskip("xgboost") if kind == "xgboost" else None
    settings = RankerConfig(model=kind, compare=("best_source",), trees=40)
    ranker, about = train(windows, FEATURES, settings)
    assert ranker is not None
    assert about["model"] == kind
    unseen = labelled(9)
    best = learners()["best_source"].whole(Task(FEATURES, settings), windows[0], 0)
    gain = ndcg_of(ranker.predict(unseen.matrix), unseen) / ndcg_of(best.raw(unseen.matrix), unseen)
    assert gain > (0.999 if kind == "best_source" else 1.02)
    ranker.save(tmp_path)
    loaded = load_rankers(tmp_path)
    assert loaded is not None
    assert loaded[1] is None
    np.testing.assert_array_equal(loaded[0].predict(unseen.matrix), ranker.predict(unseen.matrix))
    assert not list(tmp_path.rglob("*.pkl"))
    assert set(loaded[0].importance()) == set(FEATURES)
    probability = ranker.predict(unseen.matrix)
    assert abs(float(probability.mean()) - float(unseen.label.mean())) < 0.02
    if isinstance(loaded[0], BoostedBlend):
        parts = loaded[0].contributions(unseen.matrix[:50])
        np.testing.assert_allclose(parts.sum(axis=1), ranker.raw(unseen.matrix[:50]), atol=1e-4)


def test_all_kinds_stand_in_one_table_and_the_best_is_served(windows: list[LabelledRows]) -> None:
    kinds = tuple(sorted(set(learners()) - {"xgboost", "two_tower"}))  # these take long
    ranker, about = train(windows, FEATURES, RankerConfig(compare=kinds, trees=40))
    assert ranker is not None
    assert set(about["ndcg"]) == set(kinds)
    assert about["ndcg"][ranker.name] == max(about["ndcg"].values())
    assert len(about["ndcg_by_window"]["mlp"]) == 2


def test_a_named_ranker_without_labels_is_refused_and_auto_says_why() -> None:
    few = [labelled(0, queries=2, size=4)]
    with pytest.raises(TrainingError, match="30"):
        train(few, FEATURES, RankerConfig(model="mlp"))
    ranker, about = train(few, FEATURES, RankerConfig())
    assert ranker is None
    assert "too few" in about["reason"]


def test_one_class_only_is_no_reason_to_fail() -> None:
    rows = labelled(0)
    ones = LabelledRows(rows.matrix, np.ones_like(rows.label), rows.group, rows.weight)
    ranker, _ = train([ones, ones], FEATURES, RankerConfig(trees=5))
    assert ranker is not None
    assert np.isfinite(ranker.predict(rows.matrix)).all()


def test_a_ranker_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_text('{"model": "oracle"}')
    with pytest.raises(ReleaseError, match="oracle"):
        load_rankers(tmp_path)


def test_calibration_error_is_small_on_a_later_window(windows: list[LabelledRows]) -> None:
    from nextedge.evaluation.classification import classification_metrics

    ranker, _ = train(windows, FEATURES, RankerConfig(trees=40))
    assert isinstance(ranker.calibrator, Calibrator)
    unseen = labelled(9)
    found = classification_metrics(unseen.label > 0, ranker.predict(unseen.matrix))
    assert found.calibration_error < 0.02
