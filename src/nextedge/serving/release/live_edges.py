"""A release over the edges of today: what events made and ended is in its graphs.

Sources, features and reasons read the graphs of a release, so the lists of two people who connect,
and of their neighbours, have exactly the candidates and counts that a build of the same edges
would give them. What was fitted stays as the release has it: models, similarities of items,
communities, popularity.

The graphs are merged anew by copying them, which takes memory's own speed and grows with the
edges of the release, not with its events: one pass, whatever the number of events since the last.
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
from nextedge.serving.release.invalidation import Touched
from nextedge.serving.release.loaded import LoadedRelease
from nextedge.types import FloatArray, IndexArray, IntArray

_Pairs = tuple[IndexArray, IndexArray]
Rows = Mapping[str, np.ndarray]
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, eq=False)
class _Changes:
    """What of one relation differs from the release: records to add, and pairs to take out."""

    added: EdgeChanges
    removed: _Pairs

    def __len__(self) -> int:
        return len(self.added) + len(self.removed[0])


def live_edges(overlay: Overlay) -> LiveEdges:
    """The edges that an overlay keeps."""
    return overlay.projection(LiveEdges)


def with_live_edges(release: LoadedRelease, overlay: Overlay) -> LoadedRelease:
    """A release over the edges of today; itself where they have not changed since.

    Args:
        release: as it was loaded, or as this has returned it before.
        overlay: caught up.
    """
    edges, base = live_edges(overlay), release.base
    if release.live_as_of == (edges, edges.changes):
        return release
    with overlay.paused():
        as_of = edges, edges.changes
        engaged = edges.interactions.copy()
        names = edges.users.all[:], edges.items.all[:]
        made, ended = overlay.connections(), list(overlay.ended())
        gone, hidden = sorted(overlay.departed), overlay.hidden_connections.pairs()
    snapshot, users, items = base.snapshot, base.entities.users, base.entities.items
    departed = _known(users.positions(gone))
    hides = _pairs(base, [each[:2] for each in hidden])
    connections = _connections(
        snapshot, _timed_pairs(base, made), _pairs(base, ended), departed, hides
    )
    places = users.positions(names[0]), items.positions(names[1])
    engagements = _engagements(snapshot.engagements, engaged, places, departed, snapshot.as_of)
    live = _over(base, connections, engagements)
    live.live_as_of = as_of
    return live


def _over(base: LoadedRelease, connections: _Changes, engagements: _Changes) -> LoadedRelease:
    snapshot, users, items = base.snapshot, base.entities.users, base.entities.items
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
    entities = snapshot.entities
    fresh = replace(
        snapshot,
        connections=graph,
        engagements=engaged,
        engaged_by=engaged_by,
        known_users=known_entities(entities.user_attributes, snapshot.as_of, with_edge[0]),
        known_items=known_entities(entities.item_attributes, snapshot.as_of, with_edge[1]),
    )
    live = copy.copy(base)
    live.base = base
    live.token = object()
    live.snapshot = fresh
    live.touched = Touched(users, items, graph)
    live.ends = np.unique(
        np.concatenate(
            (
                connections.added.source,
                connections.added.target,
                *connections.removed,
                engagements.added.source,
                engagements.removed[0],
            )
        )
    )
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
    """Connections by their latest event, without hidden ones and those of who left."""
    graph, secret = snapshot.connections, snapshot.hidden_connections
    (source, target), time = made
    wanted = ~np.isin(source, departed) & ~np.isin(target, departed)
    wanted &= ~np.isin(_key(source, target), _key(*hidden))
    for left, right in ((source, target), (source, source), (target, target)):
        wanted &= ~secret.contains(left, right)
    # a connection that is there and is made again is widened only by a later event
    there, last_time = graph.contains(source, target), graph.last_times(source, target)
    added = wanted & (~there | ((last_time > 0) & (time > last_time)))
    removed = (ended, hidden, _all_of(graph, departed))
    ends = (np.concatenate(each) for each in zip(*removed, strict=True))
    return _Changes(
        _records(
            graph, source[added], target[added], np.ones(added.sum(), np.float32), time[added]
        ),
        _present(graph, *ends),
    )


def _engagements(
    graph: Graph, rows: Rows, places: _Pairs, departed: IndexArray, as_of: int
) -> _Changes:
    """Interactions that the release cannot have: later than it, or of a pair that it lacks."""
    user, item = places[0][rows["user"]], places[1][rows["item"]]
    time = rows["time"]
    kept = (user >= 0) & (item >= 0) & ~np.isin(user, departed)
    kept &= (time > as_of) | ~graph.contains(user, np.maximum(item, 0))
    added = _records(graph, user[kept], item[kept], rows["weight"][kept], time[kept])
    return _Changes(added, _all_of(graph, departed))


def _records(
    graph: Graph, source: IndexArray, target: IndexArray, weight: FloatArray, time: IntArray
) -> EdgeChanges:
    """Edges to add, without times where those of the release have none."""
    return EdgeChanges(source, target, weight, time if graph.timed else np.zeros_like(time))


def _pairs(base: LoadedRelease, pairs: Sequence[tuple[str, str]]) -> _Pairs:
    """Positions of pairs of ids, of those that the release knows."""
    left, right = _positions(base, pairs)
    known = (left >= 0) & (right >= 0)
    return left[known], right[known]


def _timed_pairs(
    base: LoadedRelease, pairs: Sequence[tuple[str, str, int]]
) -> tuple[_Pairs, IntArray]:
    """The same, with a time each."""
    left, right = _positions(base, [each[:2] for each in pairs])
    time = np.array([each[2] for each in pairs], np.int64)
    known = (left >= 0) & (right >= 0) & (left != right)
    return (left[known], right[known]), time[known]


def _positions(base: LoadedRelease, pairs: Sequence[tuple[str, str]]) -> _Pairs:
    if not pairs:
        return np.zeros(0, np.int32), np.zeros(0, np.int32)
    users = base.entities.users
    left, right = (users.positions(list(names)) for names in zip(*pairs, strict=True))
    return left, right


def _known(places: IndexArray) -> IndexArray:
    return places[places >= 0]


def _all_of(graph: Graph, rows: IndexArray) -> _Pairs:
    """Every pair of some rows."""
    indptr, indices = graph.gather(rows)
    return np.repeat(rows, np.diff(indptr)), indices


def _present(graph: Graph, source: IndexArray, target: IndexArray) -> _Pairs:
    there = graph.contains(source, target)
    return source[there], target[there]


def _key(left: IndexArray, right: IndexArray) -> IntArray:
    """int64[n]: the same for both orders of a pair."""
    return (np.minimum(left, right).astype(np.int64) << 32) | np.maximum(left, right)


def _editions(graph: Graph, connections: _Changes, engagements: _Changes) -> np.ndarray:
    """uint64[U]: differs with the changes that touch a user's lists, 0 where none does.

    A connection touches both ends and their neighbours, an interaction its user. The number is a
    sum of hashes, so that replicas which know of the same changes have the same, in any order.
    """
    editions = np.zeros(len(graph), np.uint64)
    added, removed = connections.added, connections.removed
    for left, right, times in (
        (added.source, added.target, added.time),
        (*removed, np.full(len(removed[0]), -1)),
    ):
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
    """uint64[n]: well mixed (splitmix64)."""
    mixed = key.astype(np.uint64) + _GOLDEN * np.asarray(time).astype(np.uint64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    mixed ^= mixed >> np.uint64(31)
    return mixed
