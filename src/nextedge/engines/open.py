"""Open an engine by its name."""

from __future__ import annotations

import contextlib
from pathlib import Path

from nextedge.engines.base import Engine
from nextedge.errors import InputError, nearest

NAMES = ("local", "spark")


def open_engine(
    engine: Engine | str, state: Path, memory_bytes: int | None = None
) -> contextlib.AbstractContextManager[Engine]:
    """An engine by its name, closed on exit; an open one is returned as it is, and stays open.

    Args:
        state: folder for data that does not fit in memory; on a cluster, all executors must see it
            under this path.
        memory_bytes: memory of a local engine's tables; beyond it they spill to disk.

    Raises:
        InputError: there is no such engine.
        MissingDependencyError: it needs a package that is not installed.
    """
    if isinstance(engine, Engine):
        return contextlib.nullcontext(engine)
    if engine == "local":
        from nextedge.engines.duckdb.engine import LocalEngine

        limit = None if memory_bytes is None else f"{memory_bytes >> 20}MiB"
        return LocalEngine(temp_directory=state / "spill", memory_limit=limit)
    if engine == "spark":
        from nextedge.engines.spark.engine import SparkEngine

        return SparkEngine(temp_directory=state / "spill")
    raise InputError(f"no engine {engine!r}; {nearest(engine, NAMES)}")
