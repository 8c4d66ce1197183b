"""What is asked and what is answered, as callers see both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from nextedge.policy.reasons import Reason
from nextedge.types import UNKNOWN, Identifier, IndexArray

_NONE = np.zeros(0, np.int32)


@dataclass(frozen=True)
class RecommendationRequest:
    """What is asked: for whom, on which surface, how many, in which context."""

    surface: str
    k: int | None = None
    context: Mapping[str, str] = field(default_factory=dict)
    exclude: Sequence[Identifier] = ()
    filters: Mapping[str, str | Sequence[str]] = field(default_factory=dict)
    """Column of the candidates = the value, or the values, that they must have."""
    cursor: str | None = None
    """Of the page before, to go on from there."""
    deadline_ms: float | None = None
    """What would not be done by then is left out; None waits for everything."""
    explain: bool = False
    allow_seen: bool | None = None
    """Also existing edges; None leaves it to the policy."""


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
    """Chance with which it is at its place: 1 but for what was drawn to explore."""
    promoted: bool = False
    contributions: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class LiveVersion:
    """The events that a list was computed with.

    Attributes:
        user: ``Overlay.version`` of the query user.
        impressions: whether impressions count in it, as the policy leaves out recent ones.
        narrowed: events so far that hide a user or an item from others.
        release: ``LoadedRelease.token`` of the release that answered.
    """

    user: tuple[int, int, int]
    impressions: bool
    narrowed: int
    release: object


@dataclass(frozen=True)
class RecommendationResponse:
    """The recommendations of one user, and how they came to be."""

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
    """Whether the ranking, though not what is left out of it, was kept from an earlier request."""
    next_cursor: str | None = None
    """What to ask with for the next page; None where there is none."""
    stages: Mapping[str, float] = field(default_factory=dict)
    """Milliseconds of each stage, for the whole batch."""
    experiment: str | None = None
    """Name and arm of the trial that the user is in."""
    query: int = UNKNOWN
    positions: IndexArray = field(default_factory=lambda: _NONE)
    """Of the user, and of the recommended, in the release."""
    edition: int = 0
    """Of the user's lists: of the live edges in the release's graphs."""
    cold_start: bool = False
    """Whether the user has no edge in the release, and live state may change the list any time."""
    live: LiveVersion | None = field(default=None, repr=False, compare=False)
    """None where live state could not be read."""
