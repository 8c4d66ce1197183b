"""A tenant whose tables are frames in memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from nextedge.config import Config, parse_config
from nextedge.engines.duckdb.frames import to_arrow_table
from nextedge.errors import InputError, nearest
from nextedge.schema import TABLES
from nextedge.storage.opening import is_bucket


def tenant_of_frames(
    state: str | Path, settings: Mapping[str, Any], frames: Mapping[str, Any]
) -> tuple[Config, dict[str, pa.Table]]:
    """The configuration and the tables of a tenant whose data are frames in memory."""
    for name in frames:
        if name not in TABLES:
            raise InputError(f"no table {name!r}; {nearest(name, TABLES)}")
    raw = dict(settings)
    # Absolute: the process may change its working directory later.
    raw["state"] = str(state) if is_bucket(str(state)) else str(Path(state).resolve())
    raw["data"] = {**raw.get("data", {}), **dict.fromkeys(frames, "memory")}
    config = parse_config(raw, base=Path(), origin="settings")
    return config, {name: to_arrow_table(frame, name) for name, frame in frames.items()}
