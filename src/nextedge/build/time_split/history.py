"""All records of a tenant as arrays in dense positions, as the entities step wrote them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from nextedge import schema
from nextedge.graph.assemble import EdgeList
from nextedge.graph.snapshot import Entities
from nextedge.storage.arrays import mapped
from nextedge.types import CONNECTS, ENGAGES, BoolArray, IndexArray, IntArray, Relation

_TIMED_SHARE = 0.99
"""Share of a relation's records that must carry a time."""


@dataclass(frozen=True, eq=False)
class EdgeRecords:
    """Rows of one table of edges.

    Attributes:
        source, target: int32[n] positions.
        time: int64[n] microseconds UTC, 0 where unknown.
        weight: float32[n].
        arrived: int64[n], when the row became known; its time where that is not recorded.
        occasion: int32[n], number of the co-occurrence at one item, -1 where alone.
        action: int32[n] index into ``schema.ACTIONS``, below 0 for no known action.
        kept: bool[n], the rows that count; None for all.
    """

    source: IndexArray
    target: IndexArray
    time: IntArray
    weight: np.ndarray
    arrived: IntArray
    occasion: IndexArray | None = None
    action: IndexArray | None = None
    kept: BoolArray | None = None

    @classmethod
    def load(cls, directory: Path) -> EdgeRecords:
        """Memory-map the arrays of a folder; a missing folder is an empty table."""
        if not directory.exists():
            ends, times = np.zeros(0, np.int32), np.zeros(0, np.int64)
            return cls(ends, ends, times, np.zeros(0, np.float32), times)

        def array(name: str) -> Any:
            path = directory / f"{name}.npy"
            return mapped(path) if path.exists() else None

        source, target, time, weight = map(array, ("source", "target", "time", "weight"))
        arrived = array("arrived")
        arrived = time if arrived is None else arrived
        return cls(source, target, time, weight, arrived, array("occasion"), array("action"))

    def keep(self, mask: BoolArray) -> EdgeRecords:
        """The same rows; only those where the mask (bool[n]) holds count."""
        return replace(self, kept=mask)

    def edges(self, *, mirrored: bool) -> EdgeList:
        """The rows that count, as the input of a graph."""
        return EdgeList(self.source, self.target, self.weight, self.time, None, self.kept, mirrored)


@dataclass(frozen=True, eq=False)
class History:
    """The users, the items and the records of a tenant."""

    directory: Path
    entities: Entities
    connections: EdgeRecords
    interactions: EdgeRecords
    blocks: EdgeRecords
    hidden_connections: EdgeRecords

    @classmethod
    def load(cls, directory: Path) -> History:
        """Open the output of the entities step."""
        tables = (schema.CONNECTIONS, schema.INTERACTIONS, schema.BLOCKS, schema.HIDDEN_CONNECTIONS)
        records = (EdgeRecords.load(directory / name) for name in tables)
        return cls(directory, Entities.load(directory / "entities"), *records)

    def of(self, relation: Relation) -> EdgeRecords:
        """The records of a relation."""
        return self.connections if relation.self_typed else self.interactions

    def of_other(self, relation: Relation) -> EdgeRecords:
        """The records of the relation that is not predicted."""
        return self.interactions if relation.self_typed else self.connections

    @property
    def timed(self) -> frozenset[str]:
        """Names of the relations whose records nearly all carry times."""
        return frozenset(
            relation.name
            for relation in (CONNECTS, ENGAGES)
            if len(times := self.of(relation).time) and float((times > 0).mean()) > _TIMED_SHARE
        )

    @property
    def latest(self) -> int:
        """Time of the latest record, or 0."""
        times = (self.connections.time, self.interactions.time)
        return max((int(time.max()) for time in times if len(time)), default=0)
