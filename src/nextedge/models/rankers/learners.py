"""How rankers are learned: one class a kind, all fitted on the same rows and compared in one table.

``lightgbm`` (trees on a listwise blend) serves by default; the others are there by configuration
(``ranker.compare``, ``ranker.model``). What ``early_stopping`` watches is NDCG@20 of a later window.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import lightgbm
import numpy as np

from nextedge.config import RankerConfig
from nextedge.discovery import named_subclasses
from nextedge.errors import MissingDependencyError, ReleaseError, nearest
from nextedge.models.rankers.gbdt import (
    BoostedBlend,
    boost,
    boost_watched,
    parameters,
    splittable,
    train_watched,
)
from nextedge.models.rankers.labelled_rows import LabelledRows, ndcg_of
from nextedge.models.rankers.linear import LinearBlend
from nextedge.models.rankers.mlp import MlpRanker
from nextedge.models.rankers.ranker import MANIFEST, CalibratedRanker
from nextedge.models.rankers.two_tower_ranker import TwoTowerRanker


@dataclass(frozen=True)
class Learned:
    """A ranker and, for trees, the validation's NDCG@20 after each."""

    ranker: CalibratedRanker
    curve: list[float]


class Learner(ABC):
    """Fits one kind of ranker; found by its ``name``."""

    name: ClassVar[str]
    loads: ClassVar[type[BoostedBlend | MlpRanker | TwoTowerRanker]] = BoostedBlend
    """What reads it back from a folder."""
    refits: ClassVar[bool] = True
    """Whether a fit on all windows keeps the scale of raw scores, and so their calibration."""

    def watched(
        self,
        training: LabelledRows,
        validation: LabelledRows,
        features: Sequence[str],
        settings: RankerConfig,
    ) -> Learned:
        """Fit on earlier windows; trees as long as a later one gains by them."""
        return Learned(self.whole(training, features, settings, 0), [])

    @abstractmethod
    def whole(
        self, rows: LabelledRows, features: Sequence[str], settings: RankerConfig, trees: int
    ) -> CalibratedRanker:
        """Fit on all windows, with a number of trees that ``watched`` found."""


def learners() -> dict[str, Learner]:
    """Every kind by name."""
    kinds = named_subclasses(Learner)  # type: ignore[type-abstract]
    return {name: cls() for name, cls in kinds.items()}


COLD_START = "cold_start"
"""Folder, within a ranker's, of the ranker for queries without edges."""


def load_rankers(directory: Path) -> tuple[CalibratedRanker, CalibratedRanker | None] | None:
    """The ranker of a folder and that for cold starts; None where nothing was learned.

    Raises:
        ReleaseError: the ranker is of a kind that is not there.
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

    def watched(
        self,
        training: LabelledRows,
        validation: LabelledRows,
        features: Sequence[str],
        settings: RankerConfig,
    ) -> Learned:
        blend = fit_blend(training, features)
        booster, curve = boost_watched(blend, training, validation, features, settings)
        return Learned(BoostedBlend(self.name, features, blend, booster), curve)

    def whole(
        self, rows: LabelledRows, features: Sequence[str], settings: RankerConfig, trees: int
    ) -> CalibratedRanker:
        blend = fit_blend(rows, features)
        booster = boost(blend, rows, features, settings, trees)
        return BoostedBlend(self.name, features, blend, booster)


class Blend(Learner):
    """The linear blend alone."""

    name = "blend"

    def whole(
        self, rows: LabelledRows, features: Sequence[str], settings: RankerConfig, trees: int
    ) -> CalibratedRanker:
        return BoostedBlend(self.name, features, fit_blend(rows, features))


class BestSource(Learner):
    """The order of the one source or heuristic that was best: what others must beat."""

    name = "best_source"

    def whole(
        self, rows: LabelledRows, features: Sequence[str], settings: RankerConfig, trees: int
    ) -> CalibratedRanker:
        chosen = best_source(rows, features)
        return BoostedBlend(self.name, features, LinearBlend.single(features, chosen))


class LightGbm(Learner):
    """LightGBM alone, by an objective of its own; rows of sampled candidates count by weight."""

    objective: ClassVar[str]

    def watched(
        self,
        training: LabelledRows,
        validation: LabelledRows,
        features: Sequence[str],
        settings: RankerConfig,
    ) -> Learned:
        if not splittable(training, settings):
            return Learned(self._ranker(features, None), [0.0])
        data = self._data(training, features)
        booster, curve = train_watched(
            data, self._data(validation, features, data), validation, settings, self.objective
        )
        return Learned(self._ranker(features, booster), curve)

    def whole(
        self, rows: LabelledRows, features: Sequence[str], settings: RankerConfig, trees: int
    ) -> CalibratedRanker:
        if not splittable(rows, settings):
            return self._ranker(features, None)
        data = self._data(rows, features)
        return self._ranker(
            features, lightgbm.train(parameters(settings, self.objective), data, trees)
        )

    def _ranker(self, features: Sequence[str], booster: Any) -> CalibratedRanker:
        return BoostedBlend(self.name, features, LinearBlend.nothing(features), booster)

    def _data(
        self, rows: LabelledRows, features: Sequence[str], reference: lightgbm.Dataset | None = None
    ) -> lightgbm.Dataset:
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
    objective = "lambdarank"


class XgBoost(Learner):
    """XGBoost by log loss: 500 trees of depth 6, rate 0.05, 0.8 of rows and columns a tree."""

    name = "xgboost"
    trees = 500

    def watched(
        self,
        training: LabelledRows,
        validation: LabelledRows,
        features: Sequence[str],
        settings: RankerConfig,
    ) -> Learned:
        xgboost = _xgboost()
        curve: dict[str, dict[str, list[float]]] = {}

        def ndcg(score: np.ndarray, _: Any) -> tuple[str, float]:
            return "ndcg", ndcg_of(score, validation)

        booster = xgboost.train(
            self._parameters(settings),
            _matrix(training, features),
            self.trees,
            evals=[(_matrix(validation, features), "validation")],
            custom_metric=ndcg,
            maximize=True,
            early_stopping_rounds=settings.early_stopping,
            evals_result=curve,
            verbose_eval=False,
        )
        best = booster[: booster.best_iteration + 1]
        return Learned(self._ranker(features, best), curve["validation"]["ndcg"])

    def whole(
        self, rows: LabelledRows, features: Sequence[str], settings: RankerConfig, trees: int
    ) -> CalibratedRanker:
        booster = _xgboost().train(self._parameters(settings), _matrix(rows, features), trees)
        return self._ranker(features, booster)

    def _ranker(self, features: Sequence[str], booster: Any) -> CalibratedRanker:
        return BoostedBlend(self.name, features, LinearBlend.nothing(features), booster)

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
    """A network whose class fits and reads itself; fitted anew on other rows its scale differs."""

    loads: ClassVar[type[MlpRanker | TwoTowerRanker]]
    refits = False

    def whole(
        self, rows: LabelledRows, features: Sequence[str], settings: RankerConfig, trees: int
    ) -> CalibratedRanker:
        return self.loads.fit(rows, features, settings.seed)


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
    """The source or heuristic whose order is best."""
    names = [name for name in features if name.endswith("_score")]
    names += [name for name in ("resource_allocation", "jaccard") if name in features]
    places = {name: list(features).index(name) for name in names}
    return max(names, key=lambda name: ndcg_of(np.nan_to_num(rows.matrix[:, places[name]]), rows))
