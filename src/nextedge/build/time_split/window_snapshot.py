"""Snapshots: the graphs of every relation, of one window or of the whole history."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nextedge.build.time_split.history import EdgeRecords, History
from nextedge.build.time_split.pairs import Pairs
from nextedge.build.time_split.split import Window
from nextedge.engines.base import Engine
from nextedge.features.backfill import Sizes, backfill, item_category
from nextedge.graph.communities import communities
from nextedge.graph.csr import Graph, build_graph
from nextedge.graph.graph_builder import GraphBuilder
from nextedge.graph.snapshot import Snapshot, known_entities
from nextedge.schema import ACTIONS, CANDIDATE_ID, HIDDEN_CONNECTIONS
from nextedge.storage.arrays import mapped
from nextedge.types import CONNECTS, ENGAGES, Relation

_VIEWS = [ACTIONS.index(name) for name in ("click", "view")]


def window_snapshot(
    history: History,
    relation: Relation,
    pairs: Pairs,
    window: Window,
    folder: Path | None = None,
    engine: Engine | None = None,
) -> Snapshot:
    """The snapshot as of a window: the other relation is cut at the same instant.

    Args:
        folder: an empty folder for the graphs; None keeps them in memory.
        engine: makes the rows of graphs in a folder; None is this process.
    """
    predicted, other = _in_window(history.of(relation), pairs, window), history.of_other(relation)
    as_of = window.as_of
    if as_of is not None:
        # By arrival: a record that came late was not known at the cut.
        other = other.keep(other.arrived <= as_of)
    connections, interactions = (predicted, other) if relation.self_typed else (other, predicted)
    graphs = GraphBuilder(folder, engine)
    if as_of is None:
        # A view without a time cannot be cut, and tells of the connection that followed it.
        return make_snapshot(
            history, connections, interactions, history.latest, graphs, views=False
        )
    return make_snapshot(history, connections, interactions, as_of, graphs)


def _in_window(records: EdgeRecords, pairs: Pairs, window: Window) -> EdgeRecords:
    """The records of the window's pairs that were known by then."""
    if window.as_of is None:
        return records.keep(pairs.marked(records, window.graph))
    kept = records.arrived <= window.as_of
    # Looking up the pair of every record is only worth it where the window lacks some pairs.
    if not np.array_equal(window.graph, pairs.first <= window.as_of):
        kept &= pairs.marked(records, window.graph)
    return records.keep(kept)


def serving_snapshot(
    history: History, folder: Path | None = None, engine: Engine | None = None
) -> Snapshot:
    """The snapshot of all records; folder and engine as of ``window_snapshot``."""
    graphs = GraphBuilder(folder, engine)
    return make_snapshot(history, history.connections, history.interactions, history.latest, graphs)


def make_snapshot(
    history: History,
    connections: EdgeRecords,
    interactions: EdgeRecords,
    as_of: int,
    graphs: GraphBuilder,
    *,
    views: bool = True,
) -> Snapshot:
    """The snapshot of some records as of a time; profile views only where ``views``."""
    entities = history.entities
    users, items = len(entities.users), len(entities.items)

    def symmetric(name: str, records: EdgeRecords) -> Graph:
        return graphs.graph(name, records.edges(mirrored=True), users, users)

    connects = symmetric("connections", connections)
    engages = graphs.graph("engagements", interactions.edges(mirrored=False), users, items)
    engaged_by = graphs.reverse("engaged_by", engages)
    occasions = _occasions(interactions, users)
    active = (connects.degree > 0) | (engages.degree > 0)
    return Snapshot(
        entities=entities,
        as_of=as_of,
        timed=history.timed,
        connections=connects,
        engagements=engages,
        engaged_by=engaged_by,
        occasions=occasions,
        occasions_by=occasions.reverse,
        profile_views=_profile_views(history, as_of if views else 0),
        blocks=symmetric("blocks", history.blocks),
        hidden_connections=symmetric(HIDDEN_CONNECTIONS, history.hidden_connections),
        communities=np.stack(communities(connects), axis=1),
        known_users=known_entities(entities.user_attributes, as_of, active),
        known_items=known_entities(entities.item_attributes, as_of, engaged_by.degree > 0),
        counters=_counters(history, connections, interactions, as_of),
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
    """Users × co-occurrences with others at one item."""
    occasion, kept = interactions.occasion, interactions.kept
    if occasion is None or not len(occasion) or (kept is not None and not kept.any()):
        return build_graph(np.zeros(0, np.int32), np.zeros(0, np.int32), users, 0)
    shared = occasion >= 0 if kept is None else kept & (occasion >= 0)
    targets = int(occasion.max() if kept is None else occasion[kept].max()) + 1
    return build_graph(interactions.source[shared], occasion[shared], users, targets)


def _profile_views(history: History, as_of: int) -> Graph:
    """User × viewed user: impressions of people with an action that opens a profile."""
    users = len(history.entities.users)
    directory = history.directory / "impressions" / CANDIDATE_ID
    if not directory.exists():
        return build_graph(np.zeros(0, np.int32), np.zeros(0, np.int32), users, users)
    source, target, acted, time, arrived, action = (
        mapped(directory / f"{name}.npy")
        for name in ("source", "target", "acted", "time", "arrived", "action")
    )
    when = np.where(acted > 0, acted, time)
    # A missing time is 0, which no cut would leave out.
    kept = np.isin(action, _VIEWS) & (np.maximum(when, arrived) <= as_of) & (when > 0)
    return build_graph(source[kept], target[kept], users, users, None, when[kept])
