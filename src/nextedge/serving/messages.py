"""The request and the response of recommendations, as callers of Python have them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from nextedge.policy.reasons import Reason
from nextedge.types import UNKNOWN, Identifier, IndexArray

_NONE = np.zeros(0, np.int32)


@dataclass(frozen=True)
class RecommendationRequest:
    """The surface of a list, its length, context, exclusions and filters."""

    surface: str
    k: int | None = None
    context: Mapping[str, str] = field(default_factory=dict)
    exclude: Sequence[Identifier] = ()
    filters: Mapping[str, str | Sequence[str]] = field(default_factory=dict)
    """Column of the candidates = the value, or one of the values, that they have."""
    cursor: str | None = None
    """``next_cursor`` of the previous page."""
    deadline_ms: float | None = None
    """Stages that would end later are left out; None runs all."""
    explain: bool = False
    allow_seen: bool | None = None
    """Whether existing edges are recommended too; None = as the policy says."""


@dataclass(frozen=True)
class Recommendation:
    """One predicted edge."""

    id: Identifier
    score: float
    rank: int
    reason: Reason
    sources: tuple[str, ...]
    display: str
    propensity: float = 1.0
    """Probability of this candidate at this rank; below 1 for explored candidates."""
    promoted: bool = False
    contributions: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class LiveVersion:
    """The version of live state that a list was computed with.

    Attributes:
        user: ``Overlay.version`` of the query user.
        impressions: whether the version counts impressions, as the policy hides recent ones.
        narrowed: number of events so far that hide a user or an item from others.
        release: ``LoadedRelease.token`` of the release that answered.
    """

    user: tuple[int, int, int]
    impressions: bool
    narrowed: int
    release: object


@dataclass(frozen=True)
class RecommendationResponse:
    """The recommendations of one user, with their release, latency and degradations."""

    user_id: Identifier
    surface: str
    kind: str
    release: str
    recommendations: tuple[Recommendation, ...]
    recommendation_id: str
    known_user: bool
    latency_ms: float
    degraded: tuple[str, ...] = ()
    cached: bool = False
    """Whether the ranked list comes from the cache; the policy runs at every request."""
    next_cursor: str | None = None
    """The ``cursor`` of the next page; None after the last one."""
    stages: Mapping[str, float] = field(default_factory=dict)
    """Milliseconds of each stage, for the whole batch."""
    experiment: str | None = None
    """Name and arm of the trial that the user is in."""
    query: int = UNKNOWN
    positions: IndexArray = field(default_factory=lambda: _NONE)
    """Positions of the user, and of the recommendations, in the release."""
    edition: int = 0
    """``LoadedRelease.edition`` of the user."""
    cold_start: bool = False
    """Whether the user has no edge in the release, so that live state may change the list any time."""
    live: LiveVersion | None = field(default=None, repr=False, compare=False)
    """None if live state cannot be read."""
