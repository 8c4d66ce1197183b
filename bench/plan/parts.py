"""Where the time and the memory of a build go, finer than its steps.

A step does work of several kinds that grow with different things: ``rank`` makes graphs and fits
sources (with the history), labels rows and trains (bounded by ``ranker.max_rows``). ``watched``
times those parts by wrapping the functions that do them; each has its own time only, without
that of the parts inside it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nextedge.stages.source import source_classes
from nextedge.steps import embed, evaluate, publishable, rank
from nextedge.steps.step import Workshop

_EVERY_S = 0.01


class Clock:
    """Own seconds and CPU seconds of nested parts, and how often each ran."""

    def __init__(self) -> None:
        self.parts: dict[str, dict[str, float]] = {}
        self._open: list[list[float]] = []

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Time what runs inside, without the parts that it opens."""
        began, own_cpu = time.perf_counter(), time.process_time()
        self._open.append([0.0, 0.0])
        try:
            yield
        finally:
            wall, cpu = time.perf_counter() - began, time.process_time() - own_cpu
            inner_wall, inner_cpu = self._open.pop()
            if self._open:
                self._open[-1][0] += wall
                self._open[-1][1] += cpu
            found = self.parts.setdefault(
                name, {"seconds": 0.0, "cpu_seconds": 0.0, "count": 0, "peak_mib": 0.0}
            )
            found["seconds"] += wall - inner_wall
            found["cpu_seconds"] += cpu - inner_cpu
            found["count"] += 1

    def wrapped(self, name: str, run: Callable[..., Any]) -> Callable[..., Any]:
        """The function, timed."""

        def timed(*given: Any, **named: Any) -> Any:
            with self.measure(name):
                return run(*given, **named)

        return timed


class Peak:
    """Highest anonymous memory of this process while it is watched, in MiB.

    Pages of mapped files are not counted: the system may drop them at any time.
    """

    def __init__(self) -> None:
        self.mib = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Peak:
        self.mib = anonymous_mib()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.mib = max(self.mib, anonymous_mib())

    def _watch(self) -> None:
        while not self._stop.wait(_EVERY_S):
            self.mib = max(self.mib, anonymous_mib())


def anonymous_mib() -> float:
    """Resident memory of this process that no file backs."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 1024
    raise OSError("/proc/self/status has no RssAnon: this measurement needs Linux")


def watched(clock: Clock) -> None:
    """Wrap, for the rest of this process, the functions whose time is told apart."""
    complete = Workshop.complete

    def step(self: Workshop, given: Any, inputs: Any) -> Any:
        name = step_name(given)
        with clock.measure(name), Peak() as peak:
            found = complete(self, given, inputs)
        clock.parts[name]["peak_mib"] = peak.mib
        return found

    Workshop.complete = step  # type: ignore[method-assign]
    for module, function in ((rank, "window_snapshot"), (embed, "window_snapshot"),
                             (publishable, "serving_snapshot")):  # fmt: skip
        setattr(module, function, clock.wrapped("graphs", getattr(module, function)))
    fits = {name: cls.fit for name, cls in source_classes().items()}
    for name, cls in source_classes().items():
        setattr(cls, "fit", staticmethod(clock.wrapped(f"fit {name}", fits[name])))
    _of_surface(clock, rank.RankStep, rank, {
        "learn_fusion": "fusion", "label_rows": "labels", "train": "training",
    })  # fmt: skip
    _of_surface(clock, evaluate.EvaluateStep, evaluate, {"_Collected": "queries"})


def _of_surface(clock: Clock, step: Any, module: Any, functions: dict[str, str]) -> None:
    """Time functions under names that end in the surface of the step that runs."""
    run, originals = step.run, {name: getattr(module, name) for name in functions}

    def with_names(self: Any, *given: Any) -> Any:
        for name, part in functions.items():
            told = f"{part} {self.surface}"
            if isinstance(originals[name], type):
                setattr(module, name, _timed_class(clock, told, originals[name]))
            else:
                setattr(module, name, clock.wrapped(told, originals[name]))
        return run(self, *given)

    step.run = with_names


def _timed_class(clock: Clock, name: str, cls: type) -> type:
    methods = {
        method: clock.wrapped(name, getattr(cls, method)) for method in ("add", "report")
    }
    return type(cls.__name__, (cls,), methods)


def step_name(step: Any) -> str:
    """Name of a step with its surface, as ``rank people``."""
    surface = getattr(step, "surface", None)
    return step.name if surface is None else f"{step.name} {surface}"
