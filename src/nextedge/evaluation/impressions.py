"""How well systems separate taken from refused impressions, and what another policy would earn.

Every system gives each impression one or more numbers. A logistic regression turns them into
probabilities, fitted on half of the queries and applied to the other half, twice: so all systems
are calibrated alike. Beside the ranker are popularity, and a logistic regression on every feature,
which learns from the impressions themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nextedge.evaluation._ragged import BoolArray, FloatArray, IntArray
from nextedge.evaluation.bootstrap import Interval, bootstrap_interval
from nextedge.evaluation.classification import auc, log_loss
from nextedge.evaluation.off_policy import OffPolicyValue, off_policy_value

RESAMPLES = 400
FEWEST_TAKEN = 10
"""With fewer taken (or refused) impressions no figure is reported."""


@dataclass(frozen=True, slots=True)
class ImpressionSystem:
    """One system on the impressions.

    ``log_loss_saved`` is the share of the loss of a constant that it saves, 1 at best. ``value``
    is its off-policy value per position, where the log has propensities.
    """

    name: str
    auc: Interval
    log_loss: Interval
    log_loss_saved: float
    value: OffPolicyValue | None = None


@dataclass(frozen=True, slots=True)
class ImpressionReport:
    """The decided impressions of the evaluation window, and how many of them were taken."""

    rows: int
    taken: int
    queries: int
    systems: tuple[ImpressionSystem, ...]


@dataclass(frozen=True, eq=False)
class Choice:
    """Chances for off-policy values.

    Attributes:
        propensity: float[n], logged chance of each impression at its position; NaN: unknown.
        chance: by system float[n], its chance of showing the candidate there.
    """

    propensity: npt.NDArray[np.floating]
    chance: Mapping[str, npt.NDArray[np.float64]]


def measure_impressions(
    taken: BoolArray,
    query: IntArray,
    numbers: Mapping[str, npt.NDArray[np.floating]],
    choice: Choice | None = None,
    seed: int = 0,
) -> ImpressionReport | None:
    """Measure systems on n impressions; None where too few were taken or refused.

    Args:
        taken: bool[n].
        query: int[n], of each impression; intervals resample queries.
        numbers: by system float[n, m]; NaN counts as the column's mean.
    """
    if min(int(taken.sum()), int((~taken).sum())) < FEWEST_TAKEN:
        return None
    _, group = np.unique(query, return_inverse=True)
    # By query: rows of one query in both halves would tell a fit of its own answers.
    half = np.random.default_rng(seed).permutation(group.max() + 1)[group] % 2
    # A logistic regression needs both classes.
    if any(len(np.unique(taken[half == side])) < 2 for side in (0, 1)):
        return None
    # The share of the other half, as the systems are fitted on the other half.
    share = np.where(half == 0, taken[half == 1].mean(), taken[half == 0].mean())
    base = log_loss(taken, np.clip(share, 1e-9, 1 - 1e-9))
    systems = []
    for name, columns in numbers.items():
        probability = _cross_fitted(columns, taken, half)
        loss_R = -np.log(np.where(taken, probability, 1 - probability))
        loss = bootstrap_interval(_by_group(loss_R, group), seed=seed)
        mean = float(loss_R.mean())
        systems.append(
            ImpressionSystem(
                name,
                _auc(taken, probability, (group, half), seed),
                # Resamples average queries, the mean averages rows: only the width carries over.
                Interval(mean, mean + loss.low - loss.mean, mean + loss.high - loss.mean),
                1.0 - mean / base,
                _value(taken, name, choice, seed),
            )
        )
    return ImpressionReport(len(taken), int(taken.sum()), int(group.max()) + 1, tuple(systems))


def best_of_each(score: npt.NDArray[np.floating], request: IntArray, places: int) -> FloatArray:
    """float64[n]: chance of each row where a position shows one of a request's ``places`` best.

    Args:
        score: float[n] of all candidates of every request; request: int[n].

    >>> best_of_each(np.array([0.1, 0.9, 0.5]), np.array([0, 0, 0]), 2)
    array([0. , 0.5, 0.5])
    """
    order = np.lexsort((np.arange(len(score)), -score, request))
    ordered = request[order]
    start = np.concatenate(([0], np.flatnonzero(np.diff(ordered)) + 1))
    size = np.diff(np.concatenate((start, [len(ordered)])))
    rank = np.empty(len(score), np.int64)
    rank[order] = np.arange(len(score)) - np.repeat(start, size)
    most = np.empty(len(score), np.int64)
    most[order] = np.repeat(np.minimum(size, places), size)
    return np.where(rank < most, 1.0 / most, 0.0)


def _cross_fitted(
    columns: npt.NDArray[np.floating], taken: BoolArray, half: IntArray
) -> FloatArray:
    from sklearn.linear_model import LogisticRegression

    probability = np.empty(len(taken))
    for side in (0, 1):
        fitted, held_out = half != side, half == side
        x, unseen = _standard(columns, fitted)
        # One number is only to be calibrated; many could overfit.
        model = LogisticRegression(C=0.1 if x.shape[1] > 1 else 1e3, max_iter=500)
        model.fit(x, taken[fitted])
        probability[held_out] = model.predict_proba(unseen)[:, 1]
    return np.clip(probability, 1e-9, 1 - 1e-9)  # a certain miss would lose infinitely


def _standard(
    columns: npt.NDArray[np.floating], fitted: BoolArray
) -> tuple[FloatArray, FloatArray]:
    """Rows to fit on and rows to predict, in the standard deviations of the former."""
    values = np.where(np.isfinite(columns), columns, np.nan).astype(np.float64)
    known = np.isfinite(values[fitted])
    count = np.maximum(known.sum(axis=0), 1)  # a feature may be unknown throughout
    mean = np.where(known, values[fitted], 0.0).sum(axis=0) / count
    filled = np.where(np.isfinite(values), values, mean) - mean
    spread = filled[fitted].std(axis=0)
    # An outlier in the half held out would make its probability 0 or 1.
    filled = np.clip(filled / np.where(spread > 1e-9, spread, np.inf), -10, 10)
    return filled[fitted], filled[~fitted]


def _by_group(values: FloatArray, group: IntArray) -> FloatArray:
    return np.asarray(np.bincount(group, values) / np.bincount(group))


def _auc(
    taken: BoolArray, score: FloatArray, of_row: tuple[IntArray, IntArray], seed: int
) -> Interval:
    """Mean AUC of the two halves, as their scores are of two fits; resamples draw queries."""
    random, (group, half) = np.random.default_rng(seed), of_row
    count = int(group.max()) + 1
    sides = [np.flatnonzero(half == side) for side in (0, 1)]

    def mean(weight: FloatArray) -> float:
        return float(np.mean([auc(taken[side], score[side], weight[side]) for side in sides]))

    resampled = [
        mean(np.bincount(random.integers(0, count, count), minlength=count)[group].astype(float))
        for _ in range(RESAMPLES)
    ]
    # A resample may draw one class only, whose AUC is NaN.
    low, high = np.nanquantile(resampled, [0.025, 0.975])
    return Interval(mean(np.ones(len(taken))), float(low), float(high))


def _value(taken: BoolArray, name: str, choice: Choice | None, seed: int) -> OffPolicyValue | None:
    if choice is None or name not in choice.chance:
        return None
    # A row without a chance cannot be weighed.
    known = np.isfinite(choice.propensity) & (choice.propensity > 0)
    if not known.any():
        return None
    return off_policy_value(
        taken[known], choice.propensity[known], choice.chance[name][known], seed=seed
    )
