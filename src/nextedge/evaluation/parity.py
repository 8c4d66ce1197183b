"""Parity: whether a single request has the same candidates and features as a batch.

Training, evaluation and ``recommend --all`` compute features for many queries at once, serving for
one, by the same functions. This check finds any difference by batching, threads, order or caches.
It compares values bit for bit; NaN equals NaN.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nextedge.ranking.pipeline import RankingPipeline
from nextedge.types import FloatArray, Requests


@dataclass(frozen=True)
class Mismatch:
    """A column that differs.

    Attributes:
        column: feature, or ``candidates`` or ``score``.
        rows: number of differing rows.
        largest: the largest absolute difference, NaN where a value was missing on one side.
        query: position of the first differing query.
    """

    column: str
    rows: int
    largest: float
    query: int


@dataclass
class Differences:
    """The differing columns of one surface, and the number of compared rows."""

    surface: str
    rows: int = 0
    mismatches: dict[str, Mismatch] = field(default_factory=dict)

    @property
    def equal(self) -> bool:
        """Whether all rows are equal bit for bit."""
        return not self.mismatches

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            **vars(self),
            "equal": self.equal,
            "mismatches": [
                {
                    **vars(found),
                    # NaN, which differs from itself, is no JSON.
                    "largest": found.largest if found.largest == found.largest else None,
                }
                for found in self.mismatches.values()
            ],
        }

    def add(self, column: str, rows: int, largest: float, query: int) -> None:
        """Add a difference to those of the same column."""
        before = self.mismatches.get(column)
        if before is not None:
            rows, query = rows + before.rows, before.query
            largest = float(np.fmax(largest, before.largest))  # a NaN must not hide a number
        self.mismatches[column] = Mismatch(column, rows, largest, query)

    def compare(self, column: str, one: FloatArray, many: FloatArray, query: int) -> None:
        """Note in how many rows a column differs bit for bit; NaN equals NaN."""
        one, many = np.ascontiguousarray(one), np.ascontiguousarray(many)
        # By bits, because 0.0 == -0.0.
        differing = (one.view(np.int32) != many.view(np.int32)) & ~(np.isnan(one) & np.isnan(many))
        if differing.any():
            apart = np.abs(one[differing].astype(np.float64) - many[differing])
            largest = float(np.nanmax(apart)) if np.isfinite(apart).any() else float("nan")
            self.add(column, int(differing.sum()), largest, query)


@dataclass
class ParityReport(Differences):
    """The comparison of single requests with a batch on one surface."""

    queries: int = 0
    features: int = 0


def check_parity(
    pipeline: RankingPipeline, surface: str, now: int, queries: int = 200, seed: int = 0
) -> ParityReport:
    """Compare seeded queries one by one with the same queries in one batch.

    Args:
        now: microseconds UTC, of both.
    """
    known = np.flatnonzero(pipeline.scope.snapshot.known_users)
    size = min(queries, len(known))
    chosen = np.sort(np.random.default_rng(seed).choice(known, size, replace=False))
    report = ParityReport(surface, queries=size, features=len(pipeline.features.names))
    batch = Requests(chosen.astype(np.int32), now, 20)
    together = pipeline.retrieve(batch)
    matrix, score = pipeline.matrix(batch, together), pipeline.score(batch, together)
    for row, query in enumerate(chosen):
        rows = slice(int(together.indptr[row]), int(together.indptr[row + 1]))
        alone = Requests(np.array([query], np.int32), now, 20)
        found = pipeline.retrieve(alone)
        report.rows += len(found)
        if not np.array_equal(found.candidate, together.candidate[rows]):
            differing = len(np.setxor1d(found.candidate, together.candidate[rows]))
            # The same candidates in another order differ too.
            report.add("candidates", max(differing, 1), float("nan"), int(query))
            continue  # rows of other candidates cannot be compared
        features = pipeline.matrix(alone, found)
        for column, name in enumerate(pipeline.features.names):
            report.compare(name, features[:, column], matrix[rows, column], int(query))
        report.compare("score", pipeline.score(alone, found), score[rows], int(query))
    return report
