"""A policy rule with a setting of its own: it leaves out candidates with very many edges."""

from __future__ import annotations

from pydantic import Field

from nextedge.config import Settings
from nextedge.policy.lists import Lists
from nextedge.policy.rule import Rule


class MostEdgesConfig(Settings):
    """Settings of the rule."""

    edges: int = Field(100, ge=1)
    """Candidates with more edges are left out."""


class MostEdges(Rule[MostEdgesConfig]):
    """Recommend only candidates with at most so many edges."""

    name = "most_edges"
    order = 15  # between freshness and diversity

    def apply(self, lists: Lists) -> Lists:
        return lists.only(self.scope.candidate_degree <= self.config.edges)
