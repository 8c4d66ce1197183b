"""A window's line as files: any process that sees the folder opens the same line from it.

Graphs and fitted arrays are mapped from disk, so that a window takes memory only while it is made,
and a build that was stopped finds the windows that it had.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nextedge.build.fit_sources import FitSources
from nextedge.build.time_split.pairs import Pairs
from nextedge.build.time_split.split import Window
from nextedge.build.time_split.windows import History, window_snapshot
from nextedge.config import SurfaceConfig
from nextedge.engines.base import Engine
from nextedge.features.feature import FeatureSet
from nextedge.graph.scope import Scope
from nextedge.graph.snapshot import Entities, Snapshot, relation_of
from nextedge.ranking.pipeline import RankingPipeline, build_pipeline
from nextedge.retrieval.fusion import Fusion
from nextedge.retrieval.source import load_sources
from nextedge.retrieval.two_hop import TwoHop
from nextedge.storage.arrays import mapped
from nextedge.storage.files import writing
from nextedge.types import Requests

BATCH = 256
_OPENED = 2
_opened: dict[Path, RankingPipeline] = {}
"""Lines of this process by folder, the latest last; what they derive of their graphs goes with them."""


@dataclass(frozen=True)
class WindowPipeline:
    """Where a line lies, and what of it is no file.

    Attributes:
        entities: folder of the users and items.
        folder: ``snapshot/`` and ``sources/`` of the window.
        fusion: what a rank in each source is worth.
        found: folder of what an engine's join found for some queries (``nextedge.build.training_set.joined_two_hop``).
    """

    entities: Path
    folder: Path
    surface: SurfaceConfig
    features: FeatureSet
    fusion: Fusion
    found: Path | None = None

    def open(self) -> RankingPipeline:
        """The line; opened once in a process."""
        line = _opened.pop(self.folder, None)
        if line is None:
            snapshot = Snapshot.load(self.folder / "snapshot", Entities.load(self.entities))
            scope = Scope(snapshot, relation_of(self.surface))
            arrays = load_sources(self.folder / "sources")
            line = build_pipeline(scope, self.surface, arrays, features=self.features)
        _opened[self.folder] = line
        for folder in list(_opened)[:-_OPENED]:
            del _opened[folder]
        line = replace(line, fusion=self.fusion)
        return line if self.found is None else self._with_found(line, self.found)

    def remove(self) -> None:
        """Delete the files of a window that is done with: each takes the room of its graphs."""
        _opened.pop(self.folder, None)
        shutil.rmtree(self.folder)

    def _with_found(self, line: RankingPipeline, folder: Path) -> RankingPipeline:
        """The line with what two-hop found before, in place of its walks."""
        arrays = {file.stem: mapped(file) for file in sorted(folder.glob("*.npy"))}
        own = line.sources[TwoHop.name]
        sources = {**line.sources, TwoHop.name: TwoHop(line.scope, own.config, arrays)}
        return replace(line, sources=sources)


@dataclass(frozen=True, eq=False)
class WindowPipelines:
    """Makes the lines of one surface's windows, each in a folder of its own below ``folder``.

    Attributes:
        pairs: of the relation that the surface predicts.
        trained: folders of trained models by source, whose embeddings every window computes anew.
    """

    engine: Engine
    folder: Path
    surface: SurfaceConfig
    history: History
    pairs: Pairs
    features: FeatureSet
    trained: Mapping[str, Path]

    def line(self, window: Window) -> WindowPipeline:
        """The line over a window's snapshot, made unless a stopped build did."""
        folder, entities = self.folder / window.name, self.history.directory / "entities"
        if not folder.exists():
            partial = folder.with_name(f".{folder.name}.{os.getpid()}")
            shutil.rmtree(partial, ignore_errors=True)
            with writing(folder):
                place, sources = partial / "snapshot", partial / "sources"
                place.mkdir(parents=True)
                sources.mkdir()
                window_snapshot(
                    self.history, relation_of(self.surface), self.pairs, window, place, self.engine
                ).save(place)
                layers = folder.with_name(f"{folder.name}-layers")
                fits = FitSources(entities, place, self.surface, self.trained, sources)
                fits.run(self.engine, layers)
                os.replace(partial, folder)
        return WindowPipeline(entities, folder, self.surface, self.features, Fusion())


def batches(queries: np.ndarray, now: int, k: int) -> list[Requests]:
    """Requests of at most BATCH queries each."""
    return [
        Requests(queries[start : start + BATCH].astype(np.int32), now, k)
        for start in range(0, len(queries), BATCH)
    ]
