"""The offline line: tables → entities → snapshot → embed → sources → index → rank → evaluate → publish."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nextedge.build.cache.fingerprint import fingerprint, objects_fingerprint
from nextedge.build.cache.named_run import NamedRun
from nextedge.build.cache.remote import RemoteStepCache
from nextedge.build.embed import EmbedStep
from nextedge.build.entities import EntitiesStep
from nextedge.build.evaluate import EvaluateStep
from nextedge.build.index import IndexStep
from nextedge.build.rank import RankStep
from nextedge.build.snapshot import SnapshotStep, SourcesStep
from nextedge.build.step import Step, StepRunner
from nextedge.build.tables import TablesStep
from nextedge.config import Config
from nextedge.engines.base import Engine
from nextedge.errors import InputError, nearest
from nextedge.memory import bound_bytes
from nextedge.policy.rule import check_rules
from nextedge.progress import Progress, quiet
from nextedge.releases.manifest import COSTS
from nextedge.releases.shared import open_bucket, open_releases
from nextedge.retrieval.registry import check_sources
from nextedge.storage.files import writing

if TYPE_CHECKING:
    import pyarrow as pa


Kept = tuple[str, Path]
"""Key and folder of a step's output."""

SHARED = (TablesStep.name, EntitiesStep.name, SnapshotStep.name)
OF_SURFACE = (
    (EmbedStep, ("entities", "snapshot")),
    (SourcesStep, ("entities", "snapshot", "embed")),
    (IndexStep, ("sources",)),
    (RankStep, ("entities", "snapshot", "embed")),
    (EvaluateStep, ("entities", "snapshot", "embed", "rank")),
)
"""The steps of a surface in their order, and whose outputs each one reads."""
STEPS = (*SHARED, *(step.name for step, _ in OF_SURFACE))
"""Names of all steps, in the order in which they run."""


@dataclass(frozen=True)
class BuildOptions:
    """How one build runs.

    Attributes:
        surfaces: only these; none = all.
        fresh: run every step anew.
        promote: serve the release.
        until: the last step that runs, and nothing is published; None = all, and publish.
        run: name under which calls go on with the inputs of the first, see ``NamedRun``.
        wait_seconds: how long to wait while another build holds the lock.
    """

    surfaces: tuple[str, ...] = ()
    fresh: bool = False
    promote: bool = True
    until: str | None = None
    run: str | None = None
    wait_seconds: float = 0.0


def build(
    config: Config,
    engine: Engine,
    options: BuildOptions,
    *,
    frames: dict[str, pa.Table] | None = None,
    progress: Progress = quiet,
) -> str | None:
    """Run every step that is not done yet and publish a release.

    Returns:
        the release's id; None where the build ends at ``options.until``.

    Raises:
        InputError: there is no step or surface of that name.
        BuildLockedError: another build runs on the same state folder.
        DataError: the tables cannot be used.
        MemoryBoundError: a step needs more memory than ``build.memory_gib``.
        StorageError: the disk is full. What was served before goes on being served.
    """
    names = options.surfaces or tuple(config.surfaces)
    for name in names:
        config.surface(name)
    check_rules(config)
    check_sources(config)  # before the work of hours that a misspelt option would stop
    if options.until is not None and options.until not in STEPS:
        raise InputError(f"no step {options.until!r}; {nearest(options.until, STEPS)}")
    state, releases, bucket = config.state_path, open_releases(config), open_bucket(config)
    with releases.building(options.wait_seconds, progress):
        run = None if options.run is None else NamedRun(state, options.run)
        if run and not options.until and not options.fresh:
            published = run.published(releases, config, names)
            if published is not None:
                progress(f"release {published}: unchanged", 1, 1)
                if options.promote:
                    releases.promote(published)
                return published
        workshop = StepRunner(
            state / "work",
            progress,
            fresh=options.fresh,
            spent=engine.spent,
            shelf=None if bucket is None else RemoteStepCache(bucket, progress),
            memory_bytes=bound_bytes(config.build.memory_gib),
        )
        first = _tables_step(config, engine, frames, workshop, run)
        done = _shared(config, engine, first, workshop, options.until)
        if options.until in done:
            return None
        of_surface = {
            name: _surface(config, engine, name, workshop, done, options.until) for name in names
        }
        if options.until:
            return None
        parts = _parts(done, of_surface)
        parts[COSTS] = state / "work" / COSTS
        with writing(parts[COSTS]):
            parts[COSTS].write_text(json.dumps({"steps": workshop.usage}, indent=1))
        release = releases.publish(config, names, parts, promote=options.promote, progress=progress)
        if run:
            run.finish(releases, release)
        workshop.tidy()
    progress(f"release {release}", 1, 1)
    return release


def _tables_step(
    config: Config,
    engine: Engine,
    frames: dict[str, pa.Table] | None,
    workshop: StepRunner,
    run: NamedRun | None,
) -> Step:
    """The first step, over the inputs of now, or over those that a named run began with."""
    objects = objects_fingerprint(config, frames)
    if run and run.inputs and not workshop.fresh:
        step = TablesStep(config, engine, run.inputs, frames, objects)
        if workshop.has(step, {}):
            return step
    inputs = fingerprint(config, frames)
    if run:
        run.begin(inputs)
    return TablesStep(config, engine, inputs, frames, objects)


def _shared(
    config: Config, engine: Engine, first: Step, workshop: StepRunner, until: str | None
) -> dict[str, Kept]:
    """The steps that all surfaces share, as far as ``until``; returns the outputs by step."""
    done = {first.name: workshop.complete(first, {})}
    for step, needed in (
        (EntitiesStep(config, engine), "tables"),
        (SnapshotStep(engine), "entities"),
    ):
        if until in done:
            break
        done[step.name] = workshop.complete(step, {needed: done[needed]})
    return done


def _surface(
    config: Config,
    engine: Engine,
    name: str,
    workshop: StepRunner,
    done: Mapping[str, Kept],
    until: str | None,
) -> dict[str, Kept]:
    """The steps of one surface, as far as ``until``; returns the outputs by step."""
    outputs = dict(done)
    for step, needs in OF_SURFACE:
        outputs[step.name] = workshop.complete(
            step(config, engine, name), {each: outputs[each] for each in needs}
        )
        if step.name == until:
            break
    return outputs


def _parts(
    done: Mapping[str, Kept], of_surface: Mapping[str, Mapping[str, Kept]]
) -> dict[str, Path]:
    """What goes into the release, by place."""
    parts = {
        "tables/check.json": done["tables"][1] / "check.json",
        "entities": done["entities"][1] / "entities",
        "snapshot": done["snapshot"][1],
    }
    for name, outputs in of_surface.items():
        place = f"surfaces/{name}"
        parts |= {
            f"{place}/sources": outputs["sources"][1],
            f"{place}/index": outputs["index"][1],
            f"{place}/ranker": outputs["rank"][1] / "ranker",
            f"{place}/training.json": outputs["rank"][1] / "training.json",
            f"{place}/evaluation.json": outputs["evaluate"][1] / "evaluation.json",
        }
    return parts
