"""Moments of degree distributions: the cost of two-hop walks grows with the second one.

A two-hop walk from every user passes Σ degree² wedges. The mean degree alone says little, because
hubs make most of the work in a skewed graph. Walks do not pass nodes above the hub cap.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nextedge.errors import InputError
from nextedge.types import IntArray

_POINTS = 20_000
_HALVINGS = 80


@dataclass(frozen=True)
class Degrees:
    """Moments of the degrees of all users.

    Attributes:
        mean, second: means of degree and of degree².
        walked: mean over all users of degree², where only nodes up to the hub cap count.
        largest: largest degree to expect.
        said: the distribution in words.
    """

    mean: float
    second: float
    walked: float
    largest: float
    said: str

    @property
    def neighbors(self) -> float:
        """Mean degree of a user's connections: E[d²] / E[d]."""
        return self.second / self.mean if self.mean else 0.0


def counted(
    degree: npt.NDArray[Any],
    hub_cap: float = 0,
    said: str = "as counted",
    mean: float | None = None,
    weight: npt.NDArray[np.float64] | None = None,
) -> Degrees:
    """Moments of known degrees, scaled to another mean where one is given.

    >>> counted(np.array([1, 2, 9]), hub_cap=5, mean=8.0).walked
    6.666666666666667

    Raises:
        InputError: all degrees are 0, and ``mean`` is not.
    """
    scaled = np.asarray(degree, np.float64)
    counted_mean = float(np.average(scaled, weights=weight))
    if mean is not None:
        if mean and not counted_mean:
            raise InputError(f"--degree {mean:g}: the degrees {said} are all 0")
        factor = mean / counted_mean if mean else 0.0
        scaled, said = scaled * factor, f"{said}, scaled by {factor:.3g}"
    square = scaled**2
    second = float(np.average(square, weights=weight))
    walked = np.average(np.where(scaled <= (hub_cap or np.inf), square, 0.0), weights=weight)
    largest = float(scaled.max())
    return Degrees(counted_mean if mean is None else mean, second, float(walked), largest, said)


def lognormal(mean: float, users: float, hub_cap: float = 0) -> Degrees:
    """Log-normal degrees of σ = 1, cut at ``users`` - 1.

    >>> round(lognormal(10.0, 1e9).second / 100, 2)
    2.72
    """
    if mean <= 0:
        return Degrees(0.0, 0.0, 0.0, 0.0, "no connections")
    # The mean of a log-normal of σ = 1 is e^(μ + 1/2).
    center, most = math.log(mean) - 0.5, max(users - 1.0, 1.0)
    degree = np.linspace(center - 8, min(center + 8, math.log(most)), _POINTS)
    weight = (
        np.exp(-((degree - center) ** 2) / 2) / math.sqrt(2 * math.pi) * (degree[1] - degree[0])
    )
    square = weight * np.exp(degree) ** 2
    # no degrees of this mean have a smaller second moment than equal ones
    second = max(float(square.sum()), mean**2)
    walked = float(square[np.exp(degree) <= hub_cap].sum()) if hub_cap else second
    # Among n normal draws the largest is about √(2 ln n) σ above the mean.
    largest = min(math.exp(center + math.sqrt(2 * math.log(max(users, 2.0)))), most)
    return Degrees(mean, second, min(walked, second), largest, "log-normal of σ 1")


def power_law(mean: float, users: float, exponent: float, hub_cap: float = 0) -> Degrees:
    """Degrees of density ∝ d^-exponent, cut at √(mean · users) and at ``users`` - 1.

    Raises:
        InputError: the exponent is not above 1, or no such distribution has the mean.
    """
    if not (math.isfinite(exponent) and exponent > 1):
        raise InputError(f"--degree-exponent {exponent:g}: expected more than 1, such as 2.5")
    if mean <= 0:
        return Degrees(0.0, 0.0, 0.0, 0.0, "no connections")
    # beyond this cut-off a graph of given expected degrees needs double edges (Chung, Lu 2002)
    largest = min(math.sqrt(mean * users), users - 1.0)
    if mean >= largest:
        raise InputError(
            f"--degree {mean:g} is not below the cut-off {largest:g} of a power law among "
            f"{users:,.0f} users: give fewer connections, or leave out --degree-exponent"
        )
    said = f"power law of exponent {exponent:g}, cut at {largest:,.0f}"

    def above(least: float) -> Degrees:
        degree = np.geomspace(least, largest, _POINTS)
        # Points lie in proportion to d, so a density of d^-e weighs d^(1 - e).
        return counted(degree, hub_cap, said, weight=(degree / least) ** (1 - exponent))

    low, high = largest * 1e-12, mean
    if (smallest := above(low).mean) > mean:
        raise InputError(
            f"--degree {mean:g}: a power law of exponent {exponent:g} up to its cut-off "
            f"{largest:,.0f} has {smallest:.3g} or more; give a larger --degree-exponent, or none"
        )
    for _ in range(_HALVINGS):  # of the smallest degree, which decides the mean
        middle = math.sqrt(low * high)  # geometric: the bounds are many decades apart
        low, high = (middle, high) if above(middle).mean < mean else (low, middle)
    return above(low)


def read_degrees(path: Path) -> IntArray:
    """int64[N] of the ``degree`` column of a Parquet file, one row a user.

    Raises:
        InputError: the file is missing, has no such column, or holds no valid degrees.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        values = pq.read_table(path, columns=["degree"]).column("degree").to_numpy()
        values = values.astype(np.float64)
    except FileNotFoundError:
        raise InputError(f"--degrees {path}: no such file") from None
    except (KeyError, ValueError, OSError, pa.ArrowException):
        raise InputError(
            f"--degrees {path}: expected a Parquet file with a column 'degree' of whole numbers"
        ) from None
    if not len(values) or not np.isfinite(values).all() or (values < 0).any():
        raise InputError(f"--degrees {path}: expected at least one degree, all of 0 or more")
    return np.asarray(values, np.int64)
