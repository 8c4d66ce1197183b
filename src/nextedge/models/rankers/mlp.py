"""A feed-forward network as ranker, fitted by scikit-learn and served by NumPy."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nextedge.models.rankers.labelled_rows import LabelledRows
from nextedge.models.rankers.linear import LinearBlend
from nextedge.models.rankers.ranker import MANIFEST, CalibratedRanker, Calibrator, ranked_shares
from nextedge.types import FloatArray

HIDDEN = (256, 128, 64)
_BATCH = 1024
_STEPS = 400
_MOST_ROWS = 400_000


class MlpRanker(CalibratedRanker):
    """``score = W_n relu(… relu(W_1 z + b_1) …) + b_n`` over standardised features z.

    Features are standardised as in the linear blend; one that is missing stands at its mean.
    """

    def __init__(
        self,
        features: Sequence[str],
        scaling: LinearBlend,
        weights: Sequence[tuple[FloatArray, FloatArray]],
        calibrator: Calibrator | None = None,
    ) -> None:
        super().__init__("mlp", features, calibrator)
        self.scaling = scaling
        self.weights = list(weights)

    @classmethod
    def fit(cls, rows: LabelledRows, features: Sequence[str], seed: int) -> MlpRanker:
        """Fit by log loss, each row counting by its weight."""
        from sklearn.neural_network import MLPClassifier

        scaling = LinearBlend.scaling(rows.matrix, features)
        kept = np.arange(len(rows.label))
        if len(kept) > _MOST_ROWS:
            kept = np.sort(np.random.default_rng(seed).choice(kept, _MOST_ROWS, replace=False))
        batch = min(_BATCH, len(kept))
        # Steps are fixed, not epochs: more rows take no longer.
        epochs = max(1, round(_STEPS * batch / len(kept)))
        model = MLPClassifier(HIDDEN, batch_size=batch, max_iter=epochs, tol=0.0, random_state=seed)
        with warnings.catch_warnings():  # so many epochs are what is meant
            warnings.simplefilter("ignore")
            model.fit(
                scaling.standard(rows.matrix[kept]),
                rows.label[kept] > 0,
                sample_weight=rows.importance[kept],
            )
        layers = zip(model.coefs_, model.intercepts_, strict=True)
        return cls(
            features, scaling, [(w.astype(np.float32), b.astype(np.float32)) for w, b in layers]
        )

    def raw(self, matrix: FloatArray) -> FloatArray:
        x = self.scaling.standard(matrix)
        for place, (weight, bias) in enumerate(self.weights):
            x = x @ weight + bias
            if place < len(self.weights) - 1:
                np.maximum(x, 0.0, out=x)
        return x[:, 0]

    def contributions(self, matrix: FloatArray) -> None:
        return None

    def importance(self) -> dict[str, float]:
        share = np.abs(self.weights[0][0]).sum(axis=1).astype(np.float64)
        share /= max(float(share.sum()), 1e-12)
        return ranked_shares(self.features, share)

    def save(self, directory: Path) -> None:
        self.scaling.save(directory)
        for place, (weight, bias) in enumerate(self.weights):
            np.save(directory / f"layer_{place}_weight.npy", weight)
            np.save(directory / f"layer_{place}_bias.npy", bias)
        self.save_manifest(directory, {"layers": len(self.weights)})

    @classmethod
    def load(cls, directory: Path) -> MlpRanker:
        """Read what ``save`` wrote."""
        about = json.loads((directory / MANIFEST).read_text())
        weights = [
            (
                np.load(directory / f"layer_{place}_weight.npy"),
                np.load(directory / f"layer_{place}_bias.npy"),
            )
            for place in range(about["layers"])
        ]
        return cls(
            about["features"],
            LinearBlend.load(directory),
            weights,
            Calibrator.load(directory, about),
        )
