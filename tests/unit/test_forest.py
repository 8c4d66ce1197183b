"""The serving form of trees gives the training library's sums: missing, infinite and tied values too."""

from __future__ import annotations

from pathlib import Path

import lightgbm
import numpy as np
import pytest

from nextedge.models.rankers.tree_scorer import Forest


def rows(count: int, seed: int) -> np.ndarray:
    """float32[count, 12]: ties, missing values, infinities, a column without missing values."""
    random = np.random.default_rng(seed)
    matrix = random.normal(size=(count, 12)).astype(np.float32)
    matrix[:, 3] = np.round(matrix[:, 3])
    whole = np.abs(matrix[:, 5])
    matrix[random.random(matrix.shape) < 0.15] = np.nan
    matrix[:, 5] = whole
    matrix[:6] = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-38], np.float32)[:, None]
    return matrix


def label(matrix: np.ndarray) -> np.ndarray:
    known = np.nan_to_num(matrix, posinf=3, neginf=-3)
    return (known[:, 0] + known[:, 1] * known[:, 3] - known[:, 5] > -0.5).astype(np.float32)


@pytest.mark.parametrize("leaves", [2, 15, 33, 64])
@pytest.mark.parametrize("missing", [True, False])
def test_forest_equals_lightgbm(leaves: int, missing: bool) -> None:
    matrix = rows(3000, 0)
    settings = {
        "objective": "binary",
        "num_leaves": leaves,
        "min_data_in_leaf": 3,
        "use_missing": missing,
        "verbosity": -1,
    }
    booster = lightgbm.train(settings, lightgbm.Dataset(matrix, label(matrix)), 25)
    unseen = np.concatenate((matrix[:40], rows(77, 1)))
    np.testing.assert_array_equal(
        Forest.of_lightgbm(booster)(unseen), booster.predict(unseen, raw_score=True)
    )


def test_forest_is_kept_whole(tmp_path: Path) -> None:
    matrix = rows(500, 0)
    data = lightgbm.Dataset(matrix, label(matrix))
    forest = Forest.of_lightgbm(lightgbm.train({"verbosity": -1, "num_leaves": 7}, data, 5))
    forest.save(tmp_path)
    np.testing.assert_array_equal(forest(matrix), Forest.load(tmp_path)(matrix))
    assert forest.trees == 5
    assert forest(matrix[:0]).shape == (0,)


def test_a_tree_without_splits_is_its_leaf() -> None:
    matrix = np.zeros((50, 2), np.float32)
    booster = lightgbm.train({"verbosity": -1}, lightgbm.Dataset(matrix, np.ones(50)), 1)
    np.testing.assert_array_equal(Forest.of_lightgbm(booster)(matrix), booster.predict(matrix))


def test_more_leaves_than_bits_are_refused() -> None:
    matrix = rows(3000, 0)
    settings = {"num_leaves": 80, "min_data_in_leaf": 2, "verbosity": -1}
    booster = lightgbm.train(settings, lightgbm.Dataset(matrix, label(matrix)), 2)
    with pytest.raises(ValueError, match="64"):
        Forest.of_lightgbm(booster)
