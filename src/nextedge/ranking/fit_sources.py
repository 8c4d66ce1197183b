"""The fitted arrays of all sources of a graph, each source a block of work for an engine."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pyarrow as pa

from nextedge.config import SurfaceConfig
from nextedge.engines.base import Engine
from nextedge.engines.blocks import OpenedFiles
from nextedge.graph.scope import Scope
from nextedge.graph.snapshot import Entities, Snapshot, relation_of
from nextedge.models.artifact import Artifact
from nextedge.models.inference import ByEngine
from nextedge.ranking.pipeline import fit_source, fitted_sources
from nextedge.retrieval.model_source import ModelSource
from nextedge.retrieval.source import save_arrays


@dataclass(frozen=True)
class FitSources:
    """The block function: the name of a source in, its arrays written to a folder of that name.

    Attributes:
        entities, snapshot: folders that the sources read.
        trained: folders of trained models by source.
        output: folder of all sources.
    """

    # One at a time: a scope holds what its sources derived of it.
    opened: ClassVar[OpenedFiles[tuple[Path, str], Scope]] = OpenedFiles(1)
    entities: Path
    snapshot: Path
    surface: SurfaceConfig
    trained: Mapping[str, Path]
    output: Path

    def __call__(self, block: pa.Table) -> pa.Table:
        for name in block["source"].to_pylist():
            save_arrays(fit_source(self.scope(), self.surface, name), self.output / name)
        return block

    def scope(self) -> Scope:
        """The scope of the snapshot, with all that its sources have derived of it."""
        return self.opened.get((self.snapshot, self.surface.kind), self._open)

    def _open(self) -> Scope:
        snapshot = Snapshot.load(self.snapshot, Entities.load(self.entities))
        return Scope(snapshot, relation_of(self.surface))

    def run(self, engine: Engine, layers: Path) -> None:
        """Fit all sources that the scope has.

        Args:
            layers: folder for the layers of trained models, whose rows are blocks themselves; a
                later run does not compute again what a stopped run left there.
        """
        classes = fitted_sources(self.scope(), self.surface, self.trained)
        for name in sorted(classes.keys() & self.trained.keys()):  # a set has no order
            trained, inference = Artifact.load(self.trained[name]), ByEngine(engine, layers / name)
            arrays = fit_source(self.scope(), self.surface, name, trained, inference)
            save_arrays(arrays, self.output / name)
        self.opened.clear()
        others = classes.keys() - self.trained.keys()
        # Models take longest: begun last, one of them would be waited for alone.
        order = sorted(others, key=lambda name: (not issubclass(classes[name], ModelSource), name))
        for _ in engine.map_blocks(self, _blocks(order)):
            pass
        self.opened.clear()
        # Last: until every source is written, a stopped run goes on from the layers.
        shutil.rmtree(layers, ignore_errors=True)


def _blocks(names: list[str]) -> Iterator[pa.Table]:
    for name in names:
        yield pa.table({"source": [name]})
