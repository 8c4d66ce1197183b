"""How often each position of a list is looked at, told from what was shown and taken.

The position-based model: an entry is taken where its position is looked at and it is wanted,
``P(taken) = examination[position] · attraction[candidate]`` (Craswell et al.: "An Experimental
Comparison of Click Position-Bias Models", WSDM 2008), fitted by expectation maximisation
(Wang et al.: "Position Bias Estimation for Unbiased Learning to Rank in Personal Search",
WSDM 2018, section 4.2). A label counts by the inverse of its position's examination (Joachims,
Swaminathan, Schnabel: "Unbiased Learning-to-Rank with Biased Feedback", WSDM 2017).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nextedge.types import BoolArray, FloatArray, IndexArray

FEWEST_TAKEN = 200
"""Below so many taken, the examination of a position is chance."""
FLOOR = 0.1
"""Smallest examination: no label counts for more than ten."""
_ROUNDS = 200
_PRIOR = 20.0
"""Impressions of the mean candidate, and of the mean position, added to each."""


@dataclass(frozen=True, eq=False)
class PositionBias:
    """Attributes: ``positions`` int32[P], ascending; ``examination`` float64[P], the highest 1."""

    positions: IndexArray
    examination: FloatArray

    def inverse(self, position: IndexArray) -> FloatArray:
        """float32[n]: 1 / examination; 1 where the position is not known."""
        # Beyond the last position the search gives an index past the end.
        place = np.minimum(np.searchsorted(self.positions, position), len(self.positions) - 1)
        found = self.positions[place] == position
        return np.where(found, 1.0 / self.examination[place], 1.0).astype(np.float32)

    def to_json(self) -> dict[str, float]:
        """Examination by position."""
        return {
            str(p): round(float(e), 4)
            for p, e in zip(self.positions, self.examination, strict=True)
        }

    @classmethod
    def fit(
        cls, position: IndexArray, candidate: IndexArray, taken: BoolArray
    ) -> PositionBias | None:
        """Fit to impressions; None where positions are missing, are all one, or too few were taken.

        Args:
            position: int32[n], below 0 where not given.
            candidate: int32[n].
            taken: bool[n].

        Cost: ``_ROUNDS`` passes over the impressions.
        """
        given = position >= 0
        position, candidate, taken = position[given], candidate[given], taken[given]
        positions, place = np.unique(position, return_inverse=True)
        if len(positions) < 2 or taken.sum() < FEWEST_TAKEN:
            return None
        _, group = np.unique(candidate, return_inverse=True)
        shown, rows = np.bincount(place), np.bincount(group)
        mean = float(taken.mean())
        examined = np.full(len(positions), 0.5)
        # The product of both starts at the observed rate; above 1 it would be no probability.
        wanted = np.full(len(rows), min(2.0 * mean, 0.95))
        for _ in range(_ROUNDS):
            both = examined[place] * wanted[group]
            # What was not taken was looked at and not wanted, or not looked at.
            missed = 1.0 / np.maximum(1.0 - both, 1e-9)
            seen = np.where(taken, 1.0, examined[place] * (1.0 - wanted[group]) * missed)
            liked = np.where(taken, 1.0, wanted[group] * (1.0 - examined[place]) * missed)
            middle = float(seen.mean())
            examined = (np.bincount(place, seen) + _PRIOR * middle) / (shown + _PRIOR)
            middle = float(liked.mean())
            wanted = (np.bincount(group, liked) + _PRIOR * middle) / (rows + _PRIOR)
        # Clicks tell the product alone: examination is relative to that of the best position.
        relative = examined / examined.max()
        # Attraction that differs by user counts as examination: the floor bounds that error.
        return cls(positions.astype(np.int32), np.maximum(relative, FLOOR))
