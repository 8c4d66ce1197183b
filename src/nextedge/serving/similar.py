"""What is like a given item or person, without what live state or the release hides."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nextedge.errors import InputError, UnknownItemError, UnknownUserError
from nextedge.events.state.overlay import Overlay
from nextedge.retrieval.item_knn import ItemKnn
from nextedge.serving.rank_with_deadline import NO_DEADLINE, retrieved
from nextedge.serving.release.loaded import LoadedRelease, LoadedSurface
from nextedge.types import BoolArray, FloatArray, Identifier, IndexArray, Requests


@dataclass(frozen=True)
class Similar:
    """One entry: its id, a similarity that orders, and what a person reads."""

    id: Identifier
    score: float
    display: str


def similar(
    release: LoadedRelease, overlay: Overlay, surface: str, given: Identifier, k: int
) -> list[Similar]:
    """The k most similar, best first: items by who engages with both, people by the sources.

    Raises:
        UnknownItemError, UnknownUserError: the release does not know the id, or hides it.
    """
    found = release.surface(surface)
    items = found.candidate_table == "items"
    ids = release.entities.items if items else release.entities.users
    place = int(ids.positions([given])[0])
    overlay.catch_up()
    allowed = _allowed(found, overlay, ids)
    if place < 0 or not allowed[place]:
        kind = UnknownItemError if items else UnknownUserError
        raise kind(f"unknown {'item' if items else 'user'} {given!r} in release {release.id}")
    positions, score = _of_item(found, place) if items else _of_person(found, place)
    kept = allowed[positions] & (positions != place)
    if not items:
        blocked = np.concatenate(
            (
                ids.positions(sorted(overlay.blocked.of(str(given)))),
                found.line.scope.snapshot.blocks.row(place),
            )
        )
        kept &= ~np.isin(positions, blocked)
    positions, score = positions[kept][:k], score[kept][:k]
    names = ids.identifiers(positions).to_pylist()
    table = found.candidate_table
    return [
        Similar(name, float(value), release.display(table, int(at)))
        for name, value, at in zip(names, score, positions, strict=True)
    ]


def embedding(release: LoadedRelease, overlay: Overlay, kind: str, given: Identifier) -> FloatArray:
    """float32[d]: the vector that a source keeps of a user or an item.

    Raises:
        InputError: no source of the release has vectors of that kind.
        UnknownItemError, UnknownUserError: the release does not know the id, or hides it.
    """
    user = kind == "user"
    ids = release.entities.users if user else release.entities.items
    place = int(ids.positions([given])[0])
    overlay.catch_up()
    for surface in release.surfaces.values():
        own = surface.line.scope.relation.self_typed
        side = "query" if user else "candidate"
        if not user and own:
            continue
        for source in surface.line.sources.values():
            if side in source.arrays and "candidate" in source.arrays:
                gone = str(given) in (overlay.absent if user else overlay.unavailable)
                known = surface.line.scope.snapshot
                visible = known.known_users if user else known.known_items
                if place < 0 or gone or not visible[place]:
                    error = UnknownUserError if user else UnknownItemError
                    raise error(f"unknown {kind} {given!r} in release {release.id}")
                return np.asarray(source.arrays[side][place], np.float32)
    raise InputError(
        f"no source of release {release.id} has embeddings of {kind}s: switch on one that has "
        "(als, graphsage, two_tower, …) and build again"
    )


def _allowed(surface: LoadedSurface, overlay: Overlay, ids) -> BoolArray:  # type: ignore[no-untyped-def]
    """bool[candidates]: who may be shown to anyone, by the release and live state."""
    allowed = np.array(surface.line.scope.recommendable)
    gone = overlay.unavailable if surface.candidate_table == "items" else overlay.absent
    places = ids.positions(sorted(gone))
    allowed[places[places >= 0]] = False
    return allowed


def _of_item(surface: LoadedSurface, place: int) -> tuple[IndexArray, FloatArray]:
    source = surface.line.sources.get("item_knn")
    if not isinstance(source, ItemKnn):
        raise InputError(f"surface {surface.name!r} has no source 'item_knn': switch it on")
    rows = source.matrix
    part = slice(int(rows.indptr[place]), int(rows.indptr[place + 1]))
    order = np.argsort(-rows.values[part], kind="stable")
    return np.asarray(rows.indices[part])[order], np.asarray(rows.values[part])[order]


def _of_person(surface: LoadedSurface, place: int) -> tuple[IndexArray, FloatArray]:
    now = surface.line.scope.snapshot.as_of
    requests = Requests(np.array([place], np.int32), now, 1)
    candidates, _ = retrieved(surface, requests, NO_DEADLINE)
    found = surface.line.rank(requests, candidates)
    return found.candidate, found.columns["score"]
