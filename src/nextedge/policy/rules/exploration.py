"""Exploration: the last ranks of every list are drawn among candidates with few edges.

Without exploration a candidate with few edges is never shown, and so never gets any. Draws are
uniform among the candidates that may be shown, so that the chance of each is known and logged.
``evaluation.off_policy`` estimates from the log how other policies would do.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from nextedge.config import PolicyConfig
from nextedge.policy.lists import Lists, category_codes
from nextedge.policy.rule import NoConfig, Rule
from nextedge.ranking.pipeline import ranked_as
from nextedge.types import BoolArray, Candidates, IndexArray, Requests

_MICROSECONDS_PER_HOUR = 3_600_000_000


class Exploration(Rule[NoConfig]):
    """Give the last ranks of every list to new candidates, within the caps."""

    name = "exploration"
    order = 50

    @classmethod
    def active(cls, settings: PolicyConfig) -> bool:
        return settings.exploration.slots > 0

    def apply(self, lists: Lists) -> Lists:
        settings, k = self.settings.exploration, lists.requests.k
        chosen, ranked = lists.chosen, lists.ranked
        slots = min(settings.slots, k)
        new = lists.eligible & (self.scope.candidate_degree < settings.fewer_edges_than)
        drawn = []
        for row, (rows, all_rows) in enumerate(zip(chosen.rows(), ranked.rows(), strict=True)):
            taken = chosen.candidate[rows][: k - slots]
            within = self._within_caps(new, taken, slots)
            pool = pool_of(ranked.candidate[all_rows], taken, within, lists.excluded[row], slots)
            drawn.append(draw(lists.requests, row, pool, slots, settings.hours))
        return replace(lists, chosen=with_drawn(chosen, ranked, drawn, k))

    def _within_caps(self, new: BoolArray, taken: IndexArray, slots: int) -> BoolArray:
        """bool[candidates]: new candidates that keep every cap, whatever the other draws are."""
        within = new
        for name, most in self.settings.max_per.items():
            codes = category_codes(self.scope, name)
            used = np.bincount(codes[taken][codes[taken] >= 0], minlength=int(codes.max()) + 1)
            # All draws may have one value, and a check after each would skew their chances.
            full = used + slots > most
            within = within & ~((codes >= 0) & full[codes])
        return within


def draw(
    requests: Requests, row: int, pool: IndexArray, slots: int, hours: float
) -> tuple[IndexArray, float]:
    """At most ``slots`` of the pool in random order, and the chance of each to be at its rank."""
    if len(pool) <= slots:
        return pool, 1.0
    # Seeded by query and period, so that a list does not change as it is read again.
    period = int(requests.now // (hours * _MICROSECONDS_PER_HOUR))
    random = np.random.default_rng(
        [int(requests.query[row]) + 1, period]
    )  # a seed cannot be negative
    drawn = random.choice(np.sort(pool), slots, replace=False)  # whatever the order of the scores
    return drawn, 1.0 / len(pool)  # at its rank; slots / len(pool) would be for any rank


def with_drawn(
    chosen: Candidates, ranked: Candidates, drawn: list[tuple[IndexArray, float]], k: int
) -> Candidates:
    """The head of every list followed by its drawn candidates; k rows where there are as many.

    Args:
        chosen: at most k rows a query, rows of ``ranked``.
        ranked: every row that the policy allows; a drawn candidate that is not among them has
            score 0 and no other columns.
        drawn: per query the drawn candidates and the chance of each.
    """
    lists, chances = [], []
    for rows, (candidates, chance) in zip(chosen.rows(), drawn, strict=True):
        others = chosen.candidate[rows]
        head = others[~np.isin(others, candidates)][: k - len(candidates)]
        lists.append(np.concatenate((head, candidates)))
        chances.append(np.repeat((1.0, chance), (len(head), len(candidates))))
    propensity = np.concatenate(chances).astype(np.float32)
    return ranked_as(ranked, lists).with_columns(propensity=propensity)


def pool_of(
    retrieved: IndexArray, taken: IndexArray, eligible: BoolArray, excluded: IndexArray, slots: int
) -> IndexArray:
    """The candidates to draw from: eligible retrieved ones, or all eligible where those are few.

    Args:
        taken: positions that stay in the list.
        eligible: bool[candidates], whether a candidate is new and may be shown.
        excluded: positions that must not be shown to the query.
    """
    pool = retrieved[eligible[retrieved]]
    pool = pool[~np.isin(pool, taken)]
    if len(pool) >= slots:
        return pool
    pool = np.flatnonzero(eligible).astype(np.int32)
    return pool[~np.isin(pool, np.concatenate((taken, excluded)))]
