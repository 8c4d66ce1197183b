"""Live edges: a release whose graphs have the edges that events made and ended since the build.

Sources, features and reasons read the graphs. So the lists of two people who connect, and of their
neighbors, have exactly the candidates and counts of a build with the same edges. What was fitted
stays: models, similarities of items, communities, popularity.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from nextedge.events.projections.live_edges import LiveEdges
from nextedge.events.state.overlay import Overlay
from nextedge.graph.changes import EdgeChanges, changed
from nextedge.graph.csr import Graph
from nextedge.graph.snapshot import Snapshot, known_entities
from nextedge.serving.release.invalidation import Invalidation
from nextedge.serving.release.loaded import LoadedRelease
from nextedge.types import FloatArray, IndexArray, IntArray

_Pairs = tuple[IndexArray, IndexArray]
Rows = Mapping[str, np.ndarray]
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, eq=False)
class _Changes:
    """The changes of one relation since the release: records to add, and pairs to remove."""

    added: EdgeChanges
    removed: _Pairs

    def __len__(self) -> int:
        return len(self.added) + len(self.removed[0])


def with_live_edges(release: LoadedRelease, overlay: Overlay) -> LoadedRelease:
    """The release with the current edges in its graphs; itself if they have not changed.

    Args:
        release: as loaded, or as this function returned it.
        overlay: caught up.
    """
    edges, base = overlay.projection(LiveEdges), release.base
    if release.live_as_of == (edges, edges.changes):
        return release
    # all of one moment: an event in between would be in one graph and not in the other
    with overlay.paused():
        as_of = edges, edges.changes
        engaged = edges.interactions.copy()
        names = edges.users.all[:], edges.items.all[:]
        made, ended = overlay.connections(), list(overlay.ended())
        gone, hidden = sorted(overlay.departed), overlay.hidden_connections.pairs()
    snapshot, users, items = base.snapshot, base.entities.users, base.entities.items
    departed = users.positions(gone)
    departed = departed[departed >= 0]
    hides = _pairs(base, [pair[:2] for pair in hidden])
    connections = _connections(
        snapshot, _timed_pairs(base, made), _pairs(base, ended), departed, hides
    )
    positions = users.positions(names[0]), items.positions(names[1])
    engagements = _engagements(snapshot.engagements, engaged, positions, departed, snapshot.as_of)
    live = _over(base, connections, engagements)
    live.live_as_of = as_of
    return live


def _over(base: LoadedRelease, connections: _Changes, engagements: _Changes) -> LoadedRelease:
    snapshot = base.snapshot
    if not len(connections) and not len(engagements):
        return base
    graph, engaged, engaged_by = snapshot.connections, snapshot.engagements, snapshot.engaged_by
    if len(connections):
        left, right = connections.removed
        both = np.concatenate((left, right)), np.concatenate((right, left))
        graph = changed(graph, connections.added.mirrored(), both)
    if len(engagements):
        removed = engagements.removed
        engaged = changed(engaged, engagements.added, removed)
        engaged_by = changed(engaged_by, engagements.added.reversed(), (removed[1], removed[0]))
    with_edge = (graph.degree > 0) | (engaged.degree > 0), engaged_by.degree > 0
    entities, as_of = snapshot.entities, snapshot.as_of
    fresh = replace(
        snapshot,
        connections=graph,
        engagements=engaged,
        engaged_by=engaged_by,
        known_users=known_entities(entities.user_attributes, as_of, with_edge[0]),
        known_items=known_entities(entities.item_attributes, as_of, with_edge[1]),
    )
    live = copy.copy(base)  # models and ids are shared: only what follows from edges is replaced
    live.base = base
    live.token = object()
    live.snapshot = fresh
    live.invalidation = Invalidation(base.entities.users, base.entities.items, graph)
    ends = (connections.added.source, connections.added.target, *connections.removed)
    users = (engagements.added.source, engagements.removed[0])
    live.ends = np.unique(np.concatenate((*ends, *users)))
    live.editions = _editions(graph, connections, engagements)
    live.edges = f"{int(live.editions.sum()):016x}"
    live.surfaces = {name: surface.over(fresh) for name, surface in base.surfaces.items()}
    return live


def _connections(
    snapshot: Snapshot,
    made: tuple[_Pairs, IntArray],
    ended: _Pairs,
    departed: IndexArray,
    hidden: _Pairs,
) -> _Changes:
    """Changes of the connections, by their latest event, without hidden ones and departed users."""
    graph, secret = snapshot.connections, snapshot.hidden_connections
    (source, target), time = made
    wanted = ~np.isin(source, departed) & ~np.isin(target, departed)
    wanted &= ~np.isin(_key(source, target), _key(*hidden))
    # a user who hides all connections is a neighbor of themself
    for left, right in ((source, target), (source, source), (target, target)):
        wanted &= ~secret.contains(left, right)
    # a connection that is there and is made again is widened only by a later event
    there, last_time = graph.contains(source, target), graph.last_times(source, target)
    added = wanted & (~there | ((last_time > 0) & (time > last_time)))
    removed = (ended, hidden, _all_of(graph, departed))
    left, right = (np.concatenate(ends) for ends in zip(*removed, strict=True))
    there = graph.contains(left, right)
    ones = np.ones(added.sum(), np.float32)
    records = _records(graph, source[added], target[added], ones, time[added])
    return _Changes(records, (left[there], right[there]))


def _engagements(
    graph: Graph, rows: Rows, positions: _Pairs, departed: IndexArray, as_of: int
) -> _Changes:
    """Changes of the interactions: those later than the release, or of a pair that it lacks."""
    user, item = positions[0][rows["user"]], positions[1][rows["item"]]
    time = rows["time"]
    new = (user >= 0) & (item >= 0) & ~np.isin(user, departed)
    # an interaction of the release's period was in its tables, if its pair is in the graph
    # 0 stands for an unknown item, as a valid index: ``new`` is false there already
    new &= (time > as_of) | ~graph.contains(user, np.maximum(item, 0))
    added = _records(graph, user[new], item[new], rows["weight"][new], time[new])
    return _Changes(added, _all_of(graph, departed))


def _records(
    graph: Graph, source: IndexArray, target: IndexArray, weight: FloatArray, time: IntArray
) -> EdgeChanges:
    """Edges to add, without times if the graph has none."""
    return EdgeChanges(source, target, weight, time if graph.timed else np.zeros_like(time))


def _pairs(base: LoadedRelease, pairs: Sequence[tuple[str, str]]) -> _Pairs:
    """Positions of the pairs of ids that the release has."""
    left, right = _positions(base, pairs)
    known = (left >= 0) & (right >= 0)
    return left[known], right[known]


def _timed_pairs(
    base: LoadedRelease, pairs: Sequence[tuple[str, str, int]]
) -> tuple[_Pairs, IntArray]:
    """Positions and times of the pairs of ids that the release has."""
    left, right = _positions(base, [pair[:2] for pair in pairs])
    time = np.array([pair[2] for pair in pairs], np.int64)
    known = (left >= 0) & (right >= 0) & (left != right)
    return (left[known], right[known]), time[known]


def _positions(base: LoadedRelease, pairs: Sequence[tuple[str, str]]) -> _Pairs:
    if not pairs:
        return np.zeros(0, np.int32), np.zeros(0, np.int32)
    users = base.entities.users
    left, right = (users.positions(list(names)) for names in zip(*pairs, strict=True))
    return left, right


def _all_of(graph: Graph, rows: IndexArray) -> _Pairs:
    """Every edge of some rows, as pairs."""
    indptr, indices = graph.gather(rows)
    return np.repeat(rows, np.diff(indptr)), indices


def _key(left: IndexArray, right: IndexArray) -> IntArray:
    """int64[n]: the same for both orders of a pair."""
    return (np.minimum(left, right).astype(np.int64) << 32) | np.maximum(left, right)


def _editions(graph: Graph, connections: _Changes, engagements: _Changes) -> np.ndarray:
    """uint64[U]: a hash of the changes that affect a user's lists; 0 without any.

    A connection affects both ends and their neighbors, an interaction its user.
    """
    # a sum of hashes: replicas with the same changes, in any order, have the same number
    editions = np.zeros(len(graph), np.uint64)
    added, removed = connections.added, connections.removed
    # no time is -1: a removal and an addition of one pair have different hashes
    ended = np.full(len(removed[0]), -1)
    for left, right, times in ((added.source, added.target, added.time), (*removed, ended)):
        mark = _hash(_key(left, right), times)
        for end in (left, right):
            np.add.at(editions, end, mark)
            indptr, indices = graph.gather(end)
            np.add.at(editions, indices, np.repeat(mark, np.diff(indptr)))
    added, removed = engagements.added, engagements.removed
    np.add.at(editions, added.source, _hash(added.target.astype(np.int64), added.time))
    np.add.at(editions, removed[0], _hash(removed[1].astype(np.int64), np.int64(-1)))
    return editions


def _hash(key: IntArray, time: IntArray | np.int64) -> np.ndarray:
    """uint64[n]: the hash of a key and a time (splitmix64)."""
    mixed = key.astype(np.uint64) + _GOLDEN * np.asarray(time).astype(np.uint64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    mixed ^= mixed >> np.uint64(31)
    return mixed
