"""The offline line: read → validate → snapshot → embed → sources → index → rank → evaluate → gate → publish."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nextedge.config import Config
from nextedge.engines.base import Engine
from nextedge.releases.shared import open_bucket, open_releases
from nextedge.steps.embed import EmbedStep
from nextedge.steps.entities import EntitiesStep
from nextedge.steps.evaluate import EvaluateStep
from nextedge.steps.fingerprint import fingerprint, objects_fingerprint
from nextedge.steps.index import IndexStep
from nextedge.steps.publishable import SnapshotStep, SourcesStep
from nextedge.steps.rank import RankStep
from nextedge.steps.shelf import Shelf
from nextedge.steps.step import Progress, Workshop, quiet
from nextedge.steps.tables import TablesStep

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class BuildOptions:
    """How one build runs: which surfaces, from scratch or resumed, promoted or not."""

    surfaces: tuple[str, ...] = ()
    fresh: bool = False
    promote: bool = True


def build(
    config: Config,
    engine: Engine,
    options: BuildOptions,
    *,
    frames: dict[str, pa.Table] | None = None,
    progress: Progress = quiet,
) -> str:
    """Run every step that is not done yet and publish a release; returns its id.

    Raises:
        BuildLockedError: another build runs on the same state folder.
        DataError: the tables cannot be used.
        StorageError: the disk is full. What was served before goes on being served.
    """
    names = options.surfaces or tuple(config.surfaces)
    for name in names:
        config.surface(name)
    releases, bucket = open_releases(config), open_bucket(config)
    with releases.building():
        shelf = None if bucket is None else Shelf(bucket, progress)
        workshop = Workshop(config.state_path / "work", progress, fresh=options.fresh, shelf=shelf)
        objects = objects_fingerprint(config, frames)
        tables = workshop.complete(
            TablesStep(config, engine, fingerprint(config, frames), frames, objects), {}
        )
        entities = workshop.complete(EntitiesStep(config, engine), {"tables": tables})
        snapshot = workshop.complete(SnapshotStep(), {"entities": entities})
        parts: dict[str, Path] = {
            "tables/check.json": tables[1] / "check.json",
            "entities": entities[1] / "entities",
            "snapshot": snapshot[1],
        }
        for name in names:
            parts |= _surface(config, name, workshop, {"entities": entities, "snapshot": snapshot})
        release = releases.publish(config, names, parts, promote=options.promote, progress=progress)
        workshop.tidy()
    progress(f"release {release}", 1, 1)
    return release


def _surface(
    config: Config, name: str, workshop: Workshop, inputs: Mapping[str, tuple[str, Path]]
) -> dict[str, Path]:
    """The steps of one surface; returns what goes into the release, by place."""
    inputs = {**inputs, "embed": workshop.complete(EmbedStep(config, name), inputs)}
    sources = workshop.complete(SourcesStep(config, name), inputs)
    index = workshop.complete(IndexStep(config, name), {"sources": sources})
    ranked = workshop.complete(RankStep(config, name), inputs)
    evaluated = workshop.complete(EvaluateStep(config, name), {**inputs, "rank": ranked})
    place = f"surfaces/{name}"
    return {
        f"{place}/sources": sources[1],
        f"{place}/index": index[1],
        f"{place}/ranker": ranked[1] / "ranker",
        f"{place}/training.json": ranked[1] / "training.json",
        f"{place}/evaluation.json": evaluated[1] / "evaluation.json",
    }
