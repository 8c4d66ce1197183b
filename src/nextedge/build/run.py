"""Run the offline line: read the tables, run every step that is not done yet, publish a release.

The steps, in order: ``tables``, ``entities``, ``snapshot``, then for each surface ``windows``,
``embed``, ``sources``, ``index``, ``rank``, ``evaluate``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nextedge.build.cache.fingerprint import fingerprint, objects_fingerprint
from nextedge.build.cache.named_run import NamedRun
from nextedge.build.cache.remote_step_cache import RemoteStepCache
from nextedge.build.embed import EmbedStep
from nextedge.build.entities import EntitiesStep
from nextedge.build.evaluate import EvaluateStep
from nextedge.build.index import IndexStep
from nextedge.build.rank import RankStep
from nextedge.build.snapshot import SnapshotStep
from nextedge.build.sources import SourcesStep
from nextedge.build.step import Step, StepOutput, StepRunner
from nextedge.build.tables import TablesStep
from nextedge.build.windows import WindowsStep
from nextedge.config import Config
from nextedge.engines.base import Engine
from nextedge.errors import InputError, nearest
from nextedge.memory import bound_bytes
from nextedge.policy.check import check_plugins
from nextedge.progress import Progress, quiet
from nextedge.releases.manifest import COSTS
from nextedge.releases.shared import open_bucket, open_releases
from nextedge.storage.files import writing

if TYPE_CHECKING:
    import pyarrow as pa


SHARED = (TablesStep.name, EntitiesStep.name, SnapshotStep.name)
OF_SURFACE = (
    (WindowsStep, ("entities", "snapshot")),
    (EmbedStep, ("entities", "snapshot", "windows")),
    (SourcesStep, ("entities", "snapshot", "embed")),
    (IndexStep, ("sources",)),
    (RankStep, ("entities", "snapshot", "windows", "embed")),
    (EvaluateStep, ("entities", "snapshot", "windows", "embed", "rank")),
)
"""The steps of a surface in order, each with the steps whose outputs it reads."""
STEPS = (*SHARED, *(step.name for step, _ in OF_SURFACE))
"""Names of all steps, in the order in which they run."""


@dataclass(frozen=True)
class BuildOptions:
    """How one build runs.

    Attributes:
        surfaces: only these; none means all.
        fresh: run every step anew.
        promote: serve the release.
        until: the last step to run, without a release; None runs all steps and publishes.
        run: name of a build that several calls continue with the inputs of the first, see
            ``NamedRun``.
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
        StorageError: the disk is full. The served release stays served.
    """
    names = options.surfaces or tuple(config.surfaces)
    for name in names:
        config.surface(name)  # raises before any step runs
    check_plugins(config)  # before the work of hours that a misspelt option would stop
    if options.until is not None and options.until not in STEPS:
        raise InputError(f"no step {options.until!r}; {nearest(options.until, STEPS)}")
    state, releases, bucket = config.state_path, open_releases(config), open_bucket(config)
    with releases.building(options.wait_seconds, progress):
        run = None if options.run is None else NamedRun(state, options.run)
        if run and not options.until and not options.fresh:
            # A scheduler may repeat a call that has finished.
            published = run.published(releases, config, names)
            if published is not None:
                progress(f"release {published}: unchanged", 1, 1)
                if options.promote:
                    releases.promote(published)
                return published
        runner = StepRunner(
            state / "work",
            progress,
            fresh=options.fresh,
            engine_costs=engine.spent,
            remote=None if bucket is None else RemoteStepCache(bucket, progress),
            memory_bytes=bound_bytes(config.build.memory_gib),
        )
        tables = _tables_step(config, engine, frames, runner, run)
        shared = _run_shared(config, engine, tables, runner, options.until)
        if options.until in shared:
            return None
        surfaces = {
            name: _run_surface(config, engine, name, runner, shared, options.until)
            for name in names
        }
        if options.until:
            return None
        parts = _parts(shared, surfaces)
        parts[COSTS] = state / "work" / COSTS
        with writing(parts[COSTS]):
            parts[COSTS].write_text(json.dumps({"steps": runner.usage}, indent=1))
        release = releases.publish(config, names, parts, promote=options.promote, progress=progress)
        if run:
            run.finish(releases, release)
        # Last: a build that fails leaves what the next one continues from.
        runner.tidy()
    progress(f"release {release}", 1, 1)
    return release


def _tables_step(
    config: Config,
    engine: Engine,
    frames: dict[str, pa.Table] | None,
    runner: StepRunner,
    run: NamedRun | None,
) -> Step:
    """The first step, over the present inputs, or over those that a named run began with."""
    objects = objects_fingerprint(config, frames)
    if run and run.inputs and not runner.fresh:
        step = TablesStep(config, engine, run.inputs, frames, objects)
        if runner.has(step, {}):
            return step
    inputs = fingerprint(config, frames)
    if run:
        run.begin(inputs)
    return TablesStep(config, engine, inputs, frames, objects)


def _run_shared(
    config: Config, engine: Engine, tables: Step, runner: StepRunner, until: str | None
) -> dict[str, StepOutput]:
    """Run the steps that all surfaces share, as far as ``until``; returns outputs by step."""
    outputs = {tables.name: runner.complete(tables, {})}
    for step, needed in (
        (EntitiesStep(config, engine), "tables"),
        (SnapshotStep(engine), "entities"),
    ):
        if until in outputs:
            break
        outputs[step.name] = runner.complete(step, {needed: outputs[needed]})
    return outputs


def _run_surface(
    config: Config,
    engine: Engine,
    surface: str,
    runner: StepRunner,
    shared: Mapping[str, StepOutput],
    until: str | None,
) -> dict[str, StepOutput]:
    """Run the steps of one surface, as far as ``until``; returns outputs by step."""
    outputs = dict(shared)
    for step, inputs in OF_SURFACE:
        outputs[step.name] = runner.complete(
            step(config, engine, surface), {name: outputs[name] for name in inputs}
        )
        if step.name == until:
            break
    return outputs


def _parts(
    shared: Mapping[str, StepOutput], surfaces: Mapping[str, Mapping[str, StepOutput]]
) -> dict[str, Path]:
    """The files and folders of a release, by their path in it."""
    parts = {
        "tables/check.json": shared["tables"].folder / "check.json",
        "entities": shared["entities"].folder / "entities",
        "snapshot": shared["snapshot"].folder,
    }
    for name, outputs in surfaces.items():
        path = f"surfaces/{name}"
        parts |= {
            f"{path}/sources": outputs["sources"].folder,
            f"{path}/index": outputs["index"].folder,
            f"{path}/ranker": outputs["rank"].folder / "ranker",
            f"{path}/training.json": outputs["rank"].folder / "training.json",
            f"{path}/evaluation.json": outputs["evaluate"].folder / "evaluation.json",
        }
    return parts
