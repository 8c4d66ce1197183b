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
    label: npt.ArrayLike, probability: npt.ArrayLike, *, bins: int = CALIBRATION_BINS
) -> ClassificationMetrics:
    """Return all metrics of ``label bool[R]`` and ``probability float[R]`` in [0, 1].

    >>> classification_metrics([0, 1, 0, 1], [0.1, 0.9, 0.2, 0.8]).auc
    1.0
    """
    label_R, probability_R = _probabilities(label, probability)
    return ClassificationMetrics(
        auc=auc(label_R, probability_R),
        log_loss=log_loss(label_R, probability_R),
        calibration_error=expected_calibration_error(label_R, probability_R, bins=bins),
        brier=brier_score(label_R, probability_R),
        pairs=len(label_R),
        positives=int(label_R.sum()),
        calibration_bins=bins,
    )


def auc(label: npt.ArrayLike, score: npt.ArrayLike) -> float:
    """Return the area under the ROC curve: P(score of a positive > of a negative), ties ½.

    Any finite scores serve. Computed from the rank sum (Mann and Whitney, 1947).
    """
    label_R, score_R = _pairs(label, score)
    if _one_class(label_R):
        return NOT_A_NUMBER
    _, place_R, count = np.unique(score_R, return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(count) - (count - 1) / 2
    positives = int(label_R.sum())
    above = mean_rank[place_R[label_R]].sum() - positives * (positives + 1) / 2
    return float(above / (positives * (len(label_R) - positives)))


def log_loss(label: npt.ArrayLike, probability: npt.ArrayLike) -> float:
    """Return the mean of −ln of the probability given to what happened.

    Probabilities are kept one float64 epsilon away from 0 and 1, so that the loss is finite.
    """
    label_R, probability_R = _probabilities(label, probability)
    if _one_class(label_R):
        return NOT_A_NUMBER
    epsilon = np.finfo(np.float64).eps
    clipped_R = np.clip(probability_R, epsilon, 1 - epsilon)
    return float(-np.log(np.where(label_R, clipped_R, 1 - clipped_R)).mean())


def brier_score(label: npt.ArrayLike, probability: npt.ArrayLike) -> float:
    """Return the mean squared distance of the probability from what happened (Brier, 1950)."""
    label_R, probability_R = _probabilities(label, probability)
    if _one_class(label_R):
        return NOT_A_NUMBER
    return float(np.square(probability_R - label_R).mean())


def expected_calibration_error(
    label: npt.ArrayLike, probability: npt.ArrayLike, *, bins: int = CALIBRATION_BINS
) -> float:
    """Return Σ over bins of (share of pairs) · |mean probability − share of positives|.

    Bins hold equal numbers of pairs (Nguyen and O'Connor, 2015), 15 unless told, as a rare
    positive leaves bins of equal width nearly all empty. Pairs of equal probability share a
    bin, so that their order cannot change the result; many ties leave fewer bins.
    """
    if bins < 1:
        raise InputError(f"bins is {bins}; expected at least 1")
    label_R, probability_R = _probabilities(label, probability)
    if _one_class(label_R):
        return NOT_A_NUMBER
    end = np.arange(1, bins + 1) * len(label_R) // bins - 1
    upper = np.unique(np.sort(probability_R)[end[end >= 0]])
    bin_R = np.searchsorted(upper, probability_R, side="left")
    gap = np.bincount(bin_R, weights=probability_R - label_R)
    return float(np.abs(gap).sum() / len(label_R))


def _pairs(label: npt.ArrayLike, score: npt.ArrayLike) -> tuple[BoolArray, FloatArray]:
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
    return label_R.astype(np.bool_), score_R


def _probabilities(
    label: npt.ArrayLike, probability: npt.ArrayLike
) -> tuple[BoolArray, FloatArray]:
    label_R, probability_R = _pairs(label, probability)
    if len(probability_R) and not (probability_R.min() >= 0 and probability_R.max() <= 1):
        raise InputError(
            f"probabilities run from {probability_R.min():g} to {probability_R.max():g}; "
            "expected 0 to 1: calibrate the scores first, or use auc alone"
        )
    return label_R, probability_R


def _one_class(label_R: BoolArray) -> bool:
    return not label_R.any() or bool(label_R.all())
