"""Fits every model that gradients train, as one of the processes that torchrun started.

    torchrun --nproc-per-node 2 tests/fit_models.py FOLDER

Each process leaves the arrays of each model as ``FOLDER/MODEL-RELATION-WAY-RANK.npz``. Dropout,
shared, popular and hard negatives, contrast, both kinds of relation: whatever draws, draws.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from nextedge.models.artifact import Artifact
from nextedge.models.distributed.collectives import current_ranks
from nextedge.models.distributed.worker import joined
from nextedge.models.model import Model, ModelConfig, TrainingData, model_classes
from nextedge.testing.models import planted
from nextedge.types import CONNECTS, ENGAGES

CURRICULUM = {
    "stages": [[0.3, "uniform"], [0.6, "popularity"], [1.0, "hard"]],
    "negatives": 16,
    "hard_pool": [20, 60],
}


def trainings() -> Iterator[tuple[str, Model, ModelConfig, TrainingData]]:
    """Name, model, settings and data of every training that is compared."""
    for model in (kind() for kind in model_classes().values() if kind.trained):
        settings = {"trainer": {"epochs": 2}, "curriculum": CURRICULUM}
        if model.name == "lightgcn":
            settings["contrast"] = 0.1
        if model.name == "sasrec":
            settings["compare_all_below"] = 0
        relation = CONNECTS if model.name == "bpr" else ENGAGES
        config = model.config_class.model_validate(settings)
        yield model.name, model, config, planted(relation)[0]


def fitted(model: Model, config: ModelConfig, data: TrainingData) -> Artifact:
    """The model, fitted without a word."""
    return model.fit(data, config, lambda *_: None)


def main(folder: Path) -> None:
    """Fit all, each process leaving what it ends with."""
    with joined():
        rank = current_ranks().rank
        for name, model, config, data in trainings():
            np.savez(folder / f"{name}-{rank}.npz", **fitted(model, config, data).arrays)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
