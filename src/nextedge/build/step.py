"""What a step is, and how its output is kept so that an unchanged step never runs twice."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from nextedge.build.cache.memory_budget import require
from nextedge.build.cache.remote_step_cache import DONE, RemoteStepCache
from nextedge.build.cache.resource_usage import measured
from nextedge.config import Config
from nextedge.engines.base import Engine
from nextedge.memory import give_back
from nextedge.progress import Progress
from nextedge.storage.files import writing

CHECKPOINTS = "checkpoints"


class StepOutput(NamedTuple):
    """Key and folder of a step's output."""

    key: str
    folder: Path


class Step(ABC):
    """One unit of the offline line: inputs and settings in, one folder out.

    The output is keyed by a hash of the step's version, settings and inputs' keys, so that a
    build finds the same work again.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1

    @abstractmethod
    def settings(self) -> Mapping[str, Any]:
        """What besides the inputs decides the output; must be JSON."""

    @abstractmethod
    def run(self, inputs: Mapping[str, Path], output: Path, progress: Progress) -> None:
        """Fill the ``output`` folder from the inputs' folders."""

    def key(self, inputs: Mapping[str, str]) -> str:
        """Hash of everything that decides the output."""
        facts = [self.name, self.version, self.settings(), sorted(inputs.items())]
        # Sorted: the same settings in another order are the same work.
        text = json.dumps(facts, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:20]


class SurfaceStep(Step):
    """A step of one surface."""

    def __init__(self, config: Config, engine: Engine, surface: str) -> None:
        self.config = config
        self.engine = engine
        self.surface = surface


def checkpoints(output: Path) -> Path:
    """The folder in which a step keeps parts of ``output``, for the build after one that stopped."""
    # Without the process id, so that the next build finds it.
    folder = output.parent / CHECKPOINTS / output.name.split(".")[1]
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


class StepRunner:
    """Runs steps, and keeps their outputs under ``work`` in the state folder.

    Attributes:
        engine_costs: returns what the engine took since the last call, beside this process.
        memory_bytes: memory that a step may take; a step that needs more is refused. None: any.
        used: names of the output folders that this build needs.
        usage: cost of each step when it ran, in order; ``reused`` where an earlier build ran it.
    """

    def __init__(
        self,
        directory: Path,
        progress: Progress,
        *,
        fresh: bool = False,
        engine_costs: Callable[[], Mapping[str, Any]] = dict,
        memory_bytes: int | None = None,
        remote: RemoteStepCache | None = None,
    ) -> None:
        self.directory = directory
        self.remote = remote
        self.progress = progress
        self.fresh = fresh
        self.engine_costs = engine_costs
        self.memory_bytes = memory_bytes
        self.used: set[str] = set()
        self.usage: list[dict[str, Any]] = []

    def complete(self, step: Step, inputs: Mapping[str, StepOutput]) -> StepOutput:
        """Run a step unless its output is there already.

        Raises:
            MemoryBoundError: it would need more memory than it may take.
        """
        key, output = self._output(step, inputs)
        self.used.add(output.name)
        if (output / DONE).exists() and not self.fresh:
            self.progress(f"{step.name}: unchanged", 1, 1)
            self._note(step, output, reused=True)
            return StepOutput(key, output)
        folders = {name: folder for name, (_, folder) in inputs.items()}
        # First, because a refused step must not have changed anything.
        require(step.name, folders, self.memory_bytes)
        for left in self.directory.glob(f".{output.name}.*"):  # by builds that were killed
            shutil.rmtree(left, ignore_errors=True)
        # Under another name until it is whole: a killed step must not look like an output.
        partial = self.directory / f".{output.name}.{os.getpid()}"
        if self.fresh:
            shutil.rmtree(checkpoints(partial), ignore_errors=True)
        try:
            with writing(output):
                partial.mkdir(parents=True)
                fetched = not self.fresh and self._fetch(output.name, partial)
                if not fetched:
                    partial.mkdir(exist_ok=True)  # a failed fetch deletes it
                    self._run(step, key, folders, partial)
                # A rename replaces no folder that has files.
                shutil.rmtree(output, ignore_errors=True)
                os.replace(partial, output)
                if self.remote is not None and not fetched:
                    # After the rename: a failed upload leaves the output here.
                    self.remote.keep(output.name, output)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        # Last: the build after a stopped one continues from them.
        shutil.rmtree(checkpoints(partial), ignore_errors=True)
        self._note(step, output, reused=fetched)
        return StepOutput(key, output)

    def _fetch(self, name: str, folder: Path) -> bool:
        return self.remote is not None and self.remote.fetch(name, folder)

    def _run(self, step: Step, key: str, inputs: Mapping[str, Path], output: Path) -> None:
        with measured(output) as usage:
            step.run(inputs, output, self.progress)
        # Freed memory would stay with its allocator, and the next step may use another.
        give_back()
        costs = {**usage.to_json(), **self.engine_costs()}
        (output / DONE).write_text(json.dumps({"step": step.name, "key": key, "usage": costs}))

    def _note(self, step: Step, output: Path, *, reused: bool) -> None:
        done = json.loads((output / DONE).read_text())
        surface = getattr(step, "surface", None)
        of = {"surface": surface} if surface else {}
        self.usage.append({"step": step.name, **of, "reused": reused, **done.get("usage", {})})

    def has(self, step: Step, inputs: Mapping[str, StepOutput]) -> bool:
        """Whether the output of a step is there."""
        return (self._output(step, inputs).folder / DONE).exists()

    def _output(self, step: Step, inputs: Mapping[str, StepOutput]) -> StepOutput:
        key = step.key({name: key for name, (key, _) in inputs.items()})
        return StepOutput(key, self.directory / f"{step.name}-{key}")

    def tidy(self) -> None:
        """Delete outputs that the last build did not use."""
        for path in self.directory.iterdir() if self.directory.exists() else ():
            if path.name not in self.used:
                shutil.rmtree(path, ignore_errors=True)
        if self.remote is not None:
            self.remote.drop_all_but(self.used)
