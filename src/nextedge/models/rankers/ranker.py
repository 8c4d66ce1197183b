"""What a ranker is, and the calibration that every ranker ends in."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nextedge.types import FloatArray

MANIFEST = "ranker.json"


class Ranker(ABC):
    """Turns R candidates × F features into R calibrated probabilities."""

    name: str
    features: list[str]
    """Names of the columns that it reads, in order."""

    @abstractmethod
    def predict(self, matrix: FloatArray) -> FloatArray:
        """float32[R]: probability that each candidate becomes an edge."""

    @abstractmethod
    def contributions(self, matrix: FloatArray) -> FloatArray | None:
        """float32[R, F + 1]: what each feature adds to the raw score, the base last; or None."""

    @abstractmethod
    def save(self, directory: Path) -> None:
        """Write the ranker into an existing folder, without pickle."""


def ranked_shares(features: Sequence[str], share: np.ndarray) -> dict[str, float]:
    """Shares (float[F]) by feature, the largest first."""
    ranked = sorted(zip(features, share, strict=True), key=lambda pair: -pair[1])
    return {name: round(float(value), 6) for name, value in ranked}


class CalibratedRanker(Ranker):
    """Raw scores through a calibrator."""

    def __init__(self, name: str, features: Sequence[str], calibrator: Calibrator | None) -> None:
        self.name = name
        self.features = list(features)
        self.calibrator = calibrator

    @abstractmethod
    def raw(self, matrix: FloatArray) -> FloatArray:
        """float32[R]: uncalibrated scores."""

    @abstractmethod
    def importance(self) -> dict[str, float]:
        """Share of the score's movement that each feature brings, largest first."""

    def predict(self, matrix: FloatArray) -> FloatArray:
        raw = self.raw(matrix)
        return raw if self.calibrator is None else self.calibrator(raw)

    def save_manifest(self, directory: Path, about: Mapping[str, Any]) -> None:
        """Write ``ranker.json`` and the calibrator."""
        if self.calibrator is not None:
            np.save(directory / "calibrator_raw.npy", self.calibrator.raw)
            np.save(directory / "calibrator_probability.npy", self.calibrator.probability)
        manifest = {
            "model": self.name,
            "features": self.features,
            "calibrated": self.calibrator is not None,
            "importance": self.importance(),
            **about,
        }
        (directory / MANIFEST).write_text(json.dumps(manifest, indent=1))


@dataclass(frozen=True)
class Calibrator:
    """A strictly increasing map from raw scores to probabilities.

    Centred isotonic regression (Oron, Flournoy, Statistics in Biopharmaceutical Research 2017):
    lines through the centres of the blocks of an isotonic fit.

    Attributes:
        raw: float32[K] knots, increasing.
        probability: float32[K] at the knots.
    """

    raw: FloatArray
    probability: FloatArray

    def __call__(self, raw: FloatArray) -> FloatArray:
        """float32[R] probabilities."""
        smooth = np.interp(raw, self.raw, self.probability)
        low, high = float(self.raw[0]), float(self.raw[-1])
        # Outside the knots the line is flat: a nudge far below the fit's error keeps the order.
        place = (np.asarray(raw, np.float64) - (low + high) / 2) / max(high - low, 1e-6)
        nudge = 1e-6 / (1.0 + np.exp(-np.clip(4.0 * place, -30, 30)))  # exp would overflow
        return np.clip(smooth * (1.0 - 2e-6) + nudge, 0.0, 1.0).astype(np.float32)

    @classmethod
    def load(cls, directory: Path, about: Mapping[str, Any]) -> Calibrator | None:
        """Read the calibrator of a ranker's folder; None where its manifest names none."""
        if not about["calibrated"]:
            return None
        return cls(
            np.load(directory / "calibrator_raw.npy"),
            np.load(directory / "calibrator_probability.npy"),
        )

    @classmethod
    def fit(cls, raw: FloatArray, label: FloatArray, weight: FloatArray) -> Calibrator:
        """Fit on held-out rows, each standing for ``weight`` (float32[R]) candidates."""
        from sklearn.isotonic import IsotonicRegression

        model = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip")
        fitted = model.fit_transform(raw, label, sample_weight=weight)
        level, block = np.unique(fitted, return_inverse=True)
        # The flat steps of a plain fit would give many candidates one probability: no order.
        center = np.bincount(block, raw * weight) / np.bincount(block, weight)
        # Without knots at the extremes the outer halves of the end blocks would be flat.
        knots = np.concatenate(([raw.min()], center, [raw.max()]))
        ends = [level[0] * 0.99], [level[-1] + 0.01 * (1.0 - level[-1])]
        values = np.concatenate((ends[0], level, ends[1]))
        return cls(knots.astype(np.float32), values.astype(np.float32))
