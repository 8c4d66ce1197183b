"""Caps: at most so many recommendations may share one value of a column."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from nextedge.config import PolicyConfig
from nextedge.policy.lists import Lists, category_codes
from nextedge.policy.rule import NoConfig, Rule
from nextedge.types import BoolArray


class Caps(Rule[NoConfig]):
    """Choose the first k candidates of each query that stay within every cap."""

    name = "caps"
    order = 30

    @classmethod
    def active(cls, settings: PolicyConfig) -> bool:
        return True

    def apply(self, lists: Lists) -> Lists:
        if not self.settings.max_per:
            return replace(lists, chosen=lists.ranked.head(lists.requests.k))
        return replace(lists, chosen=lists.ranked.keep(self._within(lists)))

    def _within(self, lists: Lists) -> BoolArray:
        """bool[R]: the first k rows of each query that stay within every cap."""
        ranked = lists.ranked
        columns = [
            (category_codes(self.scope, name), most) for name, most in self.settings.max_per.items()
        ]
        chosen = np.zeros(len(ranked), bool)
        for rows in ranked.rows():
            counts: list[dict[int, int]] = [{} for _ in columns]
            taken = 0
            for row in range(rows.start, rows.stop):
                values = [int(codes[ranked.candidate[row]]) for codes, _ in columns]
                full = any(
                    value >= 0 and count.get(value, 0) >= most  # no cap without a value
                    for value, count, (_, most) in zip(values, counts, columns, strict=True)
                )
                if full:
                    continue
                for value, count in zip(values, counts, strict=True):
                    count[value] = count.get(value, 0) + 1
                chosen[row] = True
                taken += 1
                if taken == lists.requests.k:
                    break
        return chosen
