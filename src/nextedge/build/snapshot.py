"""Steps that make what is served: the snapshot of everything, and the fitted sources."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nextedge.build.embed import SERVE, trained_models
from nextedge.build.fit_sources import FitSources
from nextedge.build.step import Step, SurfaceStep, checkpoints
from nextedge.build.time_split.windows import History, serving_snapshot
from nextedge.engines.base import Engine
from nextedge.progress import Progress


class SnapshotStep(Step):
    """The graphs of all records, memory-mapped by whoever serves."""

    name = "snapshot"
    version = 4

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def settings(self) -> Mapping[str, Any]:
        return {}

    def run(self, inputs: Mapping[str, Path], output: Path, progress: Progress) -> None:
        progress("snapshot: graphs", 0, 1)
        history = History.load(inputs["entities"])
        serving_snapshot(history, output, self.engine).save(output)


class SourcesStep(SurfaceStep):
    """The fitted arrays of every source of one surface, over the serving snapshot."""

    name = "sources"

    def settings(self) -> Mapping[str, Any]:
        surface = self.config.surface(self.surface)
        return {"sources": surface.model_dump()["sources"], "kind": surface.kind}

    def run(self, inputs: Mapping[str, Path], output: Path, progress: Progress) -> None:
        progress(f"sources {self.surface}", 0, 1)
        FitSources(
            inputs["entities"] / "entities",
            inputs["snapshot"],
            self.config.surface(self.surface),
            trained_models(inputs["embed"], SERVE),
            output,
        ).run(self.engine, checkpoints(output) / "layers")
