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

from nextedge.steps.shelf import DONE, Shelf
from nextedge.storage import writing

Progress = Callable[[str, int, int], None]
"""Told (what is being done, how much is done, how much there is)."""


def quiet(text: str, done: int, total: int) -> None:
    """A progress listener that says nothing."""


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


class Workshop:
    """Keeps the outputs of steps under ``work`` in the state folder."""

    def __init__(
        self,
        directory: Path,
        progress: Progress,
        *,
        fresh: bool = False,
        shelf: Shelf | None = None,
    ) -> None:
        self.directory = directory
        self.shelf = shelf
        self.progress = progress
        self.fresh = fresh
        self.used: set[str] = set()

    def complete(self, step: Step, inputs: Mapping[str, tuple[str, Path]]) -> tuple[str, Path]:
        """Run a step unless its output is there already; returns (key, folder)."""
        key = step.key({name: key for name, (key, _) in inputs.items()})
        output = self.directory / f"{step.name}-{key}"
        self.used.add(output.name)
        if (output / DONE).exists() and not self.fresh:
            self.progress(f"{step.name}: unchanged", 1, 1)
            return key, output
        partial = self.directory / f".{step.name}-{key}.{os.getpid()}"
        shutil.rmtree(partial, ignore_errors=True)
        try:
            with writing(output):
                partial.mkdir(parents=True)
                found = (
                    self.shelf is not None
                    and not self.fresh
                    and self.shelf.fetch(output.name, partial)
                )
                if not found:
                    partial.mkdir(exist_ok=True)
                    folders = {name: path for name, (_, path) in inputs.items()}
                    step.run(folders, partial, self.progress)
                (partial / DONE).write_text(json.dumps({"step": step.name, "key": key}))
                shutil.rmtree(output, ignore_errors=True)
                os.replace(partial, output)
                if self.shelf is not None and not found:
                    self.shelf.keep(output.name, output)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return key, output

    def tidy(self) -> None:
        """Drop outputs that the last build did not use."""
        for path in self.directory.iterdir() if self.directory.exists() else ():
            if path.name not in self.used:
                shutil.rmtree(path, ignore_errors=True)
        if self.shelf is not None:
            self.shelf.drop_all_but(self.used)
