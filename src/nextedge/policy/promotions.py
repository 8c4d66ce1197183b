"""Promotions: a share of the places of every list is for candidates that the tenant promotes.

They are the promoted that rank best for the query, then the most popular of them, at places
spread evenly over the list. They are marked, so that nobody takes them for an honest rank.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain, islice

PROMOTED = "promoted"
"""Column: 1 where the row is at its place because it is promoted."""


def promoted_to_show(ranked: Iterable[int], others: Iterable[int], slots: int) -> list[int]:
    """At most ``slots`` promoted candidates: the best ranked first, then the best of the others."""
    return list(islice(dict.fromkeys(chain(ranked, others)), slots))


def spread(promoted: list[int], organic: list[int], k: int, slots: int) -> list[int]:
    """One list of both, at most k: every (k / slots)-th place is for a promoted candidate.

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
