"""The fitted sources of a graph, each made by itself: by whichever process of the engine is free."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from nextedge.config import SurfaceConfig
from nextedge.engines.base import Engine
from nextedge.graph.scope import Scope
from nextedge.graph.snapshot import Entities, Snapshot, relation_of
from nextedge.models.artifact import Artifact
from nextedge.models.inference import ByEngine
from nextedge.ranking.pipeline import fit_source, fitted_sources
from nextedge.retrieval.model_source import ModelSource
from nextedge.retrieval.source import save_arrays

_opened: dict[tuple[Path, str], Scope] = {}
"""The scope that this process fits sources of, with what they derive of it."""


@dataclass(frozen=True)
class FitSources:
    """The block function: the name of a source in, its arrays written to a folder of that name.

    Attributes:
        entities, snapshot: folders of what the source may read.
        trained: folders of trained models by source.
        output: the folder that all of them are written to.
    """

    entities: Path
    snapshot: Path
    surface: SurfaceConfig
    trained: Mapping[str, Path]
    output: Path

    def __call__(self, block: pa.Table) -> pa.Table:
        scope = self.open()
        for name in block["source"].to_pylist():
            save_arrays(fit_source(scope, self.surface, name), self.output / name)
        return block

    def open(self) -> Scope:
        """The scope; opened once in a process, which keeps one."""
        key = self.snapshot, self.surface.kind
        if key not in _opened:
            _opened.clear()
            snapshot = Snapshot.load(self.snapshot, Entities.load(self.entities))
            _opened[key] = Scope(snapshot, relation_of(self.surface))
        return _opened[key]

    def run(self, engine: Engine, layers: Path) -> None:
        """Fit all sources that the scope has.

        Args:
            layers: folder for the layers of trained models, whose rows are blocks themselves; what
                a stopped run left there is not made again.
        """
        classes = fitted_sources(self.open(), self.surface, self.trained)
        for name in sorted(classes.keys() & self.trained.keys()):
            trained, inference = Artifact.load(self.trained[name]), ByEngine(engine, layers / name)
            arrays = fit_source(self.open(), self.surface, name, trained, inference)
            save_arrays(arrays, self.output / name)
        _opened.clear()
        # what takes long begins first
        others = classes.keys() - self.trained.keys()
        order = sorted(others, key=lambda name: (not issubclass(classes[name], ModelSource), name))
        for _ in engine.map_blocks(self, _blocks(order)):
            pass
        _opened.clear()
        shutil.rmtree(layers, ignore_errors=True)


def _blocks(names: list[str]) -> Iterator[pa.Table]:
    for name in names:
        yield pa.table({"source": [name]})
