"""Negatives beyond the batch: uniform, by popularity, and mined hard; and a curriculum of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
from pydantic import Field, field_validator

from nextedge.graph.csr import Graph
from nextedge.models.distributed.collectives import current_ranks
from nextedge.models.model import ModelConfig
from nextedge.models.neural.trainer import EPOCH
from nextedge.types import FloatArray, IndexArray

HARD_A_PAIR = 8
"""Hard negatives of one pair at most: each is embedded for it alone."""
Kind = Literal["in_batch", "uniform", "popularity", "hard"]


class CurriculumConfig(ModelConfig):
    """Which negatives are drawn beside those of the batch, as the training goes on."""

    stages: tuple[tuple[float, Kind], ...] = ((1.0, "uniform"),)
    """(share of the training up to which it holds, kind), shares ascending to 1."""
    negatives: int = Field(64, ge=0)
    """Shared by all pairs of a batch (uniform, popularity), or drawn for each (hard)."""
    popularity_exponent: float = Field(0.75, ge=0)
    hard_pool: tuple[int, int] = (50, 500)
    """Hard negatives are drawn from these ranks of the model's own lists; those ranked
    higher are often edges that are missing (Huang et al., KDD 2020, section 3.2)."""

    @field_validator("stages")
    @classmethod
    def _ascending(cls, stages: tuple[tuple[float, Kind], ...]) -> tuple[tuple[float, Kind], ...]:
        shares = [share for share, _ in stages]
        if not shares or shares != sorted(shares) or shares[0] <= 0 or shares[-1] != 1.0:
            raise ValueError(f"shares {shares}: expected ascending, above 0, the last 1.0")
        return stages

    def kind_at(self, done: float) -> Kind:
        """The kind of negatives when ``done`` (0 to 1) of the training is behind."""
        return next((kind for share, kind in self.stages if done < share), self.stages[-1][1])


class Negatives:
    """Draws of one kind from the candidates of a graph."""

    def __init__(self, graph: Graph, config: CurriculumConfig) -> None:
        self.graph = graph
        self.config = config
        weight = graph.target_degree.astype(np.float64) ** config.popularity_exponent
        weight[graph.target_degree == 0] = 0.0
        self._cumulative = np.cumsum(weight)
        self._present = np.flatnonzero(graph.target_degree).astype(np.int32)
        self._pools: IndexArray | None = None
        self._mined = -1

    def draw(
        self,
        query: IndexArray,
        batch: int,
        done: float,
        embed: Callable[[], tuple[FloatArray, FloatArray]],
        seed: int,
    ) -> IndexArray:
        """int32[N] shared by a batch, or int32[B, n] a query's own, of the schedule's kind.

        Args:
            query: int32[B].
            batch: its seed, which tells its epoch.
            done: how much of the training is behind, 0 to 1.
            embed: the present embeddings of all queries and candidates.
        """
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
            return np.searchsorted(self._cumulative, draw, side="right").astype(np.int32)
        return np.zeros(0, np.int32)

    def mine(self, query: FloatArray, candidate: FloatArray, block: int = 1024) -> None:
        """Find every query's pool of hard negatives by its present embeddings.

        Args:
            query, candidate: float32[Q, d] and [N, d].
        """
        low, high = self._ranks_of_pool()
        pools = np.empty((len(query), high - low), np.int32)
        for start in range(0, len(query), block):
            rows = np.arange(start, min(start + block, len(query)), dtype=np.int32)
            score = query[rows] @ candidate.T
            indptr, known = self.graph.gather(rows)
            score[np.repeat(np.arange(len(rows)), np.diff(indptr)), known] = -np.inf
            if high < score.shape[1]:
                order = np.argpartition(-score, high - 1, axis=1)[:, :high]
            else:
                order = np.tile(np.arange(score.shape[1]), (len(rows), 1))
            value = np.take_along_axis(score, order, axis=1)
            order = np.take_along_axis(order, np.argsort(-value, axis=1, kind="stable"), axis=1)
            pools[rows] = order[:, low:high]
        self._pools = pools

    def _mine_once(self, embed: Callable[[], tuple[FloatArray, FloatArray]]) -> None:
        """Mine on the first rank for all: the pools decide what the ranks compute together."""
        ranks = current_ranks()
        if ranks.first:
            self.mine(*embed())
        else:
            low, high = self._ranks_of_pool()
            self._pools = np.empty((len(self.graph), high - low), np.int32)
        assert self._pools is not None
        self._pools = ranks.from_first(self._pools)

    def _ranks_of_pool(self) -> tuple[int, int]:
        low, high = self.config.hard_pool
        high = min(high, self.graph.targets)
        return min(low, max(high - 1, 0)), high

    def hard(
        self,
        query: IndexArray,
        epoch: int,
        embed: Callable[[], tuple[FloatArray, FloatArray]],
        random: np.random.Generator,
    ) -> IndexArray:
        """int32[B, n] from the queries' pools, which are mined anew in every epoch.

        Args:
            query: int32[B].
            embed: the present embeddings of all queries and candidates.
        """
        if self._mined != epoch:
            self._mine_once(embed)
            self._mined = epoch
        assert self._pools is not None
        count = min(HARD_A_PAIR, self.config.negatives) if self._pools.shape[1] else 0
        place = random.integers(0, max(self._pools.shape[1], 1), (len(query), count))
        return np.take_along_axis(self._pools[query], place, axis=1)
