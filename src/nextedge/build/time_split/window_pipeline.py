"""The pipeline of a window as files: every process that sees the folder opens the same pipeline.

Graphs and fitted arrays are memory-mapped, so that a window takes memory only while it is made,
and a resumed build finds the windows of the build that was stopped.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np

from nextedge.build.time_split.split import Window
from nextedge.build.time_split.surface_history import SurfaceHistory
from nextedge.config import SurfaceConfig
from nextedge.engines.base import Engine
from nextedge.engines.blocks import OpenedFiles
from nextedge.features.feature import FeatureSet
from nextedge.graph.scope import Scope
from nextedge.graph.snapshot import Entities, Snapshot, relation_of
from nextedge.ranking.fit_sources import FitSources
from nextedge.ranking.pipeline import RankingPipeline, build_pipeline, declared_features
from nextedge.retrieval.fusion import Fusion
from nextedge.retrieval.source import load_sources
from nextedge.retrieval.two_hop import TwoHop
from nextedge.storage.arrays import mapped
from nextedge.storage.files import writing
from nextedge.types import Requests

BATCH = 256


@dataclass(frozen=True)
class WindowPipeline:
    """The pipeline of one window, without rankers.

    Attributes:
        entities: folder of the users and items.
        folder: ``snapshot/`` and ``sources/`` of the window.
        fusion: what a rank in each source is worth.
        two_hop: folder of two-hop candidates that an engine joined (see ``two_hop_join``).
    """

    opened: ClassVar[OpenedFiles[Path, RankingPipeline]] = OpenedFiles(2)
    entities: Path
    folder: Path
    surface: SurfaceConfig
    features: FeatureSet
    fusion: Fusion
    two_hop: Path | None = None

    def open(self) -> RankingPipeline:
        """The pipeline over the files, which a process opens once."""
        pipeline = replace(self.opened.get(self.folder, self._open), fusion=self.fusion)
        if self.two_hop is None:
            return pipeline
        arrays = {file.stem: mapped(file) for file in sorted(self.two_hop.glob("*.npy"))}
        config = pipeline.sources[TwoHop.name].config
        joined = TwoHop(pipeline.scope, config, arrays)
        return replace(pipeline, sources={**pipeline.sources, TwoHop.name: joined})

    def _open(self) -> RankingPipeline:
        snapshot = Snapshot.load(self.folder / "snapshot", Entities.load(self.entities))
        scope, arrays = (
            Scope(snapshot, relation_of(self.surface)),
            load_sources(self.folder / "sources"),
        )
        return build_pipeline(scope, self.surface, arrays, features=self.features)

    def remove(self) -> None:
        """Delete the files of a window that is done with: they take as much disk as its graphs."""
        # Maps that stay open would hold the space on disk.
        self.opened.clear()
        shutil.rmtree(self.folder)


@dataclass(frozen=True, eq=False)
class WindowPipelineFactory:
    """Makes the pipelines of one surface's windows, each in its folder below ``folder``.

    Attributes:
        trained: folders of trained models by source, whose embeddings every window computes anew.
        exclude: names of features to leave out.
    """

    engine: Engine
    folder: Path
    surface: SurfaceConfig
    history: SurfaceHistory
    trained: Mapping[str, Path]
    exclude: Sequence[str] = ()

    @cached_property
    def features(self) -> FeatureSet:
        """The features of every window: declared on the whole history, so that all have the same."""
        return declared_features(self.history.served, self.surface, self.exclude)

    def pipeline(self, window: Window) -> WindowPipeline:
        """The pipeline over a window's snapshot, as a stopped build left it or made anew."""
        folder, entities = self.folder / window.name, self.history.history.directory / "entities"
        if not folder.exists():
            partial = folder.with_name(f".{folder.name}.{os.getpid()}")
            shutil.rmtree(partial, ignore_errors=True)
            with writing(folder):
                snapshot, sources = partial / "snapshot", partial / "sources"
                snapshot.mkdir(parents=True)
                sources.mkdir()
                self.history.snapshot(window, snapshot, self.engine).save(snapshot)
                fit = FitSources(entities, snapshot, self.surface, self.trained, sources)
                # Outside the partial folder, so that the next build finds the layers.
                fit.run(self.engine, folder.with_name(f"{folder.name}-layers"))
                # A killed build must not leave a part of a window under its name.
                os.replace(partial, folder)
        return WindowPipeline(entities, folder, self.surface, self.features, Fusion())


def batches(queries: np.ndarray, now: int, k: int) -> list[Requests]:
    """Requests of at most BATCH queries each."""
    return [
        Requests(queries[start : start + BATCH].astype(np.int32), now, k)
        for start in range(0, len(queries), BATCH)
    ]
