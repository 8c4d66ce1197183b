"""Writing the whole tenant, table by table, in bounded memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nextedge.data.synthetic.catalogue import (
    Catalogue,
    block_rows,
    impression_rows,
    interaction_rows,
    user_tastes,
)
from nextedge.data.synthetic.connections import make_connections
from nextedge.data.synthetic.people import DAY, make_people, people_rows

_START = 1_735_689_600_000_000  # 2025-01-01 UTC
_CHUNK = 4096


@dataclass(frozen=True)
class SyntheticConfig:
    """Size and seed of the tenant.

    ``items`` and ``mean_degree`` set the catalogue and how many connections a user has on
    average; ``days`` is the length of the history; the same settings give the same tenant.
    """

    users: int = 5000
    items: int = 0
    mean_degree: float = 24.0
    days: int = 365
    seed: int = 0

    @property
    def catalogue_size(self) -> int:
        """Number of items: as given, or a fifth of the users between 300 and 20,000."""
        return self.items or int(np.clip(self.users // 5, 300, 20_000))


def generate_tenant(
    directory: Path,
    config: SyntheticConfig,
    progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, int]:
    """Write users, connections, items, interactions, impressions and blocks as Parquet.

    Each file appears whole or not at all. Returns the rows of each table.
    """
    directory.mkdir(parents=True, exist_ok=True)
    tell = progress or (lambda text, done, total: None)
    random = np.random.default_rng([config.seed, 0])
    people = make_people(config.users, config.days, _START, random)
    rows: dict[str, int] = {}

    def chunks(name: str, make: Callable[[int, int], pa.Table]) -> Iterable[pa.Table]:
        for low in range(0, config.users, _CHUNK):
            tell(f"synthetic {name}", low, config.users)
            yield make(low, min(low + _CHUNK, config.users))

    rows["users"] = _write(
        directory / "users.parquet",
        chunks("users", lambda a, b: people_rows(people, a, b, config.seed)),
    )
    tell("synthetic connections", 0, 1)
    wanted = int(config.users * config.mean_degree / 2)
    source, target, time = make_connections(people, wanted, config.days, _START, config.seed)
    rows["connections"] = _write(
        directory / "connections.parquet", _edge_chunks(source, target, time)
    )
    catalogue = Catalogue(config.catalogue_size, config.days, _START, random)
    rows["items"] = _write(directory / "items.parquet", [catalogue.rows(random)])
    tastes, end = user_tastes(people, config.seed), _START + config.days * DAY
    rows["interactions"] = _write(
        directory / "interactions.parquet",
        chunks(
            "interactions",
            lambda a, b: interaction_rows(people, catalogue, tastes, a, b, end, config.seed),
        ),
    )
    lists = min(config.users // 2, 20_000)
    rows["impressions"] = _write(
        directory / "impressions.parquet",
        [impression_rows(people, source, target, time, config.seed, lists)],
    )
    rows["blocks"] = _write(
        directory / "blocks.parquet", [block_rows(people, source, target, config.seed)]
    )
    return rows


def _edge_chunks(source: np.ndarray, target: np.ndarray, time: np.ndarray) -> Iterable[pa.Table]:
    size = 1 << 20
    names = pa.array([f"u{user:07d}" for user in range(int(max(source.max(), target.max())) + 1)])
    for low in range(0, len(source), size):
        part = slice(low, low + size)
        yield pa.table({
            "src": names.take(pa.array(source[part])),
            "dst": names.take(pa.array(target[part])),
            "timestamp": pa.array(time[part], pa.timestamp("us", "UTC")),
        })  # fmt: skip


def _write(path: Path, tables: Iterable[pa.Table]) -> int:
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    writer: pq.ParquetWriter | None = None
    rows = 0
    try:
        for table in tables:
            writer = writer or pq.ParquetWriter(partial, table.schema, compression="zstd")
            writer.write_table(table)
            rows += table.num_rows
        if writer is not None:
            writer.close()
            os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return rows
