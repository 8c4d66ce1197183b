"""Promotions: a share of the ranks of every list is for candidates that the tenant promotes.

The promoted candidates that rank best for the query come first, then the most popular of them, at
ranks spread evenly over the list.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import chain, islice

import numpy as np

from nextedge.config import PolicyConfig
from nextedge.graph.scope import Scope, cached_per_snapshot
from nextedge.policy.lists import PROMOTED, Lists, appended, popular
from nextedge.policy.rule import NoConfig, Rule
from nextedge.ranking.pipeline import ranked_as
from nextedge.types import BoolArray


class Promotions(Rule[NoConfig]):
    """Give a share of the ranks to promoted candidates, beyond the caps, and mark them."""

    name = "promotions"
    order = 40

    @classmethod
    def active(cls, settings: PolicyConfig) -> bool:
        return settings.promotions.share > 0

    def apply(self, lists: Lists) -> Lists:
        k = lists.requests.k
        slots = int(self.settings.promotions.share * k)  # rounded down: never above the share
        if not slots:
            return lists
        ranked = lists.ranked
        promoted = promoted_candidates(self.scope, self.settings.promotions.column)
        eligible = lists.eligible & promoted
        per_query = []
        for rows, positions in zip(ranked.rows(), lists.excluded, strict=True):
            candidates, excluded = ranked.candidate[rows], set(positions.tolist())
            others = (c for c in popular(self.scope, eligible) if c not in excluded)
            best = candidates[promoted[candidates]].tolist()
            per_query.append(promoted_to_show(best, others, slots))
        extra = {
            row: sorted(set(shown) - set(ranked.candidate[rows].tolist()))  # a set has no order
            for row, (shown, rows) in enumerate(zip(per_query, ranked.rows(), strict=True))
        }
        # A promoted candidate that no source found needs a row to take its columns from.
        ranked = appended(ranked, extra)
        # Marked, because the rank of a promoted candidate says nothing about its relevance.
        mark = [
            np.isin(ranked.candidate[rows], shown)
            for rows, shown in zip(ranked.rows(), per_query, strict=True)
        ]
        ranked = ranked.with_columns(**{PROMOTED: np.concatenate(mark).astype(np.int8)})
        chosen = lists.chosen
        spread_lists = [
            np.array(spread(shown, chosen.candidate[rows].tolist(), k, slots), np.int32)
            for shown, rows in zip(per_query, chosen.rows(), strict=True)
        ]
        return replace(lists, ranked=ranked, chosen=ranked_as(ranked, spread_lists))


@cached_per_snapshot
def promoted_candidates(scope: Scope, column: str) -> BoolArray:
    """bool[candidates]: whether the flag column promotes a candidate."""
    return scope.candidate_attributes.flag(column, False)


def promoted_to_show(ranked: Iterable[int], others: Iterable[int], slots: int) -> list[int]:
    """At most ``slots`` promoted candidates: the best ranked first, then the best of the others."""
    return list(islice(dict.fromkeys(chain(ranked, others)), slots))


def spread(promoted: list[int], organic: list[int], k: int, slots: int) -> list[int]:
    """One list of both, at most k: every (k / slots)-th rank is for a promoted candidate.

    >>> spread([8, 9], [1, 2, 8, 3, 4], k=6, slots=2)
    [1, 2, 8, 3, 4, 9]
    """
    every = max(k // max(slots, 1), 1)
    merged: list[int] = []
    waiting = list(promoted)
    for candidate in [c for c in organic if c not in set(promoted)][: k - len(promoted)]:
        if waiting and (len(merged) + 1) % every == 0:
            merged.append(waiting.pop(0))
        merged.append(candidate)
    return merged + waiting
