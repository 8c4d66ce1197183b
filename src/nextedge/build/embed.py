"""Step 5: train the models that are worth training once, for all windows to use.

Inputs: the records, the snapshot, and the windows. Output: ``<graph>/<source>/`` artifacts, and
``embed.json``, which names the models that were left out and says why.

The ``common`` graph holds the edges that are no label of any window. An inductive model is trained
on it once and embeds every later graph with the same parameters: the ranker meets the same space
when it is trained and when it serves. A transductive model, which has one embedding a node, is
trained again for the evaluation and for serving.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from nextedge.build.step import SurfaceStep
from nextedge.build.time_split.surface_history import SurfaceHistory
from nextedge.errors import TooLittleDataError
from nextedge.graph.scope import Scope
from nextedge.models.artifact import fingerprint
from nextedge.models.distributed.launcher import fit
from nextedge.progress import Progress
from nextedge.retrieval.model_source import ModelSource, training_data
from nextedge.retrieval.registry import enabled_sources, source_config
from nextedge.storage.files import vanishing

COMMON = "common"
EVALUATION = "evaluation"
SERVE = "serve"


class EmbedStep(SurfaceStep):
    """Trains every enabled model of one surface that is trained, not fitted for each graph."""

    name = "embed"

    def settings(self) -> Mapping[str, Any]:
        surface = self.config.surface(self.surface)
        return {
            "sources": surface.model_dump()["sources"],
            "kind": surface.kind,
            # Once torch is installed, the models that were left out must be trained.
            "torch": _has_torch(),
        }

    def run(self, inputs: Mapping[str, Path], output: Path, progress: Progress) -> None:
        surface = self.config.surface(self.surface)
        history = SurfaceHistory.load(inputs, surface)
        sources = [
            source
            for source in enabled_sources(history.served, surface).values()
            if issubclass(source, ModelSource) and source.model.trained
        ]
        left_out: dict[str, str] = {}
        (output / COMMON).mkdir()
        if sources:
            # The graphs of windows serve the training alone.
            with vanishing(output) as folder:
                scopes = {SERVE: history.served}
                for window in (history.split.common(), history.split.evaluation):
                    (folder / window.name).mkdir()
                    snapshot = history.snapshot(window, folder / window.name, self.engine)
                    scopes[window.name] = Scope(snapshot, history.relation)
                for source in sources:
                    reason = self._train(source, scopes, output, progress)
                    if reason:
                        left_out[source.name] = reason
        (output / "embed.json").write_text(json.dumps({"left_out": left_out}, indent=1))

    def _train(
        self,
        source: type[ModelSource],
        scopes: Mapping[str, Scope],
        output: Path,
        progress: Progress,
    ) -> str:
        """Train a model for every graph that needs its own; returns why it is left out, or ""."""
        config = source_config(self.config.surface(self.surface), source)
        model = source.model()
        if model.extra == "train" and not _has_torch():
            return "torch is not installed: pip install 'nextedge[train]'"
        # A transductive model has an embedding for the nodes of one graph only.
        for graph in [COMMON] if model.inductive else [COMMON, EVALUATION, SERVE]:
            data = training_data(scopes[graph])
            # By the graph's content, not the step's key: other settings go on with the same epochs.
            mark = fingerprint(data.graph.indptr, data.graph.indices)
            data = replace(data, directory=output.parent / "checkpoints" / f"{source.name}-{mark}")

            # A default, because a closure would see the loop's next graph.
            def report(text: str, done: int, total: int, graph: str = graph) -> None:
                progress(f"embed {self.surface}: {text} ({graph})", done, total)

            try:
                artifact = fit(model, data, config, report, self.config.training)
            except TooLittleDataError as error:
                return str(error)
            (output / graph).mkdir(exist_ok=True)
            artifact.save(output / graph / source.name)
        return ""


def trained_models(directory: Path, graph: str) -> dict[str, Path]:
    """Folders of the trained models by source, as the pipeline of a graph uses them."""
    # The graph's own models come last, so that they replace the common ones.
    folders = [directory / name for name in (COMMON, graph) if (directory / name).exists()]
    return {path.name: path for folder in folders for path in sorted(folder.iterdir())}


def _has_torch() -> bool:
    return importlib.util.find_spec("torch") is not None  # an import would take seconds
