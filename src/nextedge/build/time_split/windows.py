"""Snapshots of a window: the graphs of every relation with what the window may see."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from nextedge.build.suppression import HIDDEN
from nextedge.build.time_split.pairs import Pairs
from nextedge.build.time_split.split import Method, Window, choose_method, label_windows
from nextedge.config import SplitConfig
from nextedge.engines.base import Engine
from nextedge.features.backfill import Sizes, backfill, item_category
from nextedge.graph.assemble import EdgeList
from nextedge.graph.communities import communities
from nextedge.graph.csr import Graph, build_graph
from nextedge.graph.graph_builder import GraphBuilder
from nextedge.graph.snapshot import Entities, Snapshot, known_entities
from nextedge.schema import ACTIONS
from nextedge.storage.arrays import mapped
from nextedge.types import CONNECTS, ENGAGES, BoolArray, IndexArray, IntArray, Relation

MOSTLY = 0.99
_VIEWS = [ACTIONS.index(name) for name in ("click", "view")]


@dataclass(frozen=True, eq=False)
class EdgeRecords:
    """Rows of one table of edges in positions: int32[n] ends, µs times, float32 weights.

    ``arrived`` (int64[n], µs) is when the row became known, its time where that is not given;
    ``occasion`` (int32[n]) numbers what happened at one item at one time, -1 where alone;
    ``action`` (int32[n]) is a place in ``schema.ACTIONS``, below 0 where it is none of them.
    ``kept`` (bool[n]) says which rows count; None for all.
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
            none, never = np.zeros(0, np.int32), np.zeros(0, np.int64)
            return cls(none, none, never, np.zeros(0, np.float32), never)

        def array(name: str) -> Any:
            path = directory / f"{name}.npy"
            return mapped(path) if path.exists() else None

        source, target, time, weight = map(array, ("source", "target", "time", "weight"))
        arrived = array("arrived")
        arrived = time if arrived is None else arrived
        return cls(source, target, time, weight, arrived, array("occasion"), array("action"))

    def keep(self, mask: BoolArray) -> EdgeRecords:
        """The same rows, of which only those count where the mask (bool[n]) holds."""
        return replace(self, kept=mask)

    def edges(self, *, mirrored: bool) -> EdgeList:
        """The rows that count, as what a graph is made of."""
        return EdgeList(self.source, self.target, self.weight, self.time, None, self.kept, mirrored)


@dataclass(frozen=True, eq=False)
class History:
    """All records of a tenant, and the windows that one surface cuts out of them."""

    directory: Path
    entities: Entities
    connections: EdgeRecords
    interactions: EdgeRecords
    blocks: EdgeRecords
    hidden_connections: EdgeRecords

    @classmethod
    def load(cls, directory: Path) -> History:
        """Open what the entities step wrote."""
        return cls(
            directory,
            Entities.load(directory / "entities"),
            EdgeRecords.load(directory / "connections"),
            EdgeRecords.load(directory / "interactions"),
            EdgeRecords.load(directory / "blocks"),
            EdgeRecords.load(directory / HIDDEN),
        )

    def of(self, relation: Relation) -> EdgeRecords:
        """The records of a relation."""
        return self.connections if relation.self_typed else self.interactions

    @property
    def timed(self) -> frozenset[str]:
        """Names of the relations whose records carry times, nearly all of them."""
        return frozenset(
            relation.name
            for relation in (CONNECTS, ENGAGES)
            if len(times := self.of(relation).time) and float((times > 0).mean()) > MOSTLY
        )

    @property
    def latest(self) -> int:
        """Time of the latest record, or 0."""
        times = (self.connections.time, self.interactions.time)
        return max((int(time.max()) for time in times if len(time)), default=0)


def cut(
    history: History, relation: Relation, split: SplitConfig, served: Graph
) -> tuple[Pairs, list[Window], Method, str]:
    """The pairs of a relation, their windows, and the split method with its reason.

    Args:
        served: the relation's graph of all records.
    """
    pairs = Pairs.of(served, relation)
    method, why = choose_method(split, pairs.first)
    windows = label_windows(
        split, method, pairs.source, pairs.first, divide=not relation.self_typed
    )
    return pairs, windows, method, why


def window_snapshot(
    history: History,
    relation: Relation,
    pairs: Pairs,
    window: Window,
    folder: Path | None = None,
    engine: Engine | None = None,
) -> Snapshot:
    """The snapshot a window may see: other relations are cut at the same instant.

    Args:
        folder: an empty one, for the graphs; None holds them in memory.
        engine: makes the graphs' rows where there is a folder; None is this process.
    """
    own = _in_window(history.of(relation), pairs, window)
    other = history.interactions if relation.self_typed else history.connections
    if window.as_of is not None:
        other = other.keep(other.arrived <= window.as_of)
    connections, interactions = (own, other) if relation.self_typed else (other, own)
    place = GraphBuilder(folder, engine)
    if window.as_of is None:  # impressions cannot be cut: who opened whom tells who connected
        return make_snapshot(history, connections, interactions, history.latest, place, views=False)
    return make_snapshot(history, connections, interactions, window.as_of, place)


def _in_window(records: EdgeRecords, pairs: Pairs, window: Window) -> EdgeRecords:
    """The records of the window's pairs that were known by then."""
    if window.as_of is None:
        return records.keep(pairs.marked(records, window.graph))
    kept = records.arrived <= window.as_of
    if not np.array_equal(window.graph, pairs.first <= window.as_of):  # not all pairs of the time
        kept &= pairs.marked(records, window.graph)
    return records.keep(kept)


def serving_snapshot(
    history: History, folder: Path | None = None, engine: Engine | None = None
) -> Snapshot:
    """Everything that is known; folder and engine as of ``window_snapshot``."""
    place = GraphBuilder(folder, engine)
    return make_snapshot(history, history.connections, history.interactions, history.latest, place)


def make_snapshot(
    history: History,
    connections: EdgeRecords,
    interactions: EdgeRecords,
    as_of: int,
    place: GraphBuilder,
    *,
    views: bool = True,
) -> Snapshot:
    """Build the graphs of a snapshot from the records it may see; impressions where ``views``."""
    users, items = len(history.entities.users), len(history.entities.items)

    def graph(name: str, records: EdgeRecords) -> Graph:
        return place.graph(name, records.edges(mirrored=True), users, users)

    connects = graph("connections", connections)
    engages = place.graph("engagements", interactions.edges(mirrored=False), users, items)
    engaged_by = place.reverse("engaged_by", engages)
    occasions = _occasions(interactions, users)
    return Snapshot(
        history.entities,
        as_of,
        history.timed,
        connects,
        engages,
        engaged_by,
        occasions,
        occasions.reverse,
        _profile_views(history, as_of if views else 0),
        graph("blocks", history.blocks),
        graph("hidden_connections", history.hidden_connections),
        np.stack(communities(connects), axis=1),
        known_entities(
            history.entities.user_attributes, as_of, (connects.degree > 0) | (engages.degree > 0)
        ),
        known_entities(history.entities.item_attributes, as_of, engaged_by.degree > 0),
        _counters(history, connections, interactions, as_of),
    )


def _counters(
    history: History, connections: EdgeRecords, interactions: EdgeRecords, as_of: int
) -> dict[str, np.ndarray]:
    """The real-time features of the records; none of a relation without times."""
    entities, timed = history.entities, history.timed
    category = item_category(entities.item_attributes)
    codes = None if category is None else np.asarray(category.codes)
    return backfill(
        connections if CONNECTS.name in timed else None,
        interactions if ENGAGES.name in timed else None,
        Sizes(len(entities.users), len(entities.items), codes),
        as_of,
    )


def _occasions(interactions: EdgeRecords, users: int) -> Graph:
    """Users × the occasions at which they met others."""
    none = np.zeros(0, np.int32)
    occasion, kept = interactions.occasion, interactions.kept
    if occasion is None or not len(occasion) or (kept is not None and not kept.any()):
        return build_graph(none, none, users, 0)
    met = occasion >= 0 if kept is None else kept & (occasion >= 0)
    targets = int(occasion.max() if kept is None else occasion[kept].max()) + 1
    return build_graph(interactions.source[met], occasion[met], users, targets)


def _profile_views(history: History, as_of: int) -> Graph:
    """Who opened whose profile: impressions of people with an action that opens it."""
    users, directory = (
        len(history.entities.users),
        history.directory / "impressions" / "candidate_id",
    )
    none = np.zeros(0, np.int32)
    if not directory.exists():
        return build_graph(none, none, users, users)
    parts = {
        name: mapped(directory / f"{name}.npy")
        for name in ("source", "target", "acted", "time", "arrived", "action")
    }
    when = np.where(parts["acted"] > 0, parts["acted"], parts["time"])
    known = (np.maximum(when, parts["arrived"]) <= as_of) & (when > 0)
    kept = np.isin(parts["action"], _VIEWS) & known
    return build_graph(parts["source"][kept], parts["target"][kept], users, users, None, when[kept])
