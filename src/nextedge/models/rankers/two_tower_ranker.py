"""Two towers as ranker: the query's features on one side, everything else on the other.

``score = tower_q(z_query) · tower_c(z_rest)``, both over standardised features (Yi et al.:
"Sampling-Bias-Corrected Neural Modeling for Large Corpus Item Recommendations", RecSys 2019,
figure 1, here with the features of a ranker). Fitted by PyTorch, served by NumPy.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nextedge.models.pytorch import import_torch
from nextedge.models.rankers.labelled_rows import LabelledRows
from nextedge.models.rankers.linear import LinearBlend
from nextedge.models.rankers.ranker import MANIFEST, CalibratedRanker, Calibrator, ranked_shares
from nextedge.types import FloatArray

HIDDEN = 128
DIMENSIONS = 32
_BATCH = 4096
_STEPS = 1500
_RATE = 2e-3
_SIDES = ("query", "candidate")
_PARTS = ("hidden_weight", "hidden_bias", "weight", "bias")
_QUERY = "query_"

Tower = dict[str, FloatArray]


class TwoTowerRanker(CalibratedRanker):
    """Dot products of two small networks; a missing feature stands at its mean."""

    def __init__(
        self,
        features: Sequence[str],
        scaling: LinearBlend,
        towers: dict[str, Tower],
        calibrator: Calibrator | None = None,
    ) -> None:
        super().__init__("two_tower", features, calibrator)
        self.scaling = scaling
        self.towers = towers
        own = np.array([name.startswith(_QUERY) for name in features])
        self._columns = {"query": np.flatnonzero(own), "candidate": np.flatnonzero(~own)}

    @classmethod
    def fit(cls, rows: LabelledRows, features: Sequence[str], seed: int) -> TwoTowerRanker:
        """Fit by log loss, each row counting by its weight.

        Raises:
            MissingDependencyError: PyTorch is not installed.
        """
        torch = import_torch("the model 'two_tower'")
        scaling = LinearBlend.scaling(rows.matrix, features)
        ranker = cls(features, scaling, {})
        # The seed decides the first weights, and the caller's generator stays.
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            modules = {side: _module(torch, len(ranker._columns[side])) for side in _SIDES}
            ranker._train(torch, modules, rows, seed)
        ranker.towers = {side: _arrays(module) for side, module in modules.items()}
        return ranker

    def _train(self, torch: Any, modules: dict[str, Any], rows: LabelledRows, seed: int) -> None:
        random = np.random.default_rng(seed)
        base = torch.zeros(1, requires_grad=True)  # most rows are negative: the mean goes here
        parameters = [base, *(p for module in modules.values() for p in module.parameters())]
        optimizer = torch.optim.AdamW(parameters, lr=_RATE, weight_decay=1e-4)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, _STEPS)
        label, weight = rows.positive, rows.importance / rows.importance.mean()
        for _ in range(_STEPS):
            kept = random.integers(0, len(label), min(_BATCH, len(label)))
            z = self.scaling.standard(rows.matrix[kept])
            q, c = (modules[s](torch.from_numpy(z[:, self._columns[s]])) for s in _SIDES)
            loss = torch.nn.functional.binary_cross_entropy_with_logits(
                (q * c).sum(dim=1) + base,
                torch.from_numpy(label[kept]),
                torch.from_numpy(weight[kept].astype(np.float32)),
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()

    def raw(self, matrix: FloatArray) -> FloatArray:
        z = self.scaling.standard(matrix)
        q, c = (_embed(self.towers[side], z[:, self._columns[side]]) for side in _SIDES)
        return np.einsum("rd,rd->r", q, c)

    def contributions(self, matrix: FloatArray) -> None:
        return None

    def importance(self) -> dict[str, float]:
        share = np.zeros(len(self.features))
        for side in _SIDES:
            moved = np.abs(self.towers[side]["hidden_weight"]).sum(axis=0)
            share[self._columns[side]] = moved
        share /= max(float(share.sum()), 1e-12)
        return ranked_shares(self.features, share)

    def save(self, directory: Path) -> None:
        self.scaling.save(directory)
        for side in _SIDES:
            for part in _PARTS:
                np.save(directory / f"{side}_{part}.npy", self.towers[side][part])
        self.save_manifest(directory, {"dimensions": DIMENSIONS})

    @classmethod
    def load(cls, directory: Path) -> TwoTowerRanker:
        """Read what ``save`` wrote."""
        about = json.loads((directory / MANIFEST).read_text())
        towers = {
            side: {part: np.load(directory / f"{side}_{part}.npy") for part in _PARTS}
            for side in _SIDES
        }
        calibrator = Calibrator.load(directory, about)
        return cls(about["features"], LinearBlend.load(directory), towers, calibrator)


def _module(torch: Any, columns: int) -> Any:
    return torch.nn.Sequential(
        torch.nn.Linear(columns, HIDDEN), torch.nn.ReLU(), torch.nn.Linear(HIDDEN, DIMENSIONS)
    )


def _arrays(module: Any) -> Tower:
    values = [parameter.detach().numpy().copy() for parameter in module.parameters()]
    return dict(zip(_PARTS, values, strict=True))


def _embed(tower: Tower, z: FloatArray) -> FloatArray:
    hidden = np.maximum(z @ tower["hidden_weight"].T + tower["hidden_bias"], 0.0)
    return np.asarray(hidden @ tower["weight"].T + tower["bias"], np.float32)
