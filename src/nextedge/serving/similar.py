"""Items or people that are similar to one, and embeddings; hidden ones are left out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nextedge.data.ids import IdMap
from nextedge.errors import InputError, UnknownItemError, UnknownUserError
from nextedge.events.state.overlay import Overlay
from nextedge.retrieval.item_knn import ItemKnn
from nextedge.serving.rank_with_deadline import NO_DEADLINE, retrieved
from nextedge.serving.release.loaded import LoadedRelease, LoadedSurface
from nextedge.types import BoolArray, FloatArray, Identifier, IndexArray, Requests


@dataclass(frozen=True)
class Similar:
    """One similar item or person: its id, similarity and display name."""

    id: Identifier
    score: float
    display: str


def similar(
    release: LoadedRelease, overlay: Overlay, surface_name: str, entity_id: Identifier, k: int
) -> list[Similar]:
    """The k most similar, best first: items by common users, people by the sources.

    Raises:
        UnknownItemError, UnknownUserError: the release does not have the id, or hides it.
    """
    surface = release.surface(surface_name)
    table, items = surface.candidate_table, surface.candidate_table == "items"
    ids = release.entities.items if items else release.entities.users
    position = int(ids.positions([entity_id])[0])
    overlay.catch_up()
    allowed = _allowed(surface, overlay, ids)
    if position < 0 or not allowed[position]:
        raise _unknown("item" if items else "user", entity_id, release)
    positions, score = _of_item(surface, position) if items else _of_person(surface, position)
    visible = allowed[positions] & (positions != position)
    if not items:
        # blocks alone: leaving out hidden connections would reveal them
        since_release = ids.positions(sorted(overlay.blocked.of(str(entity_id))))
        blocked = surface.line.scope.snapshot.blocks.row(position)
        visible &= ~np.isin(positions, np.concatenate((since_release, blocked)))
    positions, score = positions[visible][:k], score[visible][:k]
    names = ids.identifiers(positions).to_pylist()
    displays = release.displays(table, positions)
    return [
        Similar(*row) for row in zip(names, score.astype(float).tolist(), displays, strict=True)
    ]


def _unknown(kind: str, entity_id: Identifier, release: LoadedRelease) -> InputError:
    # one error for both: it must not tell who opted out
    error = UnknownUserError if kind == "user" else UnknownItemError
    return error(f"unknown {kind} {entity_id!r} in release {release.id}")


def embedding(
    release: LoadedRelease, overlay: Overlay, kind: str, entity_id: Identifier
) -> FloatArray:
    """float32[d]: the vector of a ``user`` or an ``item``, of the first source with vectors.

    Raises:
        InputError: no source of the release has vectors of that kind.
        UnknownItemError, UnknownUserError: the release does not have the id, or hides it.
    """
    user = kind == "user"
    side = "query" if user else "candidate"
    ids = release.entities.users if user else release.entities.items
    position = int(ids.positions([entity_id])[0])
    overlay.catch_up()
    gone = str(entity_id) in (overlay.absent if user else overlay.unavailable)
    for surface in release.surfaces.values():
        scope = surface.line.scope
        if not user and scope.relation.self_typed:
            continue
        for source in surface.line.sources.values():
            if side in source.arrays and "candidate" in source.arrays:
                visible = scope.snapshot.known_users if user else scope.snapshot.known_items
                if position < 0 or gone or not visible[position]:
                    raise _unknown(kind, entity_id, release)
                return np.asarray(source.arrays[side][position], np.float32)
    raise InputError(
        f"no source of release {release.id} has embeddings of {kind}s: switch on one that has "
        "(als, graphsage, two_tower, …) and build again"
    )


def _allowed(surface: LoadedSurface, overlay: Overlay, ids: IdMap) -> BoolArray:
    """bool[candidates]: the candidates that neither the release nor live state hides from all."""
    allowed = np.array(surface.line.scope.recommendable)
    gone = overlay.unavailable if surface.candidate_table == "items" else overlay.absent
    positions = ids.positions(sorted(gone))
    allowed[positions[positions >= 0]] = False
    return allowed


def _of_item(surface: LoadedSurface, position: int) -> tuple[IndexArray, FloatArray]:
    source = surface.line.sources.get("item_knn")
    if not isinstance(source, ItemKnn):
        raise InputError(f"surface {surface.name!r} has no source 'item_knn': switch it on")
    rows = source.matrix
    part = slice(int(rows.indptr[position]), int(rows.indptr[position + 1]))
    order = np.argsort(-rows.values[part], kind="stable")
    return np.asarray(rows.indices[part])[order], np.asarray(rows.values[part])[order]


def _of_person(surface: LoadedSurface, position: int) -> tuple[IndexArray, FloatArray]:
    now = surface.line.scope.snapshot.as_of
    requests = Requests(np.array([position], np.int32), now, 1)
    candidates, _ = retrieved(surface, requests, NO_DEADLINE)
    ranked = surface.line.rank(requests, candidates)
    return ranked.candidate, ranked.columns["score"]
