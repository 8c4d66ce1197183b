"""How well scores separate positives, and how well probabilities can be believed.

All of these are NaN, without a warning, when the labels are empty or of one class: there is
then nothing to separate, and a loss over one class would reward a constant answer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nextedge.errors import InputError
from nextedge.evaluation._ragged import BoolArray, FloatArray

CALIBRATION_BINS = 15
NOT_A_NUMBER = float("nan")


@dataclass(frozen=True, slots=True)
class ClassificationMetrics:
    """The quality of a ranker's probabilities over labelled pairs."""

    auc: float
    log_loss: float
    calibration_error: float
    brier: float
    pairs: int
    positives: int
    calibration_bins: int = CALIBRATION_BINS


def classification_metrics(
    label: npt.ArrayLike,
    probability: npt.ArrayLike,
    weight: npt.ArrayLike | None = None,
    *,
    bins: int = CALIBRATION_BINS,
) -> ClassificationMetrics:
    """Return all metrics of ``label bool[R]`` and ``probability float[R]`` in [0, 1].

    ``weight float[R]``, 0 or more, says how much each pair counts (for negatives that were
    sampled: how many each stands for). ``pairs`` and ``positives`` count those above 0.

    >>> classification_metrics([0, 1, 0, 1], [0.1, 0.9, 0.2, 0.8]).auc
    1.0
    """
    label_R, probability_R, weight_R = _probabilities(label, probability, weight)
    return ClassificationMetrics(
        auc=auc(label_R, probability_R, weight_R),
        log_loss=log_loss(label_R, probability_R, weight_R),
        calibration_error=expected_calibration_error(label_R, probability_R, weight_R, bins=bins),
        brier=brier_score(label_R, probability_R, weight_R),
        pairs=len(label_R),
        positives=int(label_R.sum()),
        calibration_bins=bins,
    )


def auc(label: npt.ArrayLike, score: npt.ArrayLike, weight: npt.ArrayLike | None = None) -> float:
    """Return the area under the ROC curve: P(score of a positive > of a negative), ties ½.

    Any finite scores serve. Sums, over the distinct scores, the positives at it times the
    negatives below it and half of those at it (Mann and Whitney, 1947).
    """
    label_R, score_R, weight_R = _pairs(label, score, weight)
    if _one_class(label_R):
        return NOT_A_NUMBER
    _, place_R = np.unique(score_R, return_inverse=True)
    positive = np.bincount(place_R, weights=weight_R * label_R)
    negative = np.bincount(place_R, weights=weight_R * ~label_R)
    beaten = np.cumsum(negative) - negative / 2
    return float(positive @ beaten / (positive.sum() * negative.sum()))


def log_loss(
    label: npt.ArrayLike, probability: npt.ArrayLike, weight: npt.ArrayLike | None = None
) -> float:
    """Return the mean of −ln of the probability given to what happened."""
    label_R, probability_R, weight_R = _probabilities(label, probability, weight)
    if _one_class(label_R):
        return NOT_A_NUMBER
    # A certain miss would make the mean infinite.
    epsilon = np.finfo(np.float64).eps
    clipped_R = np.clip(probability_R, epsilon, 1 - epsilon)
    loss_R = -np.log(np.where(label_R, clipped_R, 1 - clipped_R))
    return float(np.average(loss_R, weights=weight_R))


def brier_score(
    label: npt.ArrayLike, probability: npt.ArrayLike, weight: npt.ArrayLike | None = None
) -> float:
    """Return the mean squared distance of the probability from what happened (Brier, 1950)."""
    label_R, probability_R, weight_R = _probabilities(label, probability, weight)
    if _one_class(label_R):
        return NOT_A_NUMBER
    return float(np.average(np.square(probability_R - label_R), weights=weight_R))


def expected_calibration_error(
    label: npt.ArrayLike,
    probability: npt.ArrayLike,
    weight: npt.ArrayLike | None = None,
    *,
    bins: int = CALIBRATION_BINS,
) -> float:
    """Return Σ over bins of (share of pairs) · |mean probability − share of positives|.

    Bins hold equal weights of pairs (Nguyen and O'Connor, 2015), 15 unless told; many ties
    leave fewer.
    """
    if bins < 1:
        raise InputError(f"bins is {bins}; expected at least 1")
    label_R, probability_R, weight_R = _probabilities(label, probability, weight)
    if _one_class(label_R):
        return NOT_A_NUMBER
    order_R = np.argsort(probability_R)
    below_R = np.cumsum(weight_R[order_R])
    # Equal weights: rare positives leave bins of equal width nearly all empty.
    share = np.arange(1, bins) * below_R[-1] / bins
    end = np.searchsorted(below_R, share, side="right") - 1
    # A first pair heavier than a bin leaves no pair below its bound.
    end = np.append(end[end >= 0], len(label_R) - 1)
    # Equal probabilities share a bin, so that their order cannot change the result.
    upper = np.unique(probability_R[order_R[end]])
    bin_R = np.searchsorted(upper, probability_R, side="left")
    gap = np.bincount(bin_R, weights=weight_R * (probability_R - label_R))
    return float(np.abs(gap).sum() / weight_R.sum())


def _pairs(
    label: npt.ArrayLike, score: npt.ArrayLike, weight: npt.ArrayLike | None
) -> tuple[BoolArray, FloatArray, FloatArray]:
    """Return labels, scores and weights of the pairs that weigh anything."""
    label_R, score_R = np.asarray(label), np.asarray(score, dtype=np.float64)
    if label_R.ndim != 1 or label_R.shape != score_R.shape:
        raise InputError(
            f"labels have shape {label_R.shape} and scores {score_R.shape}; "
            "expected two flat arrays of one length"
        )
    if not np.isin(label_R, (0, 1)).all():
        raise InputError("labels hold other values than 0 and 1; give one of them a pair")
    if not np.isfinite(score_R).all():
        raise InputError("scores hold NaN or infinity; give a finite score for each pair")
    label_R = label_R.astype(np.bool_)  # ~ of a whole number is no negation
    if weight is None:
        return label_R, score_R, np.ones(len(label_R))
    weight_R = np.asarray(weight, dtype=np.float64)
    if weight_R.shape != label_R.shape:
        raise InputError(f"weights have shape {weight_R.shape}; labels have {label_R.shape}")
    if not (np.isfinite(weight_R) & (weight_R >= 0)).all():
        raise InputError("weights hold NaN, infinity or a negative; give 0 or more for each pair")
    # A pair without weight must not count as a second class.
    counts_R = weight_R > 0
    return label_R[counts_R], score_R[counts_R], weight_R[counts_R]


def _probabilities(
    label: npt.ArrayLike, probability: npt.ArrayLike, weight: npt.ArrayLike | None
) -> tuple[BoolArray, FloatArray, FloatArray]:
    label_R, probability_R, weight_R = _pairs(label, probability, weight)
    if len(probability_R) and not (probability_R.min() >= 0 and probability_R.max() <= 1):
        raise InputError(
            f"probabilities run from {probability_R.min():g} to {probability_R.max():g}; "
            "expected 0 to 1: calibrate the scores first, or use auc alone"
        )
    return label_R, probability_R, weight_R


def _one_class(label_R: BoolArray) -> bool:
    return not label_R.any() or bool(label_R.all())
