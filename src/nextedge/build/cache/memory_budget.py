"""Memory that each step needs, from the numbers of users and records, before it starts.

``docs/memory.md`` compares the coefficients with measurements.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from nextedge import schema
from nextedge.data.ids import IdMap
from nextedge.errors import MemoryBoundError

ENGINE_SHARE = 0.6
"""Share of a build's memory for the tables of the local engine."""
MOST_QUERIES = 20_000
"""Queries whose lists a step has in memory at most."""
_SMALL_MIB = 256
"""Memory that grows with the tenant; a step that needs less runs on any machine."""
_MIB = 2**20


@dataclass(frozen=True)
class Need:
    """Anonymous memory of a step: a fixed part, and bytes for each user, record and query.

    A record is a connection or an interaction; queries are users, ``MOST_QUERIES`` at most.
    """

    fixed_mib: int
    user_bytes: int
    record_bytes: int = 0
    query_bytes: int = 0

    def growing(self, users: int, records: int) -> int:
        """Bytes for users and records, beyond the fixed part."""
        queries = min(users, MOST_QUERIES)
        return users * self.user_bytes + records * self.record_bytes + queries * self.query_bytes

    def bytes(self, users: int, records: int) -> int:
        """All of it."""
        return self.fixed_mib * _MIB + self.growing(users, records)


NEEDS = {
    "entities": Need(700, 600),
    "snapshot": Need(1000, 200, 16),
    "sources": Need(900, 300),
    "rank": Need(1200, 400, 100, 30_000),
    "evaluate": Need(700, 300, 80, 220_000),
}
"""By step; other steps spill to disk, or have a bound of their own."""


def require(step: str, inputs: Mapping[str, Path], bound: int | None) -> None:
    """Refuse a step that needs more than ``bound`` bytes.

    Raises:
        MemoryBoundError: with the estimate, the sizes that it follows from, and ways out.
    """
    if bound is None or step not in NEEDS:
        return
    users, records = _sizes(inputs)
    need = NEEDS[step]
    wanted = need.bytes(users, records)
    if wanted > bound and need.growing(users, records) > _SMALL_MIB * _MIB:
        raise MemoryBoundError(
            f"{step}: needs about {wanted / 2**30:.1f} GiB for {users:,} users and {records:,} "
            f"records, and a build may take {bound / 2**30:.1f} GiB: set build.memory_gib higher "
            f"where the machine has more, or use a larger machine (docs/memory.md)"
        )


def _sizes(inputs: Mapping[str, Path]) -> tuple[int, int]:
    """Users and records, of the clean tables or of the arrays of the entities step."""
    if "entities" in inputs:
        folder = inputs["entities"]
        users = len(IdMap.load(folder / "entities" / "users.arrow"))
        files = [folder / name / "source.npy" for name in (schema.CONNECTIONS, schema.INTERACTIONS)]
        # Mapped: only the length is needed.
        return users, sum(len(np.load(file, mmap_mode="r")) for file in files if file.exists())
    tables = {
        name: pq.read_metadata(path).num_rows
        for name in (schema.USERS, schema.CONNECTIONS, schema.INTERACTIONS)
        if "tables" in inputs and (path := inputs["tables"] / f"{name}.parquet").exists()
    }
    return tables.get(schema.USERS, 0), sum(n for name, n in tables.items() if name != schema.USERS)
