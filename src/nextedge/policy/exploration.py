"""Exploration: some places of every list are for candidates of whom little is known yet.

Without it what has few edges is never shown, and so never gets any. The drawn are uniform among
those that may be shown, so that the chance of each is known and can be logged: what other
policies would have earned is then told from the log (``evaluation.off_policy``).
"""

from __future__ import annotations

import numpy as np

from nextedge.ranking.pipeline import ranked_as
from nextedge.types import BoolArray, Candidates, IndexArray, Requests

PROPENSITY = "propensity"
"""Column: the chance with which the row is at its place; 1 where nothing was drawn."""
_MICROSECONDS_PER_HOUR = 3_600_000_000


def draw(
    requests: Requests, row: int, pool: IndexArray, slots: int, hours: float
) -> tuple[IndexArray, float]:
    """At most ``slots`` of the pool in random order, and the chance of each to be at its place.

    A draw holds for its query for ``hours``, so that a list does not change as it is read again.
    """
    if len(pool) <= slots:
        return pool, 1.0
    period = int(requests.now // (hours * _MICROSECONDS_PER_HOUR))
    random = np.random.default_rng([int(requests.query[row]) + 1, period])
    drawn = random.choice(np.sort(pool), slots, replace=False)
    return drawn, 1.0 / len(pool)


def with_drawn(
    chosen: Candidates, ranked: Candidates, drawn: list[tuple[IndexArray, float]], k: int
) -> Candidates:
    """The head of every list followed by what was drawn for it; k rows where there are as many.

    Args:
        chosen: at most k rows a query, rows of ``ranked``.
        ranked: every row that the policy allows; what is drawn but not among them has score 0
            and no other columns.
        drawn: per query the drawn candidates and the chance of each.
    """
    lists, chances = [], []
    for own, (found, chance) in zip(chosen.rows(), drawn, strict=True):
        others = chosen.candidate[own]
        kept = np.concatenate((others[~np.isin(others, found)][: k - len(found)], found))
        lists.append(kept)
        chances.append(np.where(np.arange(len(kept)) < len(kept) - len(found), 1.0, chance))
    propensity = np.concatenate(chances).astype(np.float32)
    return ranked_as(ranked, lists).with_columns(propensity=propensity)


def pool_of(
    retrieved: IndexArray, taken: IndexArray, eligible: BoolArray, excluded: IndexArray, slots: int
) -> IndexArray:
    """Whom to draw from: the eligible among the retrieved, or all of them where those are few.

    Args:
        taken: positions that stay in the list.
        eligible: bool[candidates], who is new and may be shown to anyone.
        excluded: positions that must not be shown to the query.
    """
    pool = retrieved[eligible[retrieved]]
    pool = pool[~np.isin(pool, taken)]
    if len(pool) >= slots:
        return pool
    everyone = np.flatnonzero(eligible).astype(np.int32)
    return everyone[~np.isin(everyone, np.concatenate((taken, excluded)))]
