"""Precomputed candidates: computed for all users ahead, and again where live edges change them."""

from __future__ import annotations

import time
from collections.abc import Collection
from functools import partial

import numpy as np

from nextedge.config import Config
from nextedge.data.partition import Part
from nextedge.progress import Progress, quiet
from nextedge.serving.caches.precomputed import (
    PREFIX,
    CachedCandidates,
    PublishedCandidates,
    is_complete,
    open_candidates,
    packed,
    split_queries,
    store_key,
)
from nextedge.serving.release.loaded import LoadedRelease, LoadedSurface
from nextedge.stores.store import Key, Store
from nextedge.types import IndexArray, Requests

_BATCH = 64


def publish(
    release: LoadedRelease,
    config: Config,
    *,
    most: int | None = None,
    part: Part | None = None,
    in_use: Collection[str] = (),
    progress: Progress = quiet,
) -> int:
    """Store the candidates of users; returns the number of lists in the store.

    At the end it deletes the lists of other releases that are not in use.

    Args:
        most: at most so many users, the latest active first; None = all.
        part: only the users of this part; None = all.
        in_use: ids of other releases whose lists stay.

    Raises:
        StoreError: the store does not answer, or is full.
        ShardError: a process that serves a part of the indexes does not answer.
    """
    order = most_active(release, most)
    # ``most`` counts all users: the partitions together do what one run does
    if part is not None:
        order = order[part.holds(release.entities.users.identifiers(order).to_pylist())]
    store = open_candidates(config)
    try:
        for surface in release.surfaces:
            for start in range(0, len(order), _BATCH):
                batch = order[start : start + _BATCH]
                _store_missing(release, surface, batch, store, config)
                progress(f"publish {surface}", start + len(batch), len(order))
        published = {key.split(b"/")[1].decode() for key in store.keys(f"{PREFIX}/")}
        for release_id in sorted(published - {release.id, *in_use}):
            store.delete_prefix(f"{PREFIX}/{release_id}/")
    finally:
        store.close()
    return len(order) * len(release.surfaces)


def _store_missing(
    release: LoadedRelease, name: str, positions: IndexArray, store: Store, config: Config
) -> None:
    features = config.serving.candidates_features
    keys = [store_key(release.list_name(name, int(position))) for position in positions]
    # only lists that are missing, so an interrupted run resumes
    missing = [
        row
        for row, (key, value) in enumerate(zip(keys, store.get_many(keys), strict=True))
        if not is_complete(key, value, features)
    ]
    if not missing:
        return
    pipeline = release.surface(name).line
    # k = 1, as retrieval does not depend on k
    requests = Requests(positions[missing], int(time.time() * 1e6), 1)
    candidates = pipeline.retrieve(requests)
    matrix = pipeline.matrix(requests, candidates) if features else None
    parts = split_queries(candidates, matrix, release.edges)
    values: dict[Key, bytes] = {
        keys[row]: packed(keys[row], part) for row, part in zip(missing, parts, strict=True)
    }
    store.put_many(values, config.serving.candidates_days * 86_400)


def most_active(release: LoadedRelease, most: int | None) -> IndexArray:
    """int32: positions of the users, the latest active first."""
    latest = release.snapshot.last_activity
    # ties by position: every partition takes the same users
    return np.lexsort((np.arange(len(latest)), -latest))[:most].astype(np.int32)


def derive(release: LoadedRelease) -> None:
    """Compute the arrays that a release derives from its edges, so that no request waits for them."""
    snapshot = release.snapshot
    busiest = int((snapshot.connections.degree + snapshot.engagements.degree).argmax())
    for surface in release.surfaces.values():
        surface.line.run(_request_of(busiest))


def refresh_lists(
    before: LoadedRelease, live: LoadedRelease, published: PublishedCandidates, most: int
) -> None:
    """Refresh the stored candidates of the users whose lists the latest edges affect.

    Args:
        most: users beside those at the ends of edges.
    """
    published.renew(
        [
            (
                live.list_name(name, position),
                before.list_name(name, position),
                partial(_retrieve, surface, position, live.edges),
            )
            for position in live.changed_users(before, most).tolist()
            for name, surface in live.surfaces.items()
        ]
    )


def _retrieve(surface: LoadedSurface, position: int, edges: str) -> CachedCandidates:
    return CachedCandidates(surface.line.retrieve(_request_of(position)), edges=edges)


def _request_of(position: int) -> Requests:
    return Requests(np.array([position], np.int32), int(time.time() * 1e6), 1)
