"""What a ranker is, and the calibration that every ranker ends in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nextedge.types import Candidates, FloatArray


class Ranker(ABC):
    """Turns n candidates × f features into n calibrated probabilities."""

    name: str

    @abstractmethod
    def predict(self, matrix: FloatArray, candidates: Candidates) -> FloatArray:
        """float32[R]: probability that each candidate becomes an edge."""

    @abstractmethod
    def contributions(self, matrix: FloatArray) -> FloatArray | None:
        """float32[R, F + 1]: what each feature adds to the raw score, the base last; or None."""

    @abstractmethod
    def save(self, directory: Path) -> None:
        """Write the ranker into an existing folder, without pickle."""


@dataclass(frozen=True)
class Calibrator:
    """A monotone map from raw scores to probabilities: knots of an isotonic regression.

    Strictly increasing by a tie-break of the raw score, so that calibration never merges
    two candidates into one place. Zadrozny, Elkan, KDD 2002.
    """

    raw: FloatArray
    probability: FloatArray

    def __call__(self, raw: FloatArray) -> FloatArray:
        """float32[R] probabilities."""
        smooth = np.interp(raw, self.raw, self.probability)
        nudge = 1.0 / (1.0 + np.exp(-np.clip(raw, -30, 30))) * 1e-6
        return np.clip(smooth + nudge, 0.0, 1.0).astype(np.float32)

    @classmethod
    def fit(cls, raw: FloatArray, label: FloatArray) -> Calibrator:
        """Fit on held-out rows: all candidates of their queries, none sampled away."""
        from sklearn.isotonic import IsotonicRegression

        model = IsotonicRegression(out_of_bounds="clip", y_min=0.0, y_max=1.0)
        model.fit(raw, label)
        knots, values = model.X_thresholds_, model.y_thresholds_
        return cls(np.asarray(knots, np.float32), np.asarray(values, np.float32))
