"""Degree distributions: how many two-hop paths a graph has follows from their second moment.

A two-hop walk from everybody passes Σ deg² wedges, so the mean degree alone says little: where
degrees are as skewed as in social networks, hubs make most of the work. ``hub_cap`` leaves out
the nodes above it as middles of a walk, and with them their deg².
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nextedge.errors import InputError
from nextedge.types import IntArray

SIGMA = 1.0
"""Spread of the log-normal that is taken where nothing is said of the distribution."""
_HALVINGS = 100
_MET = 1.001
"""Times the mean that was asked for, within which a law's own is it."""


@dataclass(frozen=True)
class Degrees:
    """Moments of the degrees of all users.

    Attributes:
        mean: neighbours of a user.
        second: mean of deg².
        walked: mean of deg² over all users, of those nodes that ``hub_cap`` lets walks pass.
        largest: highest degree that is expected.
        said: the distribution in words.
    """

    mean: float
    second: float
    walked: float
    largest: float
    said: str

    @property
    def neighbors(self) -> float:
        """Connections of a user's connections, on average: E[d²] / E[d]."""
        return self.second / self.mean if self.mean else 0.0


def lognormal(mean: float, users: float, hub_cap: float = 0, sigma: float = SIGMA) -> Degrees:
    """Log-normal degrees, none above ``users`` − 1: E[d²; d ≤ c] = mean² e^σ² Φ((ln c − μ − 2σ²)/σ).

    Where the mean comes near to ``users``, so much is cut that E[d²] is taken to be mean², the
    least that any degrees of that mean have.

    >>> round(lognormal(10.0, 1e9).second / 100, 3)
    2.718
    """
    if mean <= 0:
        return Degrees(0.0, 0.0, 0.0, 0.0, "no connections")
    centre = math.log(mean) - sigma**2 / 2

    def second_below(cap: float) -> float:
        return mean**2 * math.exp(sigma**2) * _normal((math.log(cap) - centre) / sigma - 2 * sigma)

    most = max(users - 1.0, 1.0)
    largest = min(math.exp(centre + sigma * math.sqrt(2 * math.log(max(users, 2.0)))), most)
    second = max(second_below(most), mean**2)
    walked = second_below(hub_cap) if 0 < hub_cap < most else second
    return Degrees(mean, second, min(walked, second), largest, f"log-normal of σ {sigma:g}")


def power_law(mean: float, users: float, exponent: float, hub_cap: float = 0) -> Degrees:
    """Degrees of density ∝ d^−exponent up to a cut-off at √(mean · users), at most users − 1.

    The cut-off is where a graph of given expected degrees begins to need double edges (Chung,
    Lu 2002); the smallest degree is what gives the mean.

    Raises:
        InputError: the exponent is not above 1, or no such law has the mean.
    """
    if not (math.isfinite(exponent) and exponent > 1):
        raise InputError(f"--degree-exponent {exponent:g}: expected more than 1, such as 2.5")
    if mean <= 0:
        return Degrees(0.0, 0.0, 0.0, 0.0, "no connections")
    largest = min(math.sqrt(mean * users), users - 1.0)
    if mean >= largest:
        raise InputError(
            f"--degree {mean:g} is not below the cut-off {largest:g} of a power law among "
            f"{users:,.0f} users: give fewer connections, or leave out --degree-exponent"
        )
    low, high = largest * 1e-12, mean
    for _ in range(_HALVINGS):
        middle = math.sqrt(low * high)
        below = _moment(middle, largest, exponent, 1) < mean
        low, high = (middle, high) if below else (low, middle)
    least = _moment(low, largest, exponent, 1)
    if least > mean * _MET:
        raise InputError(
            f"--degree {mean:g}: a power law of exponent {exponent:g} up to its cut-off "
            f"{largest:,.0f} has {least:.3g} or more; give a larger --degree-exponent, or none"
        )
    cap = min(hub_cap or largest, largest)
    return Degrees(
        mean,
        _moment(low, largest, exponent, 2),
        _moment(low, largest, exponent, 2, cap),
        largest,
        f"power law of exponent {exponent:g}, cut at {largest:,.0f}",
    )


def counted(degree: IntArray, hub_cap: float = 0, said: str = "as counted") -> Degrees:
    """Moments of degrees that are known one by one.

    >>> counted(np.array([1, 2, 9]), hub_cap=5).walked
    1.6666666666666667
    """
    if not len(degree):
        return Degrees(0.0, 0.0, 0.0, 0.0, "no connections")
    square = degree.astype(np.float64) ** 2
    walked = np.where(degree <= hub_cap, square, 0.0) if hub_cap else square
    return Degrees(
        float(degree.mean()), float(square.mean()), float(walked.mean()), float(degree.max()), said
    )


def scaled(degree: IntArray, mean: float, hub_cap: float = 0, said: str = "as counted") -> Degrees:
    """The same shape with another mean; ``hub_cap`` is one of the scaled degrees.

    >>> scaled(np.array([1, 2, 9]), 8.0, hub_cap=5).walked
    6.666666666666667

    Raises:
        InputError: all degrees are 0, and the mean is not.
    """
    own = float(degree.mean()) if len(degree) else 0.0
    if mean and not own:
        raise InputError(
            f"--degree {mean:g}: the degrees {said} are all 0, and no factor makes more of them"
        )
    factor = mean / own if own else 0.0
    found = counted(degree, hub_cap / factor if factor else 0.0, said)
    return Degrees(
        mean,
        found.second * factor**2,
        found.walked * factor**2,
        found.largest * factor,
        f"{said}, scaled by {factor:.3g}",
    )


def read_degrees(path: Path) -> IntArray:
    """int64[N] of the ``degree`` column of a Parquet file, one row a user.

    Raises:
        InputError: the file cannot be read, has no such column, or holds no degrees.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        column = pq.read_table(path, columns=["degree"]).column("degree")
        values = column.to_numpy().astype(np.float64)
    except FileNotFoundError:
        raise InputError(f"--degrees {path}: no such file") from None
    except (KeyError, ValueError, OSError, pa.ArrowException):
        raise InputError(
            f"--degrees {path}: expected a Parquet file with a column 'degree' of whole numbers"
        ) from None
    if not len(values) or not np.isfinite(values).all() or (values < 0).any():
        raise InputError(f"--degrees {path}: expected at least one degree, all of 0 or more")
    return np.asarray(values, np.int64)


def _normal(value: float) -> float:
    return 0.5 * math.erfc(-value / math.sqrt(2))


def _moment(
    low: float, high: float, exponent: float, power: int, cap: float | None = None
) -> float:
    """E[d^power; d ≤ cap] of the density ∝ d^−exponent between low and high."""
    end = high if cap is None else max(min(cap, high), low)
    part = _integral(end / low, power - exponent) / _integral(high / low, -exponent)
    return float(low**power * part)


def _integral(ratio: float, power: float) -> float:
    """∫ x^power from 1 to ``ratio``: in units of the lower end, as its powers may be too large."""
    if abs(power + 1) < 1e-9:
        return math.log(ratio)
    return float((ratio ** (power + 1) - 1) / (power + 1))
