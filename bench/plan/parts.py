"""Where the time of a build goes, finer than its steps.

A step does work of several kinds that grow with different things: ``rank`` makes graphs and fits
sources (with the history), labels rows and trains (bounded by ``ranker.max_rows``). ``watch``
times those parts by wrapping the functions that do them; each has its own time only, without
that of the parts inside it. What whole steps took stands in each release's ``build.json``.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from nextedge.models.graphsage import GraphSage
from nextedge.stages.source import source_classes
from nextedge.steps import embed, evaluate, publishable, rank
from nextedge.steps.step import Workshop


class Clock:
    """Own seconds and CPU seconds of nested parts, how often each ran, and what was counted."""

    def __init__(self) -> None:
        self.begun_mib: dict[str, float] = {}
        """Anonymous memory of the process as each step began, in the order of the steps."""
        self.parts: dict[str, dict[str, float]] = {}
        self.counted: dict[str, list[int]] = {}
        self._open: list[list[float]] = []

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Time what runs inside, without the parts that it opens."""
        wall, cpu = time.perf_counter(), time.process_time()
        self._open.append([0.0, 0.0])
        try:
            yield
        finally:
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            inner_wall, inner_cpu = self._open.pop()
            if self._open:
                self._open[-1][0] += wall
                self._open[-1][1] += cpu
            found = self.parts.setdefault(name, {"wall": 0.0, "cpu": 0.0, "count": 0})
            found["wall"] += wall - inner_wall
            found["cpu"] += cpu - inner_cpu
            found["count"] += 1

    def wrapped(self, name: str, run: Callable[..., Any]) -> Callable[..., Any]:
        """The function, timed."""

        def timed(*given: Any, **named: Any) -> Any:
            with self.measure(name):
                return run(*given, **named)

        return timed


def held_mib() -> float:
    """Anonymous memory of this process, once what is free has been given back."""
    gc.collect()
    pa.default_memory_pool().release_unused()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


def watch(clock: Clock) -> None:
    """Wrap, for the rest of this process, the functions whose time is told apart."""
    complete = Workshop.complete

    def step(self: Workshop, given: Any, inputs: Any) -> Any:
        surface = getattr(given, "surface", None)
        name = given.name if surface is None else f"{given.name} {surface}"
        clock.begun_mib[name] = held_mib()
        with clock.measure(name):
            return complete(self, given, inputs)

    Workshop.complete = step  # type: ignore[method-assign]
    rank.window_snapshot = clock.wrapped("graphs", rank.window_snapshot)
    embed.window_snapshot = clock.wrapped("graphs", embed.window_snapshot)
    publishable.serving_snapshot = clock.wrapped("graphs", publishable.serving_snapshot)
    _watch_fits(clock)
    _watch_surface(clock, rank.RankStep, rank, {
        "learn_fusion": "fusion", "label_rows": "labels", "train": "training",
    })  # fmt: skip
    _watch_surface(clock, evaluate.EvaluateStep, evaluate, {"_Collected": "queries"})


def _watch_fits(clock: Clock) -> None:
    """Fits of sources, by surface; and of the network that may be trained beside them."""
    fits = {name: cls.fit for name, cls in source_classes().items()}

    def timed(name: str) -> Callable[..., Any]:
        def fit(scope: Any, *given: Any) -> Any:
            kind = "people" if scope.relation.self_typed else "items"
            with clock.measure(f"fit {kind} {name}"):
                return fits[name](scope, *given)

        return fit

    for name, cls in source_classes().items():
        cls.fit = staticmethod(timed(name))  # type: ignore[assignment]
    GraphSage.fit = clock.wrapped("network graphsage", GraphSage.fit)  # type: ignore[method-assign]


def _watch_surface(clock: Clock, step: Any, module: Any, functions: dict[str, str]) -> None:
    """Time functions under names that end in the surface of the step that runs."""
    run, originals = step.run, {name: getattr(module, name) for name in functions}

    def with_names(self: Any, *given: Any) -> Any:
        for name, part in functions.items():
            told, original = f"{part} {self.surface}", originals[name]
            if isinstance(original, type):
                setattr(module, name, _timed_class(clock, told, original))
            else:
                setattr(module, name, _counting(clock, self.surface, clock.wrapped(told, original)))
        return run(self, *given)

    step.run = with_names


def _counting(clock: Clock, surface: str, run: Callable[..., Any]) -> Callable[..., Any]:
    """The function; label queries of the windows, as there are, are counted beside it."""

    def counted(*given: Any, **named: Any) -> Any:
        if named.get("seed") is not None and named["seed"] < rank.LABEL_WINDOWS:
            queries = int(np.count_nonzero(given[1].degree))
            clock.counted.setdefault(f"labelled {surface}", []).append(queries)
        return run(*given, **named)

    return counted


def _timed_class(clock: Clock, name: str, cls: type) -> type:
    methods = {method: clock.wrapped(name, getattr(cls, method)) for method in ("add", "report")}

    def begin(self: Any, line: Any, positives: Any, k: int) -> None:
        clock.counted[name.replace("queries", "evaluated")] = [int(np.count_nonzero(positives.degree))]  # fmt: skip
        cls.__init__(self, line, positives, k)  # type: ignore[misc]

    return type(cls.__name__, (cls,), {**methods, "__init__": begin})
