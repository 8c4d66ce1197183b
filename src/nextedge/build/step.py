"""What a step is, and how its output is kept so that an unchanged step is never run twice."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from nextedge.build.cache.memory_budget import require
from nextedge.build.cache.remote import DONE, RemoteStepCache
from nextedge.build.cache.resource_usage import measured
from nextedge.config import Config
from nextedge.engines.base import Engine
from nextedge.memory import give_back
from nextedge.progress import Progress
from nextedge.storage.files import writing

CHECKPOINTS = "checkpoints"


class Step(ABC):
    """One unit of the offline line: inputs and settings in, one folder out.

    The output is keyed by a hash of the step's version, settings and inputs' keys: the same
    work is found again, a killed step leaves nothing that could be mistaken for an output.
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
        return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[
            :20
        ]


class SurfaceStep(Step):
    """A step of one surface."""

    def __init__(self, config: Config, engine: Engine, surface: str) -> None:
        self.config = config
        self.engine = engine
        self.surface = surface


def checkpoints(output: Path) -> Path:
    """Folder in which a step keeps what it has of ``output``, for the run after one that stopped."""
    folder = output.parent / CHECKPOINTS / output.name.split(".")[1]
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


class StepRunner:
    """Keeps the outputs of steps under ``work`` in the state folder."""

    def __init__(
        self,
        directory: Path,
        progress: Progress,
        *,
        fresh: bool = False,
        spent: Callable[[], Mapping[str, Any]] = dict,
        memory_bytes: int | None = None,
        shelf: RemoteStepCache | None = None,
    ) -> None:
        self.directory = directory
        self.shelf = shelf
        self.progress = progress
        self.fresh = fresh
        self.spent = spent
        """What an engine took since it was last asked, beside this process."""
        self.memory_bytes = memory_bytes
        """What a step may take; one that needs more is refused. None is no bound."""
        self.used: set[str] = set()
        self.usage: list[dict[str, Any]] = []
        """What each step cost when it ran, in order; ``reused`` where an earlier build ran it."""

    def complete(self, step: Step, inputs: Mapping[str, tuple[str, Path]]) -> tuple[str, Path]:
        """Run a step unless its output is there already; returns (key, folder).

        Raises:
            MemoryBoundError: it would need more memory than it may take.
        """
        key, output = self._place(step, inputs)
        self.used.add(output.name)
        if (output / DONE).exists() and not self.fresh:
            self.progress(f"{step.name}: unchanged", 1, 1)
            self._note(step, output, reused=True)
            return key, output
        require(step.name, {name: path for name, (_, path) in inputs.items()}, self.memory_bytes)
        for left in self.directory.glob(f".{output.name}.*"):  # by builds that were killed
            shutil.rmtree(left, ignore_errors=True)
        partial = self.directory / f".{output.name}.{os.getpid()}"
        if self.fresh:
            shutil.rmtree(checkpoints(partial), ignore_errors=True)
        try:
            with writing(output):
                partial.mkdir(parents=True)
                fetched = (
                    self.shelf is not None
                    and not self.fresh
                    and self.shelf.fetch(output.name, partial)
                )
                if not fetched:
                    partial.mkdir(exist_ok=True)
                    self._run(step, key, {n: path for n, (_, path) in inputs.items()}, partial)
                shutil.rmtree(output, ignore_errors=True)
                os.replace(partial, output)
                if self.shelf is not None and not fetched:
                    self.shelf.keep(output.name, output)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(checkpoints(partial), ignore_errors=True)
        self._note(step, output, reused=fetched)
        return key, output

    def _run(self, step: Step, key: str, inputs: Mapping[str, Path], output: Path) -> None:
        with measured(output) as usage:
            step.run(inputs, output, self.progress)
        give_back()
        took = {**usage.to_json(), **self.spent()}
        (output / DONE).write_text(json.dumps({"step": step.name, "key": key, "usage": took}))

    def _note(self, step: Step, output: Path, *, reused: bool) -> None:
        done = json.loads((output / DONE).read_text())
        surface = getattr(step, "surface", None)
        of = {"surface": surface} if surface else {}
        self.usage.append({"step": step.name, **of, "reused": reused, **done.get("usage", {})})

    def has(self, step: Step, inputs: Mapping[str, tuple[str, Path]]) -> bool:
        """Whether the output of a step is there."""
        return (self._place(step, inputs)[1] / DONE).exists()

    def _place(self, step: Step, inputs: Mapping[str, tuple[str, Path]]) -> tuple[str, Path]:
        key = step.key({name: key for name, (key, _) in inputs.items()})
        return key, self.directory / f"{step.name}-{key}"

    def tidy(self) -> None:
        """Drop outputs that the last build did not use."""
        for path in self.directory.iterdir() if self.directory.exists() else ():
            if path.name not in self.used:
                shutil.rmtree(path, ignore_errors=True)
        if self.shelf is not None:
            self.shelf.drop_all_but(self.used)
