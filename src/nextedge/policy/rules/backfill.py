"""Backfill: short lists are filled to k."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import chain

import numpy as np

from nextedge.config import PolicyConfig
from nextedge.policy.lists import Lists, appended, popular
from nextedge.policy.rule import NoConfig, Rule


class Backfill(Rule[NoConfig]):
    """Fill short lists: first with candidates that the caps left out, then with the most popular."""

    name = "backfill"
    order = 60

    @classmethod
    def active(cls, settings: PolicyConfig) -> bool:
        return True

    def apply(self, lists: Lists) -> Lists:
        short = np.flatnonzero(np.diff(lists.chosen.indptr) < lists.requests.k)
        if not len(short):
            return lists
        extra: Mapping[int, list[int]] = {int(row): self._fill(lists, int(row)) for row in short}
        return replace(lists, chosen=appended(lists.chosen, extra))

    def _fill(self, lists: Lists, row: int) -> list[int]:
        """Candidates that fill one list."""
        chosen, ranked = lists.chosen, lists.ranked
        length = int(chosen.indptr[row + 1] - chosen.indptr[row])
        taken = set(chosen.candidate[chosen.indptr[row] : chosen.indptr[row + 1]].tolist())
        taken |= set(lists.excluded[row].tolist())
        added: list[int] = []
        rest = ranked.candidate[ranked.indptr[row] : ranked.indptr[row + 1]].tolist()
        for candidate in chain(rest, popular(self.scope, lists.eligible)):
            if length + len(added) >= lists.requests.k:
                break
            if candidate not in taken:
                taken.add(candidate)
                added.append(candidate)
        return added
