"""Step 8: train the ranker on the label windows and choose the model that serves.

Inputs: the records, the snapshot, the windows, and the trained models. Outputs: ``ranker/`` with
the fusion of the sources, the ranker, the cold-start ranker and the re-ranker, and
``training.json``, which says what was compared.

Models are fitted on windows before the one that judges them. All windows but the first choose the
model (``auto``) and the number of trees, the last one calibrates. The chosen model is then fitted
again on all windows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nextedge.build.embed import COMMON, trained_models
from nextedge.build.step import SurfaceStep, checkpoints
from nextedge.build.time_split.split import LABEL_WINDOWS
from nextedge.build.time_split.surface_history import SurfaceHistory
from nextedge.build.time_split.window_pipeline import WindowPipelineFactory
from nextedge.build.training_set.reranker import train_reranker
from nextedge.build.training_set.training_set import TrainingSet
from nextedge.models.rankers.learners import COLD_START
from nextedge.models.rankers.ranker import CalibratedRanker
from nextedge.models.rankers.training import train
from nextedge.progress import Progress
from nextedge.ranking.reranker import FOLDER as RERANKER
from nextedge.ranking.reranker import Reranker
from nextedge.retrieval.fusion import FILE as FUSION


class RankStep(SurfaceStep):
    """Trains the rankers of one surface."""

    name = "rank"
    version = 8

    def settings(self) -> Mapping[str, Any]:
        return {
            # They change lists after the ranking: no reason to train again.
            "surface": self.config.surface(self.surface).model_dump(exclude={"policy", "k"}),
            "seed": self.config.split.seed,
            "exclude": self.config.features.exclude,
        }

    def run(self, inputs: Mapping[str, Path], output: Path, progress: Progress) -> None:
        rows = self.training_set(inputs, checkpoints(output), progress)
        surface, features = rows.pipelines.surface, rows.pipelines.features.names
        split = rows.pipelines.history.split

        def report(text: str) -> None:
            progress(f"rank {self.surface}: {text}", LABEL_WINDOWS, LABEL_WINDOWS + 1)

        report("training")
        ranker, compared = train(rows.rows, features, surface.ranker)
        folder = output / "ranker"
        folder.mkdir()
        rows.fusion.save(folder / FUSION)
        about: dict[str, Any] = {
            "split": split.method,
            "split_reason": split.reason,
            **compared,
            "examination": None if rows.bias is None else rows.bias.to_json(),
        }
        if ranker is not None:
            ranker.save(folder)
            if surface.reranker.enabled:
                report("re-ranker")
                about["reranker"] = _rerank(rows, ranker, int(compared["trees"]), folder)
            report("cold start")
            settings = surface.ranker.model_copy(update={"model": "auto"})
            cold_rows = rows.cold_start(self.config.split.seed)
            cold, about["cold_start"] = train(cold_rows, features, settings)
            if cold is not None:
                (folder / COLD_START).mkdir()
                cold.save(folder / COLD_START)
        (output / "training.json").write_text(json.dumps(about, indent=1))

    def training_set(
        self, inputs: Mapping[str, Path], folder: Path, progress: Progress
    ) -> TrainingSet:
        """The labelled rows of every label window; ``folder`` keeps what a stopped build did."""
        surface = self.config.surface(self.surface)
        pipelines = WindowPipelineFactory(
            engine=self.engine,
            folder=folder,
            surface=surface,
            history=SurfaceHistory.load(inputs, surface),
            trained=trained_models(inputs["embed"], COMMON),
            exclude=self.config.features.exclude,
        )
        return TrainingSet(pipelines).collect(self.surface, progress)


def _rerank(
    rows: TrainingSet, ranker: CalibratedRanker, trees: int, folder: Path
) -> dict[str, Any]:
    """Train a re-ranker, and save it where it is to serve; returns what was measured."""
    model, about = train_reranker(rows.reranker_windows, ranker, trees, rows.pipelines.surface)
    if model is not None and about["served"]:
        served = rows.pipelines.history.served
        Reranker(served, model).save(folder / RERANKER, served)
    return about
