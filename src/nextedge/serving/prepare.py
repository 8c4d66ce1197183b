"""A request as the pipeline reads it: positions, filters, exclusions, with live state caught up."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from nextedge.errors import InputError
from nextedge.events.state.overlay import Overlay
from nextedge.policy.policy import Policy
from nextedge.retrieval.eligibility import eligible
from nextedge.serving.cursor import Cursor
from nextedge.serving.messages import LiveVersion, RecommendationRequest
from nextedge.serving.release.loaded import LoadedRelease, LoadedSurface
from nextedge.types import (
    MAX_LIMIT,
    MOST_FILTER_VALUES,
    MOST_FILTERS,
    MOST_SHOWN,
    Filter,
    Identifier,
    IndexArray,
    Requests,
)

_NONE = np.zeros(0, np.int32)


@dataclass(frozen=True)
class LiveEvidence:
    """Live state in the positions of a release, for reasons."""

    release: LoadedRelease
    overlay: Overlay

    def witnesses(self, query: int, others: IndexArray) -> IndexArray:
        """The others (ascending) that are not gone, and whose link with the query still exists."""
        out = np.union1d(self.release.gone(self.overlay, "people"), self.severed(query))
        return others[~np.isin(others, out)] if len(out) else others

    def severed(self, candidate: int) -> IndexArray:
        """Positions that a candidate blocked, is blocked by, left, or has a hidden connection to."""
        ids = self.release.entities.users
        name = ids.identifier(candidate)
        names = self.overlay.severed(name) if name is not None else None
        if not names:
            return _NONE
        positions = ids.positions(sorted(names))
        return positions[positions >= 0]


@dataclass(frozen=True)
class Prepared:
    """A batch of requests as the pipeline reads it, with the candidates that live state hides.

    Attributes:
        policy: the rules in the request's context.
        versions: live state's version of each query.
        hidden: by row of the batch, positions that the list of this query must not have.
        recently_shown: by row of the batch, the hidden positions of recent impressions.
    """

    requests: Requests
    policy: Policy
    versions: tuple[LiveVersion, ...]
    hidden: Callable[[int], IndexArray]
    recently_shown: Callable[[int], IndexArray]


def prepare(
    release: LoadedRelease,
    surface: LoadedSurface,
    overlay: Overlay,
    user_ids: Sequence[Identifier],
    question: RecommendationRequest,
) -> Prepared:
    """Look up a batch of users, with live state caught up.

    Raises:
        InputError: k is not within 1..500.
    """
    name = question.context.get("context")
    k = surface.settings.in_context(name)[0] if question.k is None else question.k
    if not 1 <= k <= MAX_LIMIT:
        raise InputError(f"k = {k}: expected 1 to {MAX_LIMIT}")
    policy = surface.policy_in(name)
    kind, days = surface.settings.kind, policy.settings.recently_shown_days
    # an acknowledged event holds for the next request of every process
    overlay.catch_up()
    # read before the state: a version that is too old ends a cached response too soon, one that is
    # too new would hide an event from it
    narrowed = len(overlay.narrowed)
    versions = tuple(
        LiveVersion(overlay.version(user, shown=days > 0), days > 0, narrowed, release.token)
        for user in user_ids
    )
    requests = _requests(
        release, surface, policy, overlay, overlay.query_ids(user_ids), k, question
    )
    ids = release.entities.users if kind == "people" else release.entities.items

    def positions(names: set[str]) -> IndexArray:
        known = ids.positions(sorted(names)) if names else _NONE
        return np.unique(known[known >= 0])

    gone = release.gone(overlay, kind)

    @cache
    def recently_shown(row: int) -> IndexArray:
        names = (
            overlay.impressions_since(kind, user_ids[row], requests.now, days) if days else set()
        )
        return positions(names)

    @cache
    def hidden(row: int) -> IndexArray:
        hides = positions(overlay.hidden_from(kind, user_ids[row]))
        hides = np.union1d(hides, gone) if len(gone) else hides
        return np.union1d(hides, recently_shown(row)) if days else hides

    return Prepared(requests, policy, versions, hidden, recently_shown)


def _requests(
    release: LoadedRelease,
    surface: LoadedSurface,
    policy: Policy,
    overlay: Overlay,
    user_ids: Sequence[Identifier],
    k: int,
    question: RecommendationRequest,
) -> Requests:
    query = release.entities.users.positions(list(user_ids))
    now = int(time.time() * 1e6)
    filters = _filters(policy, question)
    left_out = _left_out(release, surface, user_ids, question)
    exclude = None
    if len(left_out):
        count = len(user_ids)
        exclude = np.arange(count + 1, dtype=np.int64) * len(left_out), np.tile(left_out, count)
    live = release.live.counters(overlay) if surface.line.features.live else None
    requests = Requests(query, now, k, question.context, exclude, filters, live)
    eligible(surface.line.scope, requests)  # refuses a filter that cannot be read, before the work
    return requests


def _filters(policy: Policy, question: RecommendationRequest) -> tuple[Filter, ...]:
    filters = {
        column: (values,) if isinstance(values, str) else tuple(map(str, values))
        for column, values in question.filters.items()
    }
    for column, values in filters.items():
        if len(values) > MOST_FILTER_VALUES:
            raise InputError(f"filter {column!r}: at most {MOST_FILTER_VALUES} values")
    if len(filters) > MOST_FILTERS:
        raise InputError(f"{len(filters)} filters: expected at most {MOST_FILTERS}")
    # sorted: the same filters in another order share a cached list
    requested = tuple(Filter(column, values) for column, values in sorted(filters.items()))
    return requested + policy.filters(question.context)


def _left_out(
    release: LoadedRelease,
    surface: LoadedSurface,
    user_ids: Sequence[Identifier],
    question: RecommendationRequest,
) -> IndexArray:
    """Positions that the caller excludes, and those of the previous pages; ascending.

    Raises:
        InputError: too many exclusions, or the cursor cannot be read.
    """
    if len(question.exclude) > MOST_SHOWN:
        raise InputError(
            f"exclude: {len(question.exclude):,} ids, expected at most {MOST_SHOWN:,}; record what "
            "must never be shown as an event of type 'dismiss'"
        )
    table = surface.candidate_table
    ids = release.entities.users if table == "users" else release.entities.items
    positions = ids.positions(list(question.exclude)) if question.exclude else _NONE
    if question.cursor is not None:
        if len(user_ids) != 1:
            raise InputError("cursor: it goes with one user")
        cursor = Cursor.decode(question.cursor, user_ids[0], surface.name)
        earlier = release.positions_from(cursor.release, table, cursor.shown)
        positions = np.concatenate((positions, earlier))
    return np.unique(positions[positions >= 0]).astype(np.int32)
