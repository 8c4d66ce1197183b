"""Policy: the ordered rules after ranking.

Exclusions and filters come first, from live state, whatever was cached or computed before. Then
the rules of ``nextedge.policy.rules`` run in their order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from nextedge.config import PolicyConfig
from nextedge.graph.attributes import Category, Tags
from nextedge.graph.scope import Scope
from nextedge.policy.lists import Lists
from nextedge.policy.rule import Rule, active_rules
from nextedge.retrieval.eligibility import eligible
from nextedge.types import Candidates, Filter, IndexArray, Requests

Hidden = Callable[[int], IndexArray]
"""Takes the row of a query in the batch; returns the positions that live state hides from it."""


@dataclass(frozen=True, eq=False)
class Policy:
    """The rules of one surface."""

    scope: Scope
    settings: PolicyConfig

    @cached_property
    def rules(self) -> list[Rule[Any]]:
        """The rules that the settings switch on, in their order."""
        return active_rules(self.scope, self.settings)

    def with_seen(self, allow_seen: bool | None) -> Policy:
        """Return the same rules, with existing edges allowed or not as the caller says."""
        # The same object keeps its checked rules.
        if allow_seen is None or allow_seen == self.settings.allow_seen:
            return self
        return Policy(self.scope, self.settings.model_copy(update={"allow_seen": allow_seen}))

    def apply(self, requests: Requests, ranked: Candidates, hidden: Hidden) -> Candidates:
        """Return at most k candidates per query, best first; k whenever k are eligible.

        Args:
            ranked: best first, with a ``score``.
            hidden: live exclusions of each query.
        """
        excluded = self._excluded(requests, hidden)
        start = Lists(requests, eligible(self.scope, requests), excluded, ranked, ranked.head(0))
        lists = replace(start, ranked=ranked.keep(start.allowed(ranked)))
        for rule in self.rules:
            lists = rule.apply(lists)
            if not rule.built_in():
                # A rule of another package must not bring back a candidate that is excluded.
                lists = replace(
                    lists,
                    eligible=lists.eligible & start.eligible,
                    excluded=excluded,
                    ranked=lists.ranked.keep(start.allowed(lists.ranked)),
                    chosen=lists.chosen.keep(start.allowed(lists.chosen)),
                )
        return lists.chosen

    def filters(self, context: Mapping[str, str]) -> tuple[Filter, ...]:
        """The filters of a request's context: its region, where candidates have regions."""
        name, region = self.settings.regions_column, context.get("region")
        column = self.scope.candidate_attributes.columns.get(name)
        if region is None or not isinstance(column, Tags | Category):
            return ()
        return (Filter(name, (region,), or_missing=True),)  # without regions: everywhere

    def _excluded(self, requests: Requests, hidden: Hidden) -> list[IndexArray]:
        """Per query the positions to leave out: existing edges, self, blocks, live state."""
        if self.settings.allow_seen:
            indptr, indices = np.zeros(len(requests) + 1, np.int64), np.zeros(0, np.int32)
        else:
            indptr, indices = self.scope.excluded(requests)
        people = self.scope.relation.self_typed
        excluded = []
        for row, query in enumerate(requests.query):
            parts = [indices[indptr[row] : indptr[row + 1]], hidden(row)]
            if people and query >= 0:
                for apart in (self.scope.snapshot.blocks, self.scope.snapshot.hidden_connections):
                    parts.append(apart.row(int(query)))
                parts.append(np.array([query], np.int32))
            if requests.exclude is not None:
                bounds, positions = requests.exclude
                parts.append(positions[bounds[row] : bounds[row + 1]])
            excluded.append(np.unique(np.concatenate(parts)))  # ascending, for binary search
        return excluded
