"""Seeds: candidates that live state gives, each with its evidence, put before what was ranked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from nextedge.policy.reasons import Reason
from nextedge.ranking.pipeline import SCORE, blank_of
from nextedge.types import Candidates, FloatArray, IndexArray, IntArray


@dataclass(frozen=True)
class SeedEvidence:
    """Candidates for one user that one kind of evidence gives.

    Attributes:
        source: its name in a recommendation's ``sources``.
        candidate: int32[n], distinct positions.
        score: float64[n], above 0.
        reason: of a position among the candidates.
    """

    source: str
    candidate: IndexArray
    score: np.ndarray
    reason: Callable[[int], Reason]


@dataclass(frozen=True, eq=False)
class Seeded:
    """What live state recommends to one user.

    Attributes:
        candidate: int32[n], best first; the rank is the place.
        score: float32[n], descending: the sum over all evidence.
        evidence: the strongest first.
    """

    candidate: IndexArray
    score: FloatArray
    evidence: tuple[SeedEvidence, ...] = ()

    def sources(self, candidate: int) -> tuple[str, ...]:
        """Names of the evidence for a candidate, the strongest first."""
        return tuple(each.source for each in self.evidence if candidate in each.candidate)

    def reason(self, candidate: int) -> Reason | None:
        """The strongest evidence for a candidate, in words."""
        found = (each for each in self.evidence if candidate in each.candidate)
        strongest = next(found, None)
        return None if strongest is None else strongest.reason(candidate)


NOTHING = Seeded(np.zeros(0, np.int32), np.zeros(0, np.float32))


@dataclass(frozen=True, eq=False)
class SeededBatch:
    """``Seeded`` for each query of a batch, None for those with an edge in the release."""

    seeds: tuple[Seeded | None, ...]

    def applies(self, row: int) -> bool:
        """Whether a query has no edge in the release, so that live state makes its list."""
        return self.seeds[row] is not None

    def live(self, row: int) -> bool:
        """Whether live state had anything for a query."""
        seed = self.seeds[row]
        return seed is not None and bool(seed.evidence)

    def merged(self, ranked: Candidates) -> Candidates:
        """Seeds before what was ranked; seeds score above the best of those."""
        if not any(seed is not None and len(seed.candidate) for seed in self.seeds):
            return ranked
        places, candidates, scores = [], [], []
        for seed, rows in zip(self.seeds, ranked.rows(), strict=True):
            own, first = ranked.candidate[rows], ranked.columns[SCORE][rows]
            added = NOTHING if seed is None else seed
            order = np.argsort(own, kind="stable")
            at = np.searchsorted(own[order], added.candidate)
            at = order[np.minimum(at, max(len(own) - 1, 0))] if len(own) else np.zeros_like(at)
            met = own[at] == added.candidate if len(own) else np.zeros(len(at), bool)
            rest = np.flatnonzero(~np.isin(own, added.candidate))
            places.append(np.concatenate((np.where(met, rows.start + at, -1), rows.start + rest)))
            candidates.append(np.concatenate((added.candidate, own[rest])))
            scores.append(np.concatenate((_above(first, added.score), first[rest])))
        return _gathered(ranked, places, candidates, scores)

    def reasons(self, chosen: Candidates, given: list[Reason]) -> list[Reason]:
        """The given reasons, with those of seeds in their place."""
        found = list(given)
        for seed, rows in zip(self.seeds, chosen.rows(), strict=True):
            if seed is None:
                continue
            for row in range(rows.start, rows.stop):
                found[row] = seed.reason(int(chosen.candidate[row])) or found[row]
        return found

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
    places: list[IntArray],
    candidates: list[IndexArray],
    scores: list[FloatArray],
) -> Candidates:
    """Rows of ``ranked`` at the places, blank where that is -1."""
    place = np.concatenate(places)
    columns = {}
    for name, values in ranked.columns.items():
        columns[name] = np.full(len(place), blank_of(name, values), values.dtype)
        columns[name][place >= 0] = values[place[place >= 0]]
    columns[SCORE] = np.concatenate(scores)
    indptr = np.concatenate(([0], np.cumsum([len(each) for each in candidates])))
    return Candidates(indptr, np.concatenate(candidates).astype(np.int32), columns)
