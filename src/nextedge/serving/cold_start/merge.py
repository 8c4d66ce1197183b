"""Seeds: candidates of live state with their evidence, merged before the ranked candidates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from nextedge.policy.reasons import Reason
from nextedge.ranking.pipeline import SCORE, blank_of
from nextedge.types import Candidates, FloatArray, IndexArray, IntArray


@dataclass(frozen=True)
class SeedEvidence:
    """The candidates that one kind of evidence gives to one user.

    Attributes:
        source: its name in a recommendation's ``sources``.
        candidate: int32[n], distinct positions.
        score: float64[n], above 0.
        reason: the reason of a candidate, by its position.
    """

    source: str
    candidate: IndexArray
    score: np.ndarray
    reason: Callable[[int], Reason]


@dataclass(frozen=True, eq=False)
class Seeded:
    """The candidates that live state gives to one user.

    Attributes:
        candidate: int32[n], best first.
        score: float32[n], descending: the sum over all evidence.
        evidence: the strongest first.
    """

    candidate: IndexArray
    score: FloatArray
    evidence: tuple[SeedEvidence, ...] = ()

    def sources(self, candidate: int) -> tuple[str, ...]:
        """Names of the evidence for a candidate, the strongest first."""
        return tuple(kind.source for kind in self.evidence if candidate in kind.candidate)

    def reason(self, candidate: int) -> Reason | None:
        """The reason of the strongest evidence for a candidate."""
        strongest = next((kind for kind in self.evidence if candidate in kind.candidate), None)
        return None if strongest is None else strongest.reason(candidate)


NOTHING = Seeded(np.zeros(0, np.int32), np.zeros(0, np.float32))


@dataclass(frozen=True, eq=False)
class SeededBatch:
    """``Seeded`` for each query of a batch, None for queries with an edge in the release."""

    seeds: tuple[Seeded | None, ...]

    def applies(self, row: int) -> bool:
        """Whether a query has no edge in the release."""
        return self.seeds[row] is not None

    def live(self, row: int) -> bool:
        """Whether live state gave a candidate to a query."""
        seed = self.seeds[row]
        return seed is not None and bool(seed.evidence)

    def merged(self, ranked: Candidates) -> Candidates:
        """The seeds, then the other ranked candidates; seeds score above the best of these."""
        if not any(seed is not None and len(seed.candidate) for seed in self.seeds):
            return ranked
        positions, candidates, scores = [], [], []
        for seed, rows in zip(self.seeds, ranked.rows(), strict=True):
            candidate, score = ranked.candidate[rows], ranked.columns[SCORE][rows]
            added, size = NOTHING if seed is None else seed, len(candidate)
            order = np.argsort(candidate, kind="stable")
            at = np.searchsorted(candidate[order], added.candidate)
            at = order[np.minimum(at, max(size - 1, 0))] if size else np.zeros_like(at)
            # a seed that is ranked too keeps the columns of its ranked row
            both = candidate[at] == added.candidate if size else np.zeros(len(at), bool)
            rest = np.flatnonzero(~np.isin(candidate, added.candidate))
            row = np.concatenate((np.where(both, rows.start + at, -1), rows.start + rest))
            positions.append(row)
            candidates.append(np.concatenate((added.candidate, candidate[rest])))
            scores.append(np.concatenate((_above(score, added.score), score[rest])))
        return _gathered(ranked, positions, candidates, scores)

    def reasons(self, chosen: Candidates, reasons: list[Reason]) -> list[Reason]:
        """The reasons of the chosen candidates, replaced by the seeds' own where there are any."""
        out = list(reasons)
        for seed, rows in zip(self.seeds, chosen.rows(), strict=True):
            if seed is None:
                continue
            for row in range(rows.start, rows.stop):
                out[row] = seed.reason(int(chosen.candidate[row])) or out[row]
        return out

    def sources(self, row: int, candidate: int) -> tuple[str, ...]:
        """Names of the evidence for a candidate of one query."""
        seed = self.seeds[row]
        return () if seed is None else seed.sources(candidate)


def _above(ranked: FloatArray, seeds: FloatArray) -> FloatArray:
    """Scores of seeds between the best ranked and 1, or beyond the best where it is above 1."""
    best = float(np.nanmax(ranked, initial=0.0))
    share = seeds / (seeds.max(initial=0.0) + 1)
    above: FloatArray = (best + share * (1 - best if best < 1 else 1)).astype(np.float32)
    return above


def _gathered(
    ranked: Candidates,
    positions: list[IntArray],
    candidates: list[IndexArray],
    scores: list[FloatArray],
) -> Candidates:
    """The rows of ``ranked`` at the positions, blank at -1."""
    position = np.concatenate(positions)
    columns = {}
    for name, values in ranked.columns.items():
        columns[name] = np.full(len(position), blank_of(name, values), values.dtype)
        columns[name][position >= 0] = values[position[position >= 0]]
    columns[SCORE] = np.concatenate(scores)
    indptr = np.concatenate(([0], np.cumsum([len(candidate) for candidate in candidates])))
    return Candidates(indptr, np.concatenate(candidates).astype(np.int32), columns)
