"""Gradient-boosted trees (LightGBM) on top of a linear blend, calibrated: the default ranker.

Trees are boosted by LambdaRank (Burges 2010) from the blend's score, so that no tree at all
is still a good ranker, and early stopping decides how far the data carries beyond it.
Kept as LightGBM's own text format, ``.npy`` arrays and a JSON manifest; nothing is pickled.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import lightgbm
import numpy as np

from nextedge.config import RankerConfig
from nextedge.models.blend import LinearBlend
from nextedge.models.ranker import Calibrator, Ranker
from nextedge.types import Candidates, FloatArray, IntArray

_BLEND = ("weight", "center", "scale", "missing")


@dataclass(frozen=True, eq=False)
class LabelledRows:
    """Candidate rows grouped by query.

    Attributes:
        matrix: float32[R, F] features.
        label: float32[R], 1 where the candidate became an edge.
        group: int64[Q] rows of each query, in order.
    """

    matrix: FloatArray
    label: FloatArray
    group: IntArray

    @staticmethod
    def joined(parts: Sequence[LabelledRows]) -> LabelledRows:
        """The rows of several windows, one after the other."""
        return LabelledRows(
            np.concatenate([part.matrix for part in parts]),
            np.concatenate([part.label for part in parts]),
            np.concatenate([part.group for part in parts]),
        )


class BoostedBlend(Ranker):
    """``score = blend(x) + trees(x)``, through a calibrator; either part may be absent."""

    def __init__(
        self,
        name: str,
        features: Sequence[str],
        blend: LinearBlend,
        trees: lightgbm.Booster | None = None,
        calibrator: Calibrator | None = None,
    ) -> None:
        self.name = name
        self.features = list(features)
        self.blend = blend
        self.trees = trees
        self.calibrator = calibrator

    def raw(self, matrix: FloatArray) -> FloatArray:
        """float32[R]: uncalibrated scores."""
        score = self.blend(matrix)
        if self.trees is not None and len(matrix):
            score = score + np.asarray(self.trees.predict(matrix), np.float32)
        return score

    def predict(self, matrix: FloatArray, candidates: Candidates) -> FloatArray:
        raw = self.raw(matrix)
        return raw if self.calibrator is None else self.calibrator(raw)

    def contributions(self, matrix: FloatArray) -> FloatArray:
        """float32[R, F + 1]: exact for the blend, TreeSHAP for the trees (Lundberg 2018)."""
        parts = np.zeros((len(matrix), len(self.features) + 1), np.float32)
        parts[:, :-1] = self.blend.parts(matrix)
        if self.trees is not None and len(matrix):
            parts += np.asarray(self.trees.predict(matrix, pred_contrib=True), np.float32)
        return parts

    def importance(self) -> dict[str, float]:
        """Share of the score's movement that each feature brings: blend weights, tree gains."""
        share = np.abs(self.blend.weight.astype(np.float64))
        share /= max(share.sum(), 1e-12)
        if self.trees is not None:
            gain = self.trees.feature_importance("gain")
            share = 0.5 * share + 0.5 * gain / max(float(gain.sum()), 1e-12)
        ranked = sorted(zip(self.features, share, strict=True), key=lambda pair: -pair[1])
        return {name: round(float(value), 6) for name, value in ranked}

    def save(self, directory: Path) -> None:
        for part in _BLEND:
            np.save(directory / f"blend_{part}.npy", getattr(self.blend, part))
        if self.trees is not None:
            self.trees.save_model(str(directory / "trees.txt"))
        if self.calibrator is not None:
            np.save(directory / "calibrator_raw.npy", self.calibrator.raw)
            np.save(directory / "calibrator_probability.npy", self.calibrator.probability)
        about = {
            "model": self.name,
            "features": self.features,
            "trees": 0 if self.trees is None else self.trees.num_trees(),
            "calibrated": self.calibrator is not None,
            "importance": self.importance(),
        }
        (directory / "ranker.json").write_text(json.dumps(about, indent=1))

    @classmethod
    def load(cls, directory: Path) -> BoostedBlend:
        """Read what ``save`` wrote."""
        about = json.loads((directory / "ranker.json").read_text())
        blend = LinearBlend(*(np.load(directory / f"blend_{part}.npy") for part in _BLEND))
        trees = calibrator = None
        if about["trees"]:
            trees = lightgbm.Booster(model_file=str(directory / "trees.txt"))
        if about["calibrated"]:
            calibrator = Calibrator(
                np.load(directory / "calibrator_raw.npy"),
                np.load(directory / "calibrator_probability.npy"),
            )
        return cls(about["model"], about["features"], blend, trees, calibrator)


def boost(
    blend: LinearBlend,
    training: LabelledRows,
    validation: LabelledRows | None,
    features: Sequence[str],
    settings: RankerConfig,
    trees: int,
) -> lightgbm.Booster:
    """Boost trees from the blend's score; with validation rows, stop early on their NDCG@20."""
    parameters = {
        "objective": "lambdarank",
        "metric": "ndcg",
        "eval_at": [20],
        "num_leaves": settings.leaves,
        "learning_rate": settings.learning_rate,
        "min_data_in_leaf": settings.min_rows_in_leaf,
        "feature_fraction": 0.6,
        "bagging_fraction": 0.8,
        "bagging_freq": 1,
        "lambda_l2": 5.0,
        "max_bin": 127,
        "seed": settings.seed,
        "deterministic": True,
        "force_row_wise": True,
        "verbosity": -1,
    }
    data = _dataset(training, blend, features)
    if validation is None:
        return lightgbm.train(parameters, data, trees)
    watch = _dataset(validation, blend, features, data)
    stop = lightgbm.early_stopping(settings.early_stopping, first_metric_only=True, verbose=False)
    return lightgbm.train(parameters, data, trees, valid_sets=[watch], callbacks=[stop])


def _dataset(
    rows: LabelledRows,
    blend: LinearBlend,
    features: Sequence[str],
    reference: lightgbm.Dataset | None = None,
) -> lightgbm.Dataset:
    return lightgbm.Dataset(
        rows.matrix, rows.label, group=rows.group, init_score=blend(rows.matrix),
        feature_name=list(features), reference=reference,
    )  # fmt: skip
