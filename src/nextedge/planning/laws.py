"""Curves of cost: value = a + b · driver^p, fitted to measurements of at least two sizes.

A driver is what the work is proportional to by its algorithm, so that p should be 1, and is
taken to be 1 wherever that describes the measurements: an exponent that is a little off, fitted
over a range of four, is far off when it is carried on over a range of a million.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nextedge.errors import InputError

WELL = 0.10
"""Relative error up to which the exponent 1 describes what was measured."""
_LOWEST, _HIGHEST, _STEP = 0.8, 1.1, 0.01


@dataclass(frozen=True)
class Law:
    """A fitted curve.

    Attributes:
        a, b, p: of a + b · driver^p; a and b are 0 or more.
        smallest, largest: drivers that were measured.
        sizes: how many.
        exponent: slope of value against driver in log-log, fixed part and all.
        error: largest relative error at a size that was measured.
    """

    a: float
    b: float
    p: float
    smallest: float
    largest: float
    sizes: int
    exponent: float
    error: float

    def at(self, driver: float) -> float:
        """The value for a driver."""
        return self.a + self.grown(driver)

    def grown(self, driver: float) -> float:
        """The value without its fixed part."""
        return self.b * driver**self.p if driver > 0 else 0.0

    def beyond(self, driver: float) -> float:
        """How many times the largest driver that was measured; at least 1."""
        return max(driver / self.largest, 1.0) if self.largest > 0 else 1.0


def fit_law(
    driver: Sequence[float],
    value: Sequence[float],
    exponent: float | None = None,
    lowest: float = _LOWEST,
) -> Law:
    """The law that is nearest to the measurements, by relative error.

    Args:
        driver: of each size; above 0, at least two different ones.
        value: what was measured there; 0 or more.
        exponent: p; None takes 1 where that is within ``WELL`` of all measurements, and else,
            with three sizes or more, the best from ``lowest`` to 1.1.
        lowest: where theory leaves the exponent open, what it may be at least.

    Raises:
        InputError: there are too few sizes, or they are not positive.
    """
    x, y = np.asarray(driver, float), np.asarray(value, float)
    if len(np.unique(x)) < 2 or len(x) != len(y):
        raise InputError(f"a law needs measurements of two sizes or more; found drivers {list(x)}")
    if (x <= 0).any() or (y < 0).any() or not np.isfinite(y).all():
        raise InputError("a law needs drivers above 0 and values of 0 or more")
    a, b, error = _line(x, y, 1.0 if exponent is None else exponent)
    p = 1.0 if exponent is None else exponent
    if exponent is None and error > WELL and len(np.unique(x)) >= 3:
        powers = np.arange(lowest, _HIGHEST + _STEP / 2, _STEP)
        tried = [(*_line(x, y, power), power) for power in powers]
        a, b, error, p = min(tried, key=lambda each: each[2])
    return Law(a, b, float(p), float(x.min()), float(x.max()), len(x), slope(x, y), error)


def slope(driver: Sequence[float] | np.ndarray, value: Sequence[float] | np.ndarray) -> float:
    """Exponent of a power law through the measurements, by least squares of the logarithms."""
    x, y = np.asarray(driver, float), np.maximum(np.asarray(value, float), 1e-12)
    if len(np.unique(x)) < 2:
        return 0.0
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def _line(x: np.ndarray, y: np.ndarray, power: float) -> tuple[float, float, float]:
    """a, b ≥ 0 of least squared relative error, and the largest relative error."""
    weight = 1.0 / np.maximum(y, max(float(y.max()) * 1e-6, 1e-12))
    grown = x**power
    scale = float(grown.max())
    columns = np.stack([np.ones_like(x), grown / scale], axis=1) * weight[:, None]
    best = (0.0, 0.0, np.inf)
    for used in ([0, 1], [1], [0]):
        solved = np.zeros(2)
        solved[used] = np.linalg.lstsq(columns[:, used], y * weight, rcond=None)[0]
        if (solved < 0).any():
            continue
        off = float(np.sum((columns @ solved - y * weight) ** 2))
        if off < best[2] - 1e-15:
            best = (float(solved[0]), float(solved[1]), off)
    a, b = best[0], best[1]
    error = float(np.max(np.abs(columns @ np.array([a, b]) - y * weight)))
    return a, b / scale, error
