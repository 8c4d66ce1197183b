"""A linear blend with gradient-boosted trees on top, calibrated: the form of every tree ranker.

Saved as the training library's own format, ``.npy`` arrays and a JSON manifest, never as a pickle.
Scores come from the arrays: the training library is loaded only to explain a score.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from nextedge.models.rankers.linear import LinearBlend
from nextedge.models.rankers.ranker import MANIFEST, CalibratedRanker, Calibrator, ranked_shares
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

        ``forest`` has the same trees as arrays; without one it is made of the booster.
        """
        super().__init__(name, features, calibrator)
        self.blend = blend
        self._trees = trees
        self.forest = forest
        if forest is None and trees is not None:
            self.forest = _library(trees).forest(trees)

    @cached_property
    def trees(self) -> Any:
        """The booster of the training library, read on first use; None for a blend alone."""
        # Serving scores by the forest: its processes never load the training library.
        if isinstance(self._trees, Path):
            return _library(self._trees).load(self._trees)
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
            of_trees = _library(self.trees).contributions(self.trees, matrix)
            parts += np.asarray(of_trees, np.float32)
        return parts

    def importance(self) -> dict[str, float]:
        """Share of the score's movement by feature: blend weights, tree gains."""
        share = np.abs(self.blend.weight.astype(np.float64))
        share /= max(share.sum(), 1e-12)
        if self.trees is not None:
            gain = _library(self.trees).gain(self.trees, self.features)
            gain = gain / max(float(gain.sum()), 1e-12)
            # Trees without a blend have a blend of zeros.
            share = 0.5 * share + 0.5 * gain if share.any() else gain
        return ranked_shares(self.features, share)

    def save(self, directory: Path) -> None:
        self.blend.save(directory)
        file = None
        if self.trees is not None:
            assert self.forest is not None
            file = f"trees{_library(self.trees).suffix}"
            # ``contributions`` needs the library's own form; scores come from the forest.
            self.trees.save_model(str(directory / file))
            self.forest.save(directory)
        trees = 0 if self.forest is None else self.forest.trees
        self.save_manifest(directory, {"trees": trees, "trees_file": file})

    @classmethod
    def load(cls, directory: Path) -> BoostedBlend:
        """Read what ``save`` wrote."""
        about = json.loads((directory / MANIFEST).read_text())
        trees = forest = None
        if about["trees"]:
            trees, forest = directory / about["trees_file"], Forest.load(directory)
        blend, calibrator = LinearBlend.load(directory), Calibrator.load(directory, about)
        return cls(about["model"], about["features"], blend, trees, calibrator, forest)


class _LightGbm:
    """What a LightGBM booster can say of itself; its own text format."""

    suffix = ".txt"
    forest = staticmethod(Forest.of_lightgbm)

    @staticmethod
    def load(file: Path) -> Any:
        import lightgbm

        return lightgbm.Booster(model_file=str(file))

    @staticmethod
    def contributions(booster: Any, matrix: FloatArray) -> Any:
        return booster.predict(matrix, pred_contrib=True)

    @staticmethod
    def gain(booster: Any, features: Sequence[str]) -> Any:
        return booster.feature_importance("gain")


class _XgBoost:
    """What an XGBoost booster can say of itself; its own JSON format."""

    suffix = ".json"
    forest = staticmethod(Forest.of_xgboost)

    @staticmethod
    def load(file: Path) -> Any:
        import xgboost

        return xgboost.Booster(model_file=str(file))

    @staticmethod
    def contributions(booster: Any, matrix: FloatArray) -> Any:
        import xgboost

        finite = np.where(np.isinf(matrix), np.nan, matrix)  # XGBoost refuses infinities
        rows = xgboost.DMatrix(finite, feature_names=booster.feature_names)
        return booster.predict(rows, pred_contribs=True)

    @staticmethod
    def gain(booster: Any, features: Sequence[str]) -> Any:
        gains = booster.get_score(importance_type="total_gain")
        # XGBoost leaves out the features that no tree splits on.
        return np.array([gains.get(name, 0.0) for name in features])


def _library(trees: Any) -> Any:
    """The library of a booster, or of the file of one."""
    if isinstance(trees, Path):
        return _LightGbm if trees.suffix == _LightGbm.suffix else _XgBoost
    # By name: looking at the class would import the library.
    return _LightGbm if type(trees).__module__.startswith("lightgbm") else _XgBoost
