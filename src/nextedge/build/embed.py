"""Step: train the models that are worth training once, for all windows to use.

The training graph holds the edges that no window holds back, so that no label of any window has
been seen. An inductive model is trained once and embeds every later graph with the same
parameters: the ranker meets the same space when it is trained and when it serves. Models with
an embedding for each node of its own are trained again for the evaluation and for serving.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nextedge.build.step import SurfaceStep
from nextedge.build.time_split.split import Window
from nextedge.build.time_split.windows import History, cut, window_snapshot
from nextedge.errors import TooLittleDataError
from nextedge.graph.scope import Scope
from nextedge.graph.snapshot import Snapshot, relation_of
from nextedge.models.artifact import fingerprint
from nextedge.models.distributed.launcher import fit
from nextedge.models.model import TrainingData
from nextedge.progress import Progress
from nextedge.retrieval.model_source import ModelSource, training_data
from nextedge.retrieval.registry import enabled_sources, source_config
from nextedge.storage.files import vanishing

COMMON = "common"
EVALUATION = "evaluation"
SERVE = "serve"


class EmbedStep(SurfaceStep):
    """``<graph>/<source>/`` artifacts of trained models, and ``embed.json`` on what was left out."""

    name = "embed"

    def settings(self) -> Mapping[str, Any]:
        surface = self.config.surface(self.surface)
        return {
            "sources": surface.model_dump()["sources"],
            "kind": surface.kind,
            "split": self.config.split.model_dump(),
            "torch": _has_torch(),
        }

    def run(self, inputs: Mapping[str, Path], output: Path, progress: Progress) -> None:
        history = History.load(inputs["entities"])
        surface = self.config.surface(self.surface)
        relation = relation_of(surface)
        served = Scope(Snapshot.load(inputs["snapshot"], history.entities), relation)
        sources = [
            source
            for source in enabled_sources(served, surface).values()
            if issubclass(source, ModelSource) and source.model.trained
        ]
        left_out: dict[str, str] = {}
        (output / COMMON).mkdir()
        if sources:
            pairs, windows, _, _ = cut(history, relation, self.config.split, served.graph)
            seen = np.logical_and.reduce([window.graph for window in windows])
            common = Window(COMMON, windows[0].as_of, seen, np.zeros_like(seen))
            with vanishing(output) as folder:
                scopes = {SERVE: served}
                for name, window in ((COMMON, common), (EVALUATION, windows[-1])):
                    (folder / name).mkdir()
                    snapshot = window_snapshot(
                        history, relation, pairs, window, folder / name, self.engine
                    )
                    scopes[name] = Scope(snapshot, relation)
                for source in sources:
                    self._train(source, scopes, output, progress, left_out)
        (output / "embed.json").write_text(json.dumps({"left_out": left_out}, indent=1))

    def _train(
        self,
        source: type[ModelSource],
        scopes: Mapping[str, Scope],
        output: Path,
        progress: Progress,
        left_out: dict[str, str],
    ) -> None:
        config = source_config(self.config.surface(self.surface), source)
        model = source.model()
        if model.extra == "train" and not _has_torch():
            left_out[source.name] = "torch is not installed: pip install 'nextedge[train]'"
            return
        graphs = [COMMON] if model.inductive else [COMMON, EVALUATION, SERVE]
        for graph in graphs:
            data = training_data(scopes[graph])
            mark = fingerprint(data.graph.indptr, data.graph.indices)
            checkpoints = output.parent / "checkpoints" / f"{source.name}-{mark}"
            data = TrainingData(
                data.relation,
                data.graph,
                data.query_features,
                data.candidate_features,
                data.others,
                data.seed,
                checkpoints,
            )

            def told(text: str, done: int, total: int, graph: str = graph) -> None:
                progress(f"embed {self.surface}: {text} ({graph})", done, total)

            try:
                fitted = fit(model, data, config, told, self.config.training)
            except TooLittleDataError as error:
                left_out[source.name] = str(error)
                return
            (output / graph).mkdir(exist_ok=True)
            fitted.save(output / graph / source.name)


def trained_models(directory: Path, graph: str) -> dict[str, Path]:
    """Folders of the trained models by source, as a graph's line uses them."""
    folders = [directory / name for name in (COMMON, graph) if (directory / name).exists()]
    return {path.name: path for folder in folders for path in sorted(folder.iterdir())}


def _has_torch() -> bool:
    return importlib.util.find_spec("torch") is not None
