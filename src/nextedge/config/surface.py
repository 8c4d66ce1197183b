"""Settings of a surface: its sources and its policy, by context."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from nextedge.config.ranking import IndexConfig, RankerConfig, RerankerConfig
from nextedge.config.settings import Settings

SurfaceKind = Literal["people", "items"]


class SourceConfig(Settings):
    """Settings of one candidate source of a surface."""

    enabled: bool = True
    """Run the source. A source that is named here is on unless this is false."""
    limit: int | None = Field(None, ge=1)
    """Most candidates per query; by default the surface's ``candidates``."""
    options: dict[str, Any] = Field(default_factory=dict)
    """The source's own settings."""


NEW_BELOW = 5
"""A candidate with fewer edges counts as new, others as established."""


class ExplorationConfig(Settings):
    """Ranks that are drawn at random among new candidates; the chance of each is logged."""

    slots: int = Field(0, ge=0, le=100)
    """Ranks at the end of every list that are drawn; 0 = off."""
    fewer_edges_than: int = Field(NEW_BELOW, ge=1)
    """A candidate with fewer edges counts as new."""
    hours: float = Field(24.0, gt=0)
    """Hours until a query gets a new draw."""


class PromotionsConfig(Settings):
    """Ranks for candidates that the tenant promotes by a flag column."""

    share: float = Field(0.0, ge=0, le=0.5)
    """Share of the ranks of every list; 0 = off."""
    column: str = "promoted"
    """Flag column that promotes a candidate."""


class PolicyConfig(Settings):
    """The rules after ranking."""

    max_per: dict[str, int] = Field(default_factory=dict)
    """Column = the most recommendations that may share one value of it."""
    diversity: float = Field(0.0, ge=0, le=1)
    """Weight of the difference from the candidates above, beside the score; 0 = off."""
    exploration: ExplorationConfig = ExplorationConfig()
    """Ranks that are drawn among new candidates."""
    promotions: PromotionsConfig = PromotionsConfig()
    """Ranks for promoted candidates."""
    recently_shown_days: float = Field(0.0, ge=0)
    """Leave out candidates that the query was shown in the last days; 0 = off."""
    freshness_half_life_days: float | None = Field(None, gt=0)
    """Halve the score of a candidate with every so many days since its ``created_at``; None = off.
    """
    rules: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Rules of plug-ins that run here, by name, each with its settings."""
    regions_column: str = "regions"
    """Column of the candidates' regions, which the ``region`` of a request filters by."""
    allow_seen: bool = False
    """Recommend existing edges too."""

    @field_validator("max_per")
    @classmethod
    def _positive(cls, value: dict[str, int]) -> dict[str, int]:
        for column, most in value.items():
            if most < 1:
                raise ValueError(f"max_per.{column} = {most}: expected 1 or more")
        return value


class ContextConfig(Settings):
    """Settings that differ in one context of a request (``mobile``, ``web``, ``email``, …)."""

    k: int | None = Field(None, ge=1, le=500)
    """Recommendations per request; None = the surface's ``k``."""
    policy: PolicyConfig = PolicyConfig()
    """Rules that differ; every other rule is the surface's."""


class SurfaceConfig(Settings):
    """One surface: the edges that it predicts, its sources, its ranker and its policy."""

    kind: SurfaceKind
    """Kind of the candidates; ``people`` and ``items`` have the kind of their name."""
    k: int = Field(20, ge=1, le=500)
    """Recommendations per request, where the request does not say."""
    candidates: int = Field(1500, ge=1)
    """Candidates per query that the ranker scores."""
    sources: dict[str, SourceConfig] = Field(default_factory=dict)
    """Candidate sources by name."""
    index: IndexConfig = IndexConfig()
    """Nearest-neighbor index over a model's embeddings."""
    ranker: RankerConfig = RankerConfig()
    """The ranker and its training."""
    reranker: RerankerConfig = RerankerConfig()
    """The re-ranker of the head of every list."""
    policy: PolicyConfig = PolicyConfig()
    """Rules after ranking."""
    contexts: dict[str, ContextConfig] = Field(default_factory=dict)
    """Settings that differ by the ``context`` of a request."""

    def in_context(self, name: str | None) -> tuple[int, PolicyConfig]:
        """Return k and policy of a request in a context."""
        chosen = self.contexts.get(name or "")
        if chosen is None:
            return self.k, self.policy
        # Only what the context states: its other fields are defaults, not the surface's.
        differing = {name: getattr(chosen.policy, name) for name in chosen.policy.model_fields_set}
        return chosen.k or self.k, self.policy.model_copy(update=differing)

    @property
    def shown_days(self) -> float:
        """Days of impressions that a rule of the surface reads, in any context."""
        policies = [self.in_context(name)[1] for name in (None, *self.contexts)]
        return max(policy.recently_shown_days for policy in policies)
