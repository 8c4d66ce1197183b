"""The worth of each rank in each source, by which the merge weighs the sources.

Without labels a rank is worth ``1 / (60 + rank)`` in every source (reciprocal rank fusion:
Cormack, Clarke, Büttcher, SIGIR 2009). With labels the worth is measured: the share of label
queries whose candidate at that rank became an edge, made monotone in the rank, as the log odds of
a noisy or (probability fusion: Lillis, Toolan, Collier, Dunnion, SIGIR 2006).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np

from nextedge.graph.csr import Graph
from nextedge.types import Candidates, FloatArray, Requests

FILE = "fusion.npz"
DEPTH = 2048
"""Number of ranks with a separate worth; later ranks have the worth of the last."""
FEWEST_HITS = 100
_FUSION = 60.0
_TIE = np.float32(1e-5)
"""Weight of the reciprocal rank, which orders candidates of equal measured worth."""


@cache
def reciprocal_ranks() -> FloatArray:
    """float32[DEPTH], read-only: 1 / (60 + rank)."""
    worth = (1.0 / (_FUSION + np.arange(1, DEPTH + 1))).astype(np.float32)
    worth.flags.writeable = False  # the cache gives every caller this array
    return worth


@dataclass(frozen=True, eq=False)
class Fusion:
    """float32[DEPTH] for each source: the worth of its ranks; empty = reciprocal ranks."""

    worth: Mapping[str, FloatArray] = field(default_factory=dict)

    def table(self, names: list[str]) -> FloatArray:
        """float32[S, DEPTH] of the named sources, positive."""
        default = reciprocal_ranks()
        if not self.worth:
            return np.tile(default, (len(names), 1))
        # A source without labels only breaks ties: its worth is not comparable to measured ones.
        return np.stack([self.worth.get(name, default * _TIE) for name in names])

    def save(self, file: Path) -> None:
        """Write an ``.npz`` file."""
        np.savez(file, allow_pickle=False, **{n: np.asarray(v) for n, v in self.worth.items()})

    @classmethod
    def load(cls, file: Path) -> Fusion:
        """Read the file of ``save``; without one, return the default."""
        if not file.exists():
            return cls()
        with np.load(file, allow_pickle=False) as arrays:  # a pickle could run code
            return cls({name: arrays[name] for name in arrays.files})


class FusionLearner:
    """Counts the hits of each rank of each source, batch by batch."""

    def __init__(self) -> None:
        self.hits: dict[str, np.ndarray] = {}
        self.lists: dict[str, np.ndarray] = {}

    def add(
        self, requests: Requests, retrieved: Mapping[str, Candidates], positives: Graph
    ) -> None:
        """Count one batch of label queries."""
        for name, part in retrieved.items():
            hit = positives.contains(requests.query[part.row_query], part.candidate)
            # As in the merge, where later ranks have the worth of the last.
            rank = np.minimum(part.position(), DEPTH - 1)
            hits = np.bincount(rank, hit, minlength=DEPTH)
            lists = np.bincount(rank, minlength=DEPTH).astype(np.float64)
            self.hits[name] = self.hits.get(name, 0.0) + hits
            self.lists[name] = self.lists.get(name, 0.0) + lists

    def fusion(self) -> Fusion:
        """Return the worth of every rank; the default if there are too few labels."""
        # A worth measured on a few hits would be noise.
        if sum(float(hits.sum()) for hits in self.hits.values()) < FEWEST_HITS:
            return Fusion()
        return Fusion({name: self._worth(name) for name in self.hits})

    def _worth(self, name: str) -> FloatArray:
        from sklearn.isotonic import IsotonicRegression

        hits, lists = self.hits[name], self.lists[name]
        tie = reciprocal_ranks() * _TIE
        seen = lists > 0
        if not seen.any():
            return tie
        # The cap keeps log1p finite; the clip gives ranks without a label the nearest worth.
        model = IsotonicRegression(y_min=0.0, y_max=0.95, increasing=False, out_of_bounds="clip")
        rank = np.log1p(np.arange(DEPTH, dtype=np.float64))
        # Weighted by lists: few of them reach the deep ranks, whose shares are noisy.
        model.fit(rank[seen], (hits / np.maximum(lists, 1))[seen], sample_weight=lists[seen])
        # The isotonic fit gives many ranks one worth; the tie keeps the order of the source.
        return (-np.log1p(-model.predict(rank)) + tie).astype(np.float32)
