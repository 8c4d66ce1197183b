"""Off-policy value: the reward of another policy, from the log of a randomised one.

Every logged row has the propensity of its action under the logging policy. Estimators
as in Dudík, Langford, Li: "Doubly Robust Policy Evaluation and Learning", ICML 2011, and Swaminathan,
Joachims: "The Self-Normalized Estimator for Counterfactual Learning", NeurIPS 2015. Where the
logging policy never shows what the other would, the log cannot tell: see ``effective_rows``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nextedge.errors import InputError
from nextedge.evaluation.bootstrap import Interval, bootstrap_interval, paired_bootstrap


@dataclass(frozen=True, slots=True)
class OffPolicyValue:
    """Mean reward a row that the evaluated policy would have earned.

    Attributes:
        logged: mean reward of the logging policy.
        ips: inverse propensity score, unbiased.
        snips: self-normalised: slightly biased, of much less variance.
        doubly_robust: with a reward model; unbiased if either it or the propensities are right.
            None without a model.
        effective_rows: (Σ w)² / Σ w² of the weights w: the rows that the estimates rest on.
    """

    logged: Interval
    ips: Interval
    snips: Interval
    doubly_robust: Interval | None
    effective_rows: float
    rows: int


def off_policy_value(
    reward: npt.ArrayLike,
    logging_propensity: npt.ArrayLike,
    evaluated_propensity: npt.ArrayLike,
    *,
    model_logged: npt.ArrayLike | None = None,
    model_evaluated: npt.ArrayLike | None = None,
    clip: float | None = None,
    seed: int = 0,
) -> OffPolicyValue:
    """Estimate the value of a policy.

    Args:
        reward: float[R] of each logged row.
        logging_propensity: float[R] in (0, 1], of the logged action.
        evaluated_propensity: float[R] in [0, 1], of the same action under the other policy.
        model_logged: float[R], a reward model's estimate for the logged action.
        model_evaluated: float[R], its mean over the other policy's actions.
        clip: largest weight; less variance for some bias. None leaves weights as they are.

    Raises:
        InputError: lengths differ, a propensity is out of range, or one model array is missing.

    >>> value = off_policy_value([1, 0, 1, 0], [0.5] * 4, [1, 0, 1, 0])
    >>> value.ips.mean, value.snips.mean, value.effective_rows
    (1.0, 1.0, 2.0)
    """
    reward_R = np.asarray(reward, np.float64)
    logging_R = _propensity("logging_propensity", logging_propensity, len(reward_R))
    evaluated_R = _propensity("evaluated_propensity", evaluated_propensity, len(reward_R))
    # A chance of 0 would weigh its row infinitely.
    if not len(reward_R) or (logging_R <= 0).any():
        raise InputError(
            "logging_propensity: expected one above 0 for every logged row, and at least one row"
        )
    if (model_logged is None) != (model_evaluated is None):
        raise InputError("give both model_logged and model_evaluated, or neither")
    weight_R = evaluated_R / logging_R
    if clip is not None:
        weight_R = np.minimum(weight_R, clip)
    robust = None
    if model_logged is not None and model_evaluated is not None:
        expected = np.asarray(model_evaluated, np.float64)
        rest = weight_R * (reward_R - np.asarray(model_logged, np.float64))
        robust = bootstrap_interval(expected + rest, seed=seed)
    total, squares = float(weight_R.sum()), float((weight_R**2).sum())
    return OffPolicyValue(
        logged=bootstrap_interval(reward_R, seed=seed),
        ips=bootstrap_interval(weight_R * reward_R, seed=seed),
        # A ratio of two sums: each resample must draw both from the same rows.
        snips=paired_bootstrap(weight_R * reward_R, weight_R, seed=seed).ratio,
        doubly_robust=robust,
        # All weights are 0 where the policy shows nothing that was logged.
        effective_rows=total**2 / squares if squares else 0.0,
        rows=len(reward_R),
    )


def _propensity(name: str, values: npt.ArrayLike, rows: int) -> npt.NDArray[np.float64]:
    given = np.asarray(values, np.float64)
    if given.shape != (rows,) or not ((given >= 0) & (given <= 1)).all():
        raise InputError(f"{name}: expected {rows} probabilities, one for each reward")
    return given
