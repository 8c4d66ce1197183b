"""Sampled negatives (uniform, popular, mined hard), beside those of the batch; and a curriculum."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field, field_validator

from nextedge.graph.csr import Graph
from nextedge.models.distributed.collectives import current_ranks
from nextedge.models.model import ModelConfig
from nextedge.models.neural.full_ranking import Embed, best_columns
from nextedge.models.neural.trainer import EPOCH
from nextedge.types import FloatArray, IndexArray

HARD_A_PAIR = 8
"""Most hard negatives of one pair: the model embeds each of them for this pair alone."""
Kind = Literal["in_batch", "uniform", "popularity", "hard"]


class CurriculumConfig(ModelConfig):
    """The kinds of sampled negatives over the course of the training."""

    stages: tuple[tuple[float, Kind], ...] = ((1.0, "uniform"),)
    """(share of the training at which the stage ends, kind), shares ascending to 1."""
    negatives: int = Field(64, ge=0)
    """Negatives that all pairs of a batch share (uniform, popularity) or that each draws (hard)."""
    popularity_exponent: float = Field(0.75, ge=0)
    hard_pool: tuple[int, int] = (50, 500)
    """Ranks of the model's present lists from which hard negatives come; higher ranks are often
    edges that the data lacks (Huang et al., KDD 2020, section 3.2)."""

    @field_validator("stages")
    @classmethod
    def _ascending(cls, stages: tuple[tuple[float, Kind], ...]) -> tuple[tuple[float, Kind], ...]:
        shares = [share for share, _ in stages]
        if not shares or shares != sorted(shares) or shares[0] <= 0 or shares[-1] != 1.0:
            raise ValueError(f"shares {shares}: expected ascending, above 0, the last 1.0")
        return stages

    def kind_at(self, done: float) -> Kind:
        """The kind of negatives once ``done`` (0 to 1) of the training is over."""
        return next((kind for share, kind in self.stages if done < share), self.stages[-1][1])


class Negatives:
    """Samples negatives from the candidates of a graph."""

    def __init__(self, graph: Graph, config: CurriculumConfig) -> None:
        self.graph, self.config = graph, config
        weight = graph.target_degree.astype(np.float64) ** config.popularity_exponent
        # With exponent 0 a candidate without edges has 0 ** 0 = 1.
        weight[graph.target_degree == 0] = 0.0
        self._cumulative = np.cumsum(weight)
        self._present = np.flatnonzero(graph.target_degree).astype(np.int32)
        self._pools: IndexArray | None = None
        self._pools_epoch = -1

    def draw(
        self, query: IndexArray, batch: int, done: float, embed: Embed, seed: int
    ) -> IndexArray:
        """int32[N] shared by a batch, or int32[B, n] by query, of the curriculum's kind.

        Args:
            query: int32[B].
            batch: its seed, which contains its epoch.
            done: share of the training that is over, 0 to 1.
            embed: called when hard negatives are mined.
        """
        # A generator of each batch: all processes, and a resumed training, sample the same.
        random = np.random.default_rng([seed, batch, 7])
        kind = self.config.kind_at(done)
        if kind == "hard":
            return self.hard(query, batch // EPOCH, embed, random)
        return self.shared(kind, random)

    def shared(self, kind: Kind, random: np.random.Generator) -> IndexArray:
        """int32[N] candidates for a whole batch; none for ``in_batch`` and ``hard``."""
        count = self.config.negatives
        if kind == "uniform":
            return random.choice(self._present, count)
        if kind == "popularity":
            draw = random.random(count) * self._cumulative[-1]
            # From the left, a draw on a bound could stop at a candidate of weight 0.
            return np.searchsorted(self._cumulative, draw, side="right").astype(np.int32)
        return np.zeros(0, np.int32)

    def mine(self, query: FloatArray, candidate: FloatArray, block: int = 1024) -> None:
        """Rank the candidates of every query by float32[Q, d] and [N, d]; make the pools of it."""
        low, high = self._pool_ranks()
        pools = np.empty((len(query), high - low), np.int32)
        for start in range(0, len(query), block):
            rows = np.arange(start, min(start + block, len(query)), dtype=np.int32)
            score_QN = query[rows] @ candidate.T
            indptr, known = self.graph.gather(rows)
            # A known edge is no negative.
            score_QN[np.repeat(np.arange(len(rows)), np.diff(indptr)), known] = -np.inf
            if high < score_QN.shape[1]:
                order_QN = best_columns(score_QN, high)
            else:
                order_QN = np.argsort(-score_QN, axis=1, kind="stable")
            pools[rows] = order_QN[:, low:high]
        self._pools = pools

    def _mine_once(self, embed: Embed) -> None:
        # The first rank mines for all: all must draw the same negatives.
        ranks = current_ranks()
        if ranks.first:
            self.mine(*embed())
        else:
            low, high = self._pool_ranks()
            self._pools = np.empty((len(self.graph), high - low), np.int32)
        assert self._pools is not None
        self._pools = ranks.from_first(self._pools)

    def _pool_ranks(self) -> tuple[int, int]:
        low, high = self.config.hard_pool
        high = min(high, self.graph.targets)
        # A catalogue smaller than the pool's first rank still gives one rank.
        return min(low, max(high - 1, 0)), high

    def hard(
        self, query: IndexArray, epoch: int, embed: Embed, random: np.random.Generator
    ) -> IndexArray:
        """int32[B, n] from the pools of the queries, which are mined anew in every epoch."""
        if self._pools_epoch != epoch:
            self._mine_once(embed)
            self._pools_epoch = epoch
        assert self._pools is not None
        count = min(HARD_A_PAIR, self.config.negatives) if self._pools.shape[1] else 0
        rank = random.integers(0, max(self._pools.shape[1], 1), (len(query), count))
        return np.take_along_axis(self._pools[query], rank, axis=1)
