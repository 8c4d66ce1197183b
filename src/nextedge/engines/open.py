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
    """Open an engine by name and close it on exit; an open engine is passed through, and stays open.

    Args:
        state: folder of data that does not fit in memory; on a cluster, all executors must have it
            under this path.
        memory_bytes: memory of a local engine's tables, which spill to disk beyond it.

    Raises:
        InputError: no engine has this name.
        MissingDependencyError: the engine needs a package that is not installed.
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
