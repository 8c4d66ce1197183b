"""The kinds of ranker: one class each, all trained on the same rows and compared in one table.

``lightgbm`` (trees on a listwise blend) serves by default; the settings choose others
(``ranker.compare``, ``ranker.model``). Early stopping watches NDCG@20 of a later window.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from nextedge.config import RankerConfig
from nextedge.discovery import named_subclasses
from nextedge.errors import MissingDependencyError, ReleaseError, nearest
from nextedge.models.rankers.boosted_blend import BoostedBlend
from nextedge.models.rankers.labelled_rows import LabelledRows, ndcg_of
from nextedge.models.rankers.lightgbm_training import (
    boost,
    boost_watched,
    parameters,
    splittable,
    train_watched,
)
from nextedge.models.rankers.linear import LinearBlend
from nextedge.models.rankers.mlp import MlpRanker
from nextedge.models.rankers.ranker import MANIFEST, CalibratedRanker
from nextedge.models.rankers.two_tower_ranker import TwoTowerRanker

if TYPE_CHECKING:
    import lightgbm

COLD_START = "cold_start"
"""Folder, within a ranker's, of the ranker for queries without edges."""


@dataclass(frozen=True)
class Task:
    """What all learners of one training share: names of the columns, and the settings."""

    features: Sequence[str]
    settings: RankerConfig


@dataclass(frozen=True)
class Learned:
    """A ranker and, for trees, NDCG@20 of the validation rows after each tree."""

    ranker: CalibratedRanker
    curve: list[float]


class Learner(ABC):
    """Trains one kind of ranker; found by its ``name``."""

    name: ClassVar[str]
    loads: ClassVar[type[BoostedBlend | MlpRanker | TwoTowerRanker]] = BoostedBlend
    """The class that reads the ranker back from a folder."""
    refits: ClassVar[bool] = True
    """Whether a fit on all windows keeps the scale of raw scores, and so their calibration."""

    def watched(self, task: Task, training: LabelledRows, validation: LabelledRows) -> Learned:
        """Train on earlier windows; add trees while a later window gains by them."""
        return Learned(self.whole(task, training, 0), [])

    @abstractmethod
    def whole(self, task: Task, rows: LabelledRows, trees: int) -> CalibratedRanker:
        """Train on all windows, with a number of trees that ``watched`` found."""


def learners() -> dict[str, Learner]:
    """Every kind by name."""
    kinds = named_subclasses(Learner)  # type: ignore[type-abstract]
    return {name: cls() for name, cls in kinds.items()}


def load_rankers(directory: Path) -> tuple[CalibratedRanker, CalibratedRanker | None] | None:
    """The ranker of a folder and its cold-start ranker; None where nothing was learned.

    Raises:
        ReleaseError: the ranker is of an unknown kind.
    """
    if not (directory / MANIFEST).exists():
        return None
    cold = directory / COLD_START
    return _load(directory), _load(cold) if (cold / MANIFEST).exists() else None


def _load(directory: Path) -> CalibratedRanker:
    name = json.loads((directory / MANIFEST).read_text())["model"]
    if name not in learners():
        raise ReleaseError(f"{directory / MANIFEST}: ranker {name!r}; {nearest(name, learners())}")
    return learners()[name].loads.load(directory)


class BlendedTrees(Learner):
    """LightGBM boosted by a listwise softmax from a linear blend."""

    name = "lightgbm"

    def watched(self, task: Task, training: LabelledRows, validation: LabelledRows) -> Learned:
        blend = fit_blend(training, task.features)
        booster, curve = boost_watched(blend, training, validation, task.features, task.settings)
        return Learned(BoostedBlend(self.name, task.features, blend, booster), curve)

    def whole(self, task: Task, rows: LabelledRows, trees: int) -> CalibratedRanker:
        blend = fit_blend(rows, task.features)
        booster = boost(blend, rows, task.features, task.settings, trees)
        return BoostedBlend(self.name, task.features, blend, booster)


class Blend(Learner):
    """The linear blend alone."""

    name = "blend"

    def whole(self, task: Task, rows: LabelledRows, trees: int) -> CalibratedRanker:
        return BoostedBlend(self.name, task.features, fit_blend(rows, task.features))


class BestSource(Learner):
    """The order of the best single source or heuristic: the baseline of all others."""

    name = "best_source"

    def whole(self, task: Task, rows: LabelledRows, trees: int) -> CalibratedRanker:
        best = LinearBlend.single(task.features, best_source(rows, task.features))
        return BoostedBlend(self.name, task.features, best)


class Trees(Learner):
    """Trees without a blend."""

    def ranker(self, features: Sequence[str], booster: Any) -> CalibratedRanker:
        """The ranker of a booster, or of no tree."""
        return BoostedBlend(self.name, features, LinearBlend.nothing(features), booster)


class LightGbm(Trees):
    """LightGBM by an objective of its own; sampled rows count by weight."""

    objective: ClassVar[str]

    def watched(self, task: Task, training: LabelledRows, validation: LabelledRows) -> Learned:
        if not splittable(training, task.settings):
            return Learned(self.ranker(task.features, None), [0.0])
        data = self._data(training, task.features)
        later = self._data(validation, task.features, data)
        booster, curve = train_watched(data, later, validation, task.settings, self.objective)
        return Learned(self.ranker(task.features, booster), curve)

    def whole(self, task: Task, rows: LabelledRows, trees: int) -> CalibratedRanker:
        import lightgbm

        if not splittable(rows, task.settings):
            return self.ranker(task.features, None)
        data = self._data(rows, task.features)
        booster = lightgbm.train(parameters(task.settings, self.objective), data, trees)
        return self.ranker(task.features, booster)

    def _data(
        self, rows: LabelledRows, features: Sequence[str], reference: lightgbm.Dataset | None = None
    ) -> lightgbm.Dataset:
        import lightgbm

        return lightgbm.Dataset(
            rows.matrix,
            rows.positive,
            group=rows.group,
            weight=rows.importance,
            feature_name=list(features),
            reference=reference,
        )


class BinaryLightGbm(LightGbm):
    """LightGBM by log loss."""

    name = "lightgbm_binary"
    objective = "binary"


class LambdaRank(LightGbm):
    """LightGBM by LambdaRank (Burges: "From RankNet to LambdaRank to LambdaMART", 2010)."""

    name = "lambdarank"
    # No default: its pairs cannot carry the weights of sampled rows (docs/log.md).
    objective = "lambdarank"


class XgBoost(Trees):
    """XGBoost by log loss: 500 trees of depth 6, rate 0.05, 0.8 of rows and columns a tree."""

    name = "xgboost"
    trees = 500

    def watched(self, task: Task, training: LabelledRows, validation: LabelledRows) -> Learned:
        curve: dict[str, dict[str, list[float]]] = {}

        def ndcg(score: np.ndarray, _: Any) -> tuple[str, float]:
            return "ndcg", ndcg_of(score, validation)

        booster = _xgboost().train(
            self._parameters(task.settings),
            _matrix(training, task.features),
            self.trees,
            evals=[(_matrix(validation, task.features), "validation")],
            custom_metric=ndcg,
            maximize=True,
            early_stopping_rounds=task.settings.early_stopping,
            evals_result=curve,
            verbose_eval=False,
        )
        # XGBoost returns the trees after the best one too.
        best = booster[: booster.best_iteration + 1]
        return Learned(self.ranker(task.features, best), curve["validation"]["ndcg"])

    def whole(self, task: Task, rows: LabelledRows, trees: int) -> CalibratedRanker:
        data = _matrix(rows, task.features)
        booster = _xgboost().train(self._parameters(task.settings), data, trees)
        return self.ranker(task.features, booster)

    def _parameters(self, settings: RankerConfig) -> dict[str, Any]:
        return {
            "objective": "binary:logistic",
            "max_depth": 6,
            "eta": 0.05,
            "subsample": 0.8,
            "colsample_bytree": 0.8,
            "seed": settings.seed,
            "verbosity": 0,
            "disable_default_eval_metric": True,
        }


class Network(Learner):
    """A network whose class fits and loads itself; each fit has a scale of its own."""

    loads: ClassVar[type[MlpRanker | TwoTowerRanker]]
    refits = False

    def whole(self, task: Task, rows: LabelledRows, trees: int) -> CalibratedRanker:
        return self.loads.fit(rows, task.features, task.settings.seed)


class Mlp(Network):
    """A network of three hidden layers by log loss."""

    name = "mlp"
    loads = MlpRanker


class TwoTower(Network):
    """Two small networks that meet in a dot product, by log loss."""

    name = "two_tower"
    loads = TwoTowerRanker


def _xgboost() -> Any:
    try:
        import xgboost
    except ImportError:
        raise MissingDependencyError("xgboost", "xgboost", "ranker 'xgboost'") from None
    return xgboost


def _matrix(rows: LabelledRows, features: Sequence[str]) -> Any:
    finite = np.where(np.isinf(rows.matrix), np.nan, rows.matrix)  # XGBoost refuses infinities
    return _xgboost().DMatrix(
        finite, rows.positive, weight=rows.importance, feature_names=list(features)
    )


def fit_blend(rows: LabelledRows, features: Sequence[str]) -> LinearBlend:
    """The linear blend of labelled rows."""
    return LinearBlend.fit(rows.matrix, rows.label, rows.group, features, row_weight=rows.weight)


def best_source(rows: LabelledRows, features: Sequence[str]) -> str:
    """The source or heuristic with the best order."""
    names = [name for name in features if name.endswith("_score")]
    names += [name for name in ("resource_allocation", "jaccard") if name in features]
    column = {name: list(features).index(name) for name in names}
    # Nothing compares ahead of NaN, so that a missing score would rank first.
    return max(names, key=lambda name: ndcg_of(np.nan_to_num(rows.matrix[:, column[name]]), rows))
