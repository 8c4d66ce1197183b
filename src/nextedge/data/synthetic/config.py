"""The settings of a synthetic tenant: size, seed and realism."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from datetime import UTC, datetime

from nextedge.errors import ConfigError
from nextedge.types import MICROSECONDS_PER_DAY

START = int(datetime(2024, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000
"""First moment of every synthetic history, µs UTC: fixed, so that a seed fixes every byte."""

_SHARES = (
    "closure_start",
    "closure_end",
    "newcomer_share",
    "late_joiner_share",
    "opt_out_share",
    "impression_user_share",
    "block_share",
)
_BOUNDS: dict[str, tuple[float, float]] = {
    "users": (10, 50_000_000),
    "items": (10, 5_000_000),
    "mean_degree": (0.5, 1_000.0),
    "seed": (0, 2**63 - 1),
    "days": (7, 36_500),
    "founders_share": (0.01, 1.0),
    "activity_spread": (0.0, 2.0),
    "waning_days": (0.1, 1e6),
    "homophily": (0.0, 3.0),
    "team_size": (3, 10_000),
    "interactions_per_user": (0.0, 10_000.0),
    "taste_strength": (0.0, 10.0),
    "popularity_skew": (0.0, 3.0),
    "impression_users": (0, 50_000_000),
    "impression_days": (1, 36_500),
    "list_length": (1, 100),
    "chunk_events": (1, 10_000_000),
} | dict.fromkeys(_SHARES, (0.0, 1.0))


@dataclass(frozen=True, slots=True)
class SyntheticConfig:
    """Size, seed and realism of a synthetic tenant; the same values give the same bytes.

    Raises:
        ConfigError: a value is not a finite number within its range.
    """

    users: int = 20_000
    items: int | None = None
    """Catalogue size; by default a tenth of the users, at least 200 and at most 200,000."""
    mean_degree: float = 30.0
    """Connections of a user, on average; small tenants reach a little less."""
    seed: int = 0
    days: int = 365
    """Length of the history, from 1 January 2024 UTC."""

    founders_share: float = 0.2
    """Users who joined in the half year before the history starts."""
    late_joiner_share: float = 0.02
    """The last to join, who have no connection yet."""
    opt_out_share: float = 0.02
    """Users with ``discoverable = false``, who are in no list."""

    closure_start: float = 0.2
    """Share of the meetings with friends of friends, at the start of the history …"""
    closure_end: float = 0.45
    """… and at its end: the more friends there are, the more friends of friends meet."""
    newcomer_share: float = 0.2
    """Share of the events whose actor joined recently."""
    waning_days: float = 75.0
    """Time in which the zeal of a new user falls to 1/e of the way to its lasting level."""
    homophily: float = 1.0
    """Weight of shared industry, school, city and skills; 0 ignores them."""
    activity_spread: float = 1.0
    """Sigma of the log-normal activity, which makes degrees heavy-tailed."""
    team_size: int = 24
    """People in a team of a company and in a class of a school, on average."""
    block_share: float = 0.001
    """Share of would-be connections that end in a block instead."""

    interactions_per_user: float = 20.0
    taste_strength: float = 1.5
    """Inverse temperature of the choice among items; 0 makes choices by popularity alone."""
    popularity_skew: float = 1.2
    """Sigma of the log-normal appeal of items."""

    impression_user_share: float = 0.2
    """Users whose recommendation lists are logged …"""
    impression_users: int = 50_000
    """… but at most so many, so that the log stays bounded."""
    impression_days: int = 90
    """Length of the log, up to the end of the history."""
    list_length: int = 10

    chunk_events: int = 200_000
    """Events made at a time: bounds memory, and leaves the tables unchanged."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name == "items" and value is None:
                continue
            low, high = _BOUNDS[field.name]
            whole = "int" in str(field.type)
            kind = "a whole number" if whole else "a number"
            if (
                isinstance(value, bool)
                or not isinstance(value, int if whole else (int, float))
                or not math.isfinite(value)
                or not low <= value <= high
            ):
                raise ConfigError(
                    f"SyntheticConfig.{field.name}: {value!r} was given; expected {kind} "
                    f"from {low:g} to {high:g}: change it"
                )

    @property
    def item_count(self) -> int:
        """Number of items, by the setting or its default."""
        return min(max(self.users // 10, 200), 200_000) if self.items is None else self.items

    @property
    def edge_count(self) -> int:
        """Most connections."""
        # A pair cannot connect twice, so small tenants fill up.
        possible = self.users * (self.users - 1) // 2
        return min(round(self.users * self.mean_degree / 2), possible // 2)

    @property
    def interaction_count(self) -> int:
        """Number of interactions."""
        return round(self.users * self.interactions_per_user)

    @property
    def end(self) -> int:
        """End of the history, µs UTC; nothing happens at or after it."""
        return START + self.days * MICROSECONDS_PER_DAY

    @property
    def impression_start(self) -> int:
        """Start of the logged lists, µs UTC."""
        return max(START, self.end - self.impression_days * MICROSECONDS_PER_DAY)

    @property
    def logged_share(self) -> float:
        """Share of users whose lists are logged, after the bound on their number."""
        return min(self.impression_user_share, self.impression_users / self.users)
