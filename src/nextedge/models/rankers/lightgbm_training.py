"""Training of LightGBM trees: on a listwise softmax from a linear blend's score, or alone.

Boosted from the blend's score, no tree at all is still a good ranker, and early stopping decides
how far the data carries beyond it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nextedge.config import RankerConfig
from nextedge.models.rankers.labelled_rows import LabelledRows, ndcg_of
from nextedge.models.rankers.linear import LinearBlend

if TYPE_CHECKING:
    import lightgbm


def boost(
    blend: LinearBlend,
    rows: LabelledRows,
    features: Sequence[str],
    settings: RankerConfig,
    trees: int,
) -> lightgbm.Booster | None:
    """Boost a number of trees from the blend's score; None where no column can be split.

    The objective is the listwise softmax (ListNet's top-one probability, Cao et al., ICML
    2007).
    """
    import lightgbm

    if not splittable(rows, settings):
        return None
    objective = parameters(settings, Softmax(rows))
    return lightgbm.train(objective, _dataset(rows, blend, features), trees)


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
    return train_watched(data, later, validation, settings, Softmax(training))


def train_watched(
    data: lightgbm.Dataset,
    later: lightgbm.Dataset,
    validation: LabelledRows,
    settings: RankerConfig,
    objective: Any,
) -> tuple[lightgbm.Booster, list[float]]:
    """Trees while NDCG@20 of ``validation`` (as ``later`` has it) rises, and it after each tree."""
    import lightgbm

    def ndcg(score: np.ndarray, _: lightgbm.Dataset) -> tuple[str, float, bool]:
        return "ndcg", ndcg_of(score, validation), True

    curves: dict[str, dict[str, list[float]]] = {}
    booster = lightgbm.train(
        parameters(settings, objective),
        data,
        settings.trees,
        feval=ndcg,
        valid_sets=[later],
        valid_names=["validation"],
        callbacks=[
            lightgbm.early_stopping(settings.early_stopping, verbose=False),
            lightgbm.record_evaluation(curves),
        ],
    )
    return booster, curves["validation"]["ndcg"]


def splittable(rows: LabelledRows, settings: RankerConfig) -> bool:
    """Whether some column leaves enough rows on both sides; LightGBM ends in an error otherwise."""
    least = settings.min_rows_in_leaf
    if len(rows.label) < 2 * least:
        return False
    for column in rows.matrix.T:
        ordered = np.sort(column)  # missing values are last
        if not (ordered[least - 1] == ordered[-least] or np.isnan(ordered[least - 1])):
            return True
    return False


def parameters(settings: RankerConfig, objective: Any) -> dict[str, Any]:
    """LightGBM's parameters for an objective."""
    return {
        "objective": objective,
        # Early stopping checks every metric: NDCG@20 alone shall decide.
        "metric": "none",
        "num_leaves": settings.leaves,
        "learning_rate": settings.learning_rate,
        "min_data_in_leaf": settings.min_rows_in_leaf,
        "feature_fraction": 0.6,
        "lambda_l2": settings.leaf_penalty,
        "max_bin": 127,
        "seed": settings.seed,
        # The same bits on any number of cores.
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
    import lightgbm

    return lightgbm.Dataset(
        rows.matrix,
        rows.label,
        init_score=blend(rows.matrix),
        feature_name=list(features),
        reference=reference,
    )


class Softmax:
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
        # Weighted, the denominator estimates that over all candidates without bias.
        power = np.exp(score - np.repeat(highest, self.group)) * self.weight
        # Queries without an edge weigh 0, and so does their denominator.
        total = np.maximum(np.add.reduceat(power, self.start), 1e-12)
        chance = power / np.repeat(total, self.group)
        slope = self.worth * chance - self.share
        # A leaf divides by the sum of these, which is 0 where all its rows are certain.
        return slope, np.maximum(self.worth * chance * (1.0 - chance), 1e-6)
