"""Fits cost laws, value = a + b · driver^p, to measurements of two sizes or more.

A driver is what the algorithm works through, so p should be 1, and is 1 wherever that describes the
measurements: a small error of an exponent fitted over a factor of four is large at a million times.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nextedge.errors import InputError
from nextedge.planning.coefficients import Law

WELL = 0.10
"""Relative error up to which the exponent 1 describes the measurements."""


def fit_law(
    driver: Sequence[float],
    value: Sequence[float],
    exponent: float | None = None,
    lowest: float = 0.8,
    name: str = "",
) -> Law:
    """The nearest law by relative error.

    Args:
        driver: of each size; above 0, at least two different ones.
        value: the measurements; 0 or more.
        exponent: p; None takes 1 where that is within ``WELL`` of all measurements, and else,
            with three sizes or more, the best from ``lowest`` to 1.1.
        name: of the driver.

    Raises:
        InputError: there are too few sizes, or they are not positive.
    """
    x, y = np.asarray(driver, float), np.asarray(value, float)
    if len(np.unique(x)) < 2 or len(x) != len(y):
        raise InputError(f"a law needs measurements of two sizes or more; found drivers {list(x)}")
    if (x <= 0).any() or (y < 0).any() or not np.isfinite(y).all():
        raise InputError("a law needs drivers above 0 and values of 0 or more")
    p = 1.0 if exponent is None else exponent
    a, b, error = _line(x, y, p)
    if exponent is None and error > WELL and len(np.unique(x)) >= 3:
        powers = np.arange(lowest, 1.105, 0.01)
        a, b, error, p = min(((*_line(x, y, power), power) for power in powers), key=lambda c: c[2])
    return Law(name, a, b, float(p), float(x.max()))


def _line(x: np.ndarray, y: np.ndarray, power: float) -> tuple[float, float, float]:
    """a, b ≥ 0 of least squared relative error, and the largest relative error."""
    weight = 1.0 / np.maximum(y, max(float(y.max()) * 1e-6, 1e-12))
    grown = x**power
    scale = float(grown.max())
    columns = np.stack([np.ones_like(x), grown / scale], axis=1) * weight[:, None]
    best = (np.zeros(2), np.inf)
    for used in ([0, 1], [1], [0]):
        solved = np.zeros(2)
        solved[used] = np.linalg.lstsq(columns[:, used], y * weight, rcond=None)[0]
        off = float(np.sum((columns @ solved - y * weight) ** 2))
        if (solved >= 0).all() and off < best[1] - 1e-15:
            best = solved, off
    error = float(np.max(np.abs(columns @ best[0] - y * weight)))
    return float(best[0][0]), float(best[0][1]) / scale, error
