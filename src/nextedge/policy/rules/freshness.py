"""Freshness: scores of older candidates decay."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from nextedge.config import PolicyConfig
from nextedge.policy.lists import Lists
from nextedge.policy.rule import NoConfig, Rule
from nextedge.ranking.pipeline import SCORE
from nextedge.types import MICROSECONDS_PER_DAY


class Freshness(Rule[NoConfig]):
    """Halve the score of a candidate with each half-life since its creation."""

    name = "freshness"
    order = 10

    @classmethod
    def active(cls, settings: PolicyConfig) -> bool:
        return settings.freshness_half_life_days is not None

    def apply(self, lists: Lists) -> Lists:
        half_life = self.settings.freshness_half_life_days
        created = self.scope.candidate_attributes.instant("created_at")
        if half_life is None or created is None:
            return lists
        ranked = lists.ranked
        born = created[ranked.candidate]
        # 0 is a missing time: such a candidate does not decay.
        days = np.where(born > 0, (lists.requests.now - born) / MICROSECONDS_PER_DAY, 0.0)
        # A creation time ahead of the request would raise the score.
        faded = ranked.columns[SCORE] * np.exp2(-np.maximum(days, 0.0) / half_life)
        ranked = ranked.with_columns(**{SCORE: faded.astype(np.float32)}).sorted_by(SCORE)
        return replace(lists, ranked=ranked)
