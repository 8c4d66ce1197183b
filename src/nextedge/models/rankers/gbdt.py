"""Gradient-boosted trees (LightGBM) on top of a linear blend, calibrated: the default ranker.

Trees are boosted on a listwise softmax from the blend's score, so that no tree at all
is still a good ranker, and early stopping decides how far the data carries beyond it.
Kept as LightGBM's own text format, ``.npy`` arrays and a JSON manifest; nothing is pickled.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np

from nextedge.config import RankerConfig
from nextedge.models.rankers.labelled_rows import LabelledRows, ndcg_of
from nextedge.models.rankers.linear import LinearBlend
from nextedge.models.rankers.ranker import MANIFEST, CalibratedRanker, Calibrator
from nextedge.models.rankers.tree_scorer import Forest
from nextedge.types import FloatArray


class BoostedBlend(CalibratedRanker):
    """``score = blend(x) + trees(x)``, through a calibrator; either part may be absent."""

    def __init__(
        self,
        name: str,
        features: Sequence[str],
        blend: LinearBlend,
        trees: Any = None,
        calibrator: Calibrator | None = None,
        forest: Forest | None = None,
    ) -> None:
        """``trees``: a booster of LightGBM or XGBoost, the file of one, or None.

        A file is read when contributions are asked for; ``forest`` is the form in which it
        serves, and without one it is made of the booster.
        """
        super().__init__(name, features, calibrator)
        self.blend = blend
        self._trees = trees
        self.forest = forest
        if forest is None and trees is not None:
            self.forest = _LIBRARIES[_library(trees)].forest(trees)

    @cached_property
    def trees(self) -> Any:
        """The trees as their library has them, or None where the blend is alone."""
        if isinstance(self._trees, Path):
            return _LIBRARIES[self._trees.suffix].load(self._trees)
        return self._trees

    def raw(self, matrix: FloatArray) -> FloatArray:
        score = self.blend(matrix)
        if self.forest is not None:
            score = score + self.forest(matrix).astype(np.float32)
        return score

    def contributions(self, matrix: FloatArray) -> FloatArray:
        """float32[R, F + 1]: exact for the blend, TreeSHAP for the trees (Lundberg 2018)."""
        parts = np.zeros((len(matrix), len(self.features) + 1), np.float32)
        parts[:, :-1] = self.blend.parts(matrix)
        if self.trees is not None and len(matrix):
            found = _LIBRARIES[_library(self.trees)].contributions(self.trees, matrix)
            parts += np.asarray(found, np.float32)
        return parts

    def importance(self) -> dict[str, float]:
        """Share of the score's movement that each feature brings: blend weights, tree gains."""
        share = np.abs(self.blend.weight.astype(np.float64))
        share /= max(share.sum(), 1e-12)
        if self.trees is not None:
            gain = _LIBRARIES[_library(self.trees)].gain(self.trees, self.features)
            gain = gain / max(float(gain.sum()), 1e-12)
            share = 0.5 * share + 0.5 * gain if share.any() else gain
        ranked = sorted(zip(self.features, share, strict=True), key=lambda pair: -pair[1])
        return {name: round(float(value), 6) for name, value in ranked}

    def save(self, directory: Path) -> None:
        self.blend.save(directory)
        kept = None
        if self.trees is not None:
            assert self.forest is not None
            kept = f"trees{_library(self.trees)}"
            self.trees.save_model(str(directory / kept))
            self.forest.save(directory)
        trees = 0 if self.forest is None else self.forest.trees
        self.save_manifest(directory, {"trees": trees, "trees_file": kept})

    @classmethod
    def load(cls, directory: Path) -> BoostedBlend:
        """Read what ``save`` wrote."""
        about = json.loads((directory / MANIFEST).read_text())
        trees = forest = None
        if about["trees"]:
            trees, forest = directory / about["trees_file"], Forest.load(directory)
        blend, calibrator = LinearBlend.load(directory), Calibrator.load(directory, about)
        return cls(about["model"], about["features"], blend, trees, calibrator, forest)


class _LightGbmLibrary:
    """What is asked of a LightGBM booster; its own text format."""

    forest = staticmethod(Forest.of_lightgbm)

    @staticmethod
    def load(file: Path) -> Any:
        return lightgbm.Booster(model_file=str(file))

    @staticmethod
    def contributions(booster: Any, matrix: FloatArray) -> Any:
        return booster.predict(matrix, pred_contrib=True)

    @staticmethod
    def gain(booster: Any, features: Sequence[str]) -> Any:
        return booster.feature_importance("gain")


class _XgBoostLibrary:
    """What is asked of an XGBoost booster; its own JSON format."""

    forest = staticmethod(Forest.of_xgboost)

    @staticmethod
    def load(file: Path) -> Any:
        import xgboost

        return xgboost.Booster(model_file=str(file))

    @staticmethod
    def contributions(booster: Any, matrix: FloatArray) -> Any:
        import xgboost

        names = booster.feature_names
        finite = np.where(np.isinf(matrix), np.nan, matrix)
        return booster.predict(xgboost.DMatrix(finite, feature_names=names), pred_contribs=True)

    @staticmethod
    def gain(booster: Any, features: Sequence[str]) -> Any:
        found = booster.get_score(importance_type="total_gain")
        return np.array([found.get(name, 0.0) for name in features])


_LIBRARIES: dict[str, Any] = {".txt": _LightGbmLibrary, ".json": _XgBoostLibrary}


def _library(trees: Any) -> str:
    """Suffix of the format that a booster, or a file of one, is kept in."""
    if isinstance(trees, Path):
        return trees.suffix
    return ".txt" if isinstance(trees, lightgbm.Booster) else ".json"


def boost(
    blend: LinearBlend,
    rows: LabelledRows,
    features: Sequence[str],
    settings: RankerConfig,
    trees: int,
) -> lightgbm.Booster | None:
    """Boost a number of trees from the blend's score; None where no column can be split.

    The objective is the listwise softmax (ListNet's top-one probability, Cao et al., ICML
    2007). Sampled candidates count by their weight in its denominator, so that it estimates
    the softmax over all candidates without bias, however few of the easy ones are kept.
    """
    if not splittable(rows, settings):
        return None
    return lightgbm.train(
        parameters(settings, _Softmax(rows)), _dataset(rows, blend, features), trees
    )


def boost_watched(
    blend: LinearBlend,
    training: LabelledRows,
    validation: LabelledRows,
    features: Sequence[str],
    settings: RankerConfig,
) -> tuple[lightgbm.Booster | None, list[float]]:
    """Boost while NDCG@20 of the validation rows rises; also returns it after each tree."""
    if not splittable(training, settings):
        return None, [0.0]

    data = _dataset(training, blend, features)
    later = _dataset(validation, blend, features, data)
    return train_watched(data, later, validation, settings, _Softmax(training))


def train_watched(
    data: lightgbm.Dataset,
    later: lightgbm.Dataset,
    validation: LabelledRows,
    settings: RankerConfig,
    objective: Any,
) -> tuple[lightgbm.Booster, list[float]]:
    """Trees while NDCG@20 of ``validation``, which ``later`` holds, rises; and it after each."""

    def ndcg(score: np.ndarray, _: lightgbm.Dataset) -> tuple[str, float, bool]:
        return "ndcg", ndcg_of(score, validation), True

    watched: dict[str, dict[str, list[float]]] = {}
    booster = lightgbm.train(
        parameters(settings, objective),
        data,
        settings.trees,
        feval=ndcg,
        valid_sets=[later],
        valid_names=["validation"],
        callbacks=[
            lightgbm.early_stopping(settings.early_stopping, verbose=False),
            lightgbm.record_evaluation(watched),
        ],
    )
    return booster, watched["validation"]["ndcg"]


def splittable(rows: LabelledRows, settings: RankerConfig) -> bool:
    """Whether some column leaves enough rows on both sides; LightGBM ends in an error otherwise."""
    least = settings.min_rows_in_leaf
    if len(rows.label) < 2 * least:
        return False
    for column in rows.matrix.T:
        ordered = np.sort(column)  # missing values stand last
        if not (ordered[least - 1] == ordered[-least] or np.isnan(ordered[least - 1])):
            return True
    return False


def parameters(settings: RankerConfig, objective: Any) -> dict[str, Any]:
    """LightGBM's parameters for an objective."""
    return {
        "objective": objective,
        "metric": "none",
        "num_leaves": settings.leaves,
        "learning_rate": settings.learning_rate,
        "min_data_in_leaf": settings.min_rows_in_leaf,
        "feature_fraction": 0.6,
        "lambda_l2": settings.leaf_penalty,
        "max_bin": 127,
        "seed": settings.seed,
        "deterministic": True,
        "force_row_wise": True,
        "verbosity": -1,
    }


def _dataset(
    rows: LabelledRows,
    blend: LinearBlend,
    features: Sequence[str],
    reference: lightgbm.Dataset | None = None,
) -> lightgbm.Dataset:
    return lightgbm.Dataset(
        rows.matrix,
        rows.label,
        init_score=blend(rows.matrix),
        feature_name=list(features),
        reference=reference,
    )


class _Softmax:
    """Gradient and Hessian diagonal of the weighted listwise softmax, query by query."""

    def __init__(self, rows: LabelledRows) -> None:
        self.group = rows.group
        self.start = np.concatenate(([0], np.cumsum(rows.group)))[:-1]
        positives = np.add.reduceat(rows.positive, self.start)
        self.share = rows.label / np.repeat(np.maximum(positives, 1), rows.group)
        self.worth = np.repeat(np.add.reduceat(self.share, self.start), rows.group)
        self.weight = rows.weight * np.repeat(positives > 0, rows.group)

    def __call__(self, score: np.ndarray, _: lightgbm.Dataset) -> tuple[np.ndarray, np.ndarray]:
        highest = np.maximum.reduceat(score, self.start)
        power = np.exp(score - np.repeat(highest, self.group)) * self.weight
        total = np.maximum(np.add.reduceat(power, self.start), 1e-12)
        chance = power / np.repeat(total, self.group)
        slope = self.worth * chance - self.share
        return slope, np.maximum(self.worth * chance * (1.0 - chance), 1e-6)
