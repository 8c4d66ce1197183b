"""Steps that make what is served: the snapshot of everything, and the fitted sources."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nextedge.engines.base import Engine
from nextedge.graph.snapshot import Entities, Snapshot
from nextedge.stages.line import fit_sources
from nextedge.stages.source import Arrays, Scope
from nextedge.steps.embed import SERVE, load_trained
from nextedge.steps.step import Progress, Step, SurfaceStep
from nextedge.steps.windows import History, relation_of, serving_snapshot
from nextedge.storage import mapped


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
        surface = self.config.surface(self.surface)
        entities = Entities.load(inputs["entities"] / "entities")
        scope = Scope(Snapshot.load(inputs["snapshot"], entities), relation_of(surface))
        trained = load_trained(inputs["embed"], SERVE)
        save_sources(fit_sources(scope, surface, trained), output)


def save_sources(fitted: Mapping[str, Arrays], directory: Path) -> None:
    """Write the arrays of every source into an existing folder."""
    for name, arrays in fitted.items():
        (directory / name).mkdir()
        for part, values in arrays.items():
            np.save(directory / name / f"{part}.npy", values)


def load_sources(directory: Path) -> dict[str, Arrays]:
    """Memory-map what ``save_sources`` wrote."""
    return {
        folder.name: {file.stem: mapped(file) for file in sorted(folder.glob("*.npy"))}
        for folder in sorted(directory.iterdir())
        if folder.is_dir()
    }
