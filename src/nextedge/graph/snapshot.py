"""A snapshot: users and items with their attributes, and the graphs of all relations, as of a time.

A request reads all of it memory-mapped. Windows of one build share the entities and differ in
their graphs.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from nextedge.config import SurfaceConfig
from nextedge.data.ids import IdMap
from nextedge.graph.attributes import Attributes
from nextedge.graph.csr import Graph, build_graph
from nextedge.storage.arrays import mapped
from nextedge.types import CONNECTS, ENGAGES, BoolArray, IndexArray, IntArray, Relation

GRAPHS = (
    "connections",
    "engagements",
    "engaged_by",
    "occasions",
    "occasions_by",
    "profile_views",
    "blocks",
    "hidden_connections",
)
_COUNTERS = "counters"
_ARRAYS = ("communities", "known_users", "known_items")


@dataclass(frozen=True, eq=False)
class Entities:
    """Users and items of a tenant, with their attributes; the same in every window.

    Attributes:
        users, items: id maps; positions are dense int32.
        user_attributes, item_attributes: encoded columns, one row a position.
    """

    users: IdMap
    items: IdMap
    user_attributes: Attributes
    item_attributes: Attributes

    def save(self, directory: Path) -> None:
        """Write id maps and attributes into an existing folder."""
        self.users.save(directory / "users.arrow")
        self.items.save(directory / "items.arrow")
        self.user_attributes.save(directory / "user_attributes")
        self.item_attributes.save(directory / "item_attributes")

    @classmethod
    def load(cls, directory: Path) -> Entities:
        """Memory-map entities that ``save`` wrote."""
        return cls(
            IdMap.load(directory / "users.arrow"),
            IdMap.load(directory / "items.arrow"),
            Attributes.load(directory / "user_attributes"),
            Attributes.load(directory / "item_attributes"),
        )


@dataclass(frozen=True, eq=False)
class Snapshot:
    """Entities and the graphs of all relations as of ``as_of``.

    Attributes:
        as_of: microseconds UTC; no edge is later.
        timed: names of the relations whose edges carry times.
        connections: user × user, mirrored when the relation is symmetric.
        engagements, engaged_by: user × item, and its reverse.
        occasions, occasions_by: user × occasion (an item at a time), and its reverse.
        profile_views: user × user, views of profiles (from impressions).
        blocks: user × user, mirrored: a block excludes both ways.
        hidden_connections: user × user, mirrored; in no other graph, and not recommended. A user
            that hides all present and later connections is a neighbour of itself.
        communities: int32[U, 2], small and large communities of the connections, -1 for none.
        known_users, known_items: bool[U], bool[I]: recommendable as of then.
        counters: the real-time features as of then, as ``nextedge.features.backfill`` names them.
    """

    entities: Entities
    as_of: int
    timed: frozenset[str]
    connections: Graph
    engagements: Graph
    engaged_by: Graph
    occasions: Graph
    occasions_by: Graph
    profile_views: Graph
    blocks: Graph
    hidden_connections: Graph
    communities: IndexArray
    known_users: BoolArray
    known_items: BoolArray
    counters: dict[str, np.ndarray] = field(default_factory=dict)

    @cached_property
    def last_activity(self) -> IntArray:
        """int64[U]: time of each user's latest edge of any relation, or 0."""
        latest = np.zeros(len(self.entities.users), np.int64)
        for graph in (self.connections, self.engagements):
            # ``reduceat`` would give an empty row the first time of the row after it.
            if len(filled := np.flatnonzero(graph.degree)):
                last = np.maximum.reduceat(graph.last, graph.indptr[filled])
                latest[filled] = np.maximum(latest[filled], last)
        return latest

    def save(self, directory: Path) -> None:
        """Write the graphs that the folder lacks; without the entities."""
        for name in GRAPHS:
            # The graph builder writes its graphs straight into this folder.
            if not (directory / name).exists():
                (directory / name).mkdir()
                getattr(self, name).save(directory / name)
        for part in _ARRAYS:
            np.save(directory / f"{part}.npy", getattr(self, part))
        (directory / _COUNTERS).mkdir()
        for name, values in self.counters.items():
            np.save(directory / _COUNTERS / f"{name}.npy", values)
        about = {"as_of": self.as_of, "timed": sorted(self.timed)}
        (directory / "snapshot.json").write_text(json.dumps(about))

    @classmethod
    def load(cls, directory: Path, entities: Entities) -> Snapshot:
        """Memory-map graphs that ``save`` wrote, beside their entities."""
        about = json.loads((directory / "snapshot.json").read_text())
        graphs: dict[str, Any] = {
            name: Graph.load(directory / name) for name in GRAPHS if (directory / name).exists()
        }
        if "hidden_connections" not in graphs:  # built before there were any
            none, users = np.zeros(0, np.int32), len(entities.users)
            graphs["hidden_connections"] = build_graph(none, none, users, users)
        arrays: dict[str, Any] = {part: mapped(directory / f"{part}.npy") for part in _ARRAYS}
        counters = {
            path.stem: mapped(path) for path in sorted((directory / _COUNTERS).glob("*.npy"))
        }
        return cls(
            entities=entities,
            counters=counters,
            as_of=about["as_of"],
            timed=frozenset(about["timed"]),
            **graphs,
            **arrays,
        )


def known_entities(attributes: Attributes, as_of: int, has_edge: BoolArray) -> BoolArray:
    """Whether each entity may be recommended: an edge, or a profile created by then; no opt-out."""
    known = has_edge.copy()
    if attributes.kinds:
        created = attributes.instant("created_at")
        known |= True if created is None else created <= as_of
    known &= attributes.flag("discoverable", True)
    known &= attributes.flag("available", True) & ~attributes.flag("unsafe", False)
    return known


def relation_of(surface: SurfaceConfig) -> Relation:
    """The relation whose edges a surface predicts."""
    return CONNECTS if surface.kind == "people" else ENGAGES
