"""Metrics by slices of the queries: cold and warm, and the buckets of degree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nextedge.errors import InputError
from nextedge.evaluation._ragged import FloatArray, IntArray
from nextedge.evaluation.bootstrap import (
    DEFAULT_BOOTSTRAP,
    BootstrapConfig,
    Interval,
    bootstrap_intervals,
)

COLD_BELOW = 5
DEGREE_BUCKETS = ("0", "1-4", "5-19", "20-99", "100+")
_DEGREE_STARTS = np.array([0, 1, 5, 20, 100])


@dataclass(frozen=True, slots=True)
class SliceMetrics:
    """The metrics of one slice, and how many of its queries could be measured."""

    queries: int
    metrics: dict[str, Interval]


def degree_bucket(degree: IntArray) -> npt.NDArray[np.int64]:
    """Return the place in DEGREE_BUCKETS of each degree.

    >>> [DEGREE_BUCKETS[place] for place in degree_bucket(np.array([0, 4, 5, 250]))]
    ['0', '1-4', '5-19', '100+']
    """
    # A negative degree would get place -1, which is the last bucket.
    if len(degree) and degree.min() < 0:
        raise InputError(f"degree {degree.min()} is negative; expected counts of edges")
    return np.searchsorted(_DEGREE_STARTS, degree, side="right") - 1


def slice_metrics(
    values: Mapping[str, FloatArray],
    degree: IntArray,
    config: BootstrapConfig = DEFAULT_BOOTSTRAP,
    *,
    cold_below: int = COLD_BELOW,
) -> dict[str, SliceMetrics]:
    """Return the means and intervals of the cold (degree < 5) and of the warm queries.

    ``values`` holds ``float64[Q]`` by metric, as ``RankMetrics.named()`` gives; ``degree
    int[Q]`` is the query's number of edges at the time of the features. Raises InputError
    when the lengths differ.
    """
    for name, column_Q in values.items():
        if column_Q.shape != degree.shape:
            raise InputError(
                f"values of {name!r} have shape {column_Q.shape} and degree {degree.shape}; "
                "give one of each a query"
            )
    cold_Q = degree < cold_below
    return {
        slice_name: _measure(values, chosen_Q, config)
        for slice_name, chosen_Q in (("cold", cold_Q), ("warm", ~cold_Q))
    }


def _measure(
    values: Mapping[str, FloatArray], chosen_Q: npt.NDArray[np.bool_], config: BootstrapConfig
) -> SliceMetrics:
    chosen = {name: column_Q[chosen_Q] for name, column_Q in values.items()}
    measured = [int((~np.isnan(column)).sum()) for column in chosen.values()]
    return SliceMetrics(max(measured, default=0), bootstrap_intervals(chosen, config))
