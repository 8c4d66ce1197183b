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

from nextedge.build import evaluate, rank, snapshot
from nextedge.build.evaluation.ranked_lists import RankQueries
from nextedge.build.step import StepRunner
from nextedge.build.time_split import surface_history
from nextedge.build.training_set import training_set
from nextedge.models.neural.graphsage import GraphSage
from nextedge.retrieval.registry import source_classes


class Clock:
    """Own seconds and CPU seconds of nested parts, how often each ran, and what was counted."""

    def __init__(self) -> None:
        self.surface = ""
        """Of the step at work; none for those that all surfaces share."""
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
        """The function, timed under a name in which ``{}`` is the surface at work."""

        def timed(*given: Any, **named: Any) -> Any:
            with self.measure(name.format(self.surface)):
                return run(*given, **named)

        return timed

    def counting(self, name: str, run: Callable[..., Any]) -> Callable[..., Any]:
        """The function, with the queries counted that its graph has edges of."""

        def counted(scope: Any, relation: Any, pairs: Any, window: Any, *given: Any) -> Any:
            found = run(scope, relation, pairs, window, *given)
            if window.name != "cold_start":
                queries = int(np.count_nonzero(found.degree))
                self.counted.setdefault(f"{name} {self.surface}", []).append(queries)
            return found

        return counted


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
    complete = StepRunner.complete

    def step(self: StepRunner, given: Any, inputs: Any) -> Any:
        clock.surface = getattr(given, "surface", "")
        name = f"{given.name} {clock.surface}".strip()
        clock.begun_mib[name] = held_mib()
        with clock.measure(name):
            return complete(self, given, inputs)

    StepRunner.complete = step  # type: ignore[method-assign]
    for module, function in ((surface_history, "window_snapshot"), (snapshot, "serving_snapshot")):
        setattr(module, function, clock.wrapped("graphs", getattr(module, function)))
    for module, function, part in (
        (training_set, "learn_fusion", "fusion"),
        (training_set, "label_rows", "labels"),
        (rank, "train", "training"),
    ):
        setattr(module, function, clock.wrapped(f"{part} {{}}", getattr(module, function)))
    for owner, method in ((RankQueries, "__call__"), (evaluate._Evaluation, "report")):
        setattr(owner, method, clock.wrapped("queries {}", getattr(owner, method)))
    GraphSage.fit = clock.wrapped("network graphsage", GraphSage.fit)  # type: ignore[method-assign]
    fits = {name: cls.fit for name, cls in source_classes().items()}
    for name, cls in source_classes().items():
        cls.fit = staticmethod(clock.wrapped(f"fit {{}} {name}", fits[name]))  # type: ignore[assignment]
    training_set.positives_of = clock.counting("labelled", training_set.positives_of)
    evaluate.positives_of = clock.counting("evaluated", evaluate.positives_of)
