"""Order statistics of long arrays, read where they lie: no copy, no sort of all."""

from __future__ import annotations

import numba
import numpy as np

from nextedge.storage.arrays import plain
from nextedge.types import IntArray

_BINS = 1 << 16
_FEW = 1 << 20
"""Values that are copied and sorted at most."""


def quantile(values: IntArray, share: float) -> float:
    """``np.quantile(values, share)``, to the last bit: between the two values next to the place."""
    place = share * (len(values) - 1)
    low = int(np.floor(place))
    around = [kth(values, at) for at in (low, min(low + 1, len(values) - 1))]
    return float(np.quantile(np.array(around), place - low))


def kth(values: IntArray, place: int) -> int:
    """The value at a place (from 0) of the ascending order.

    Counts the values in equal slices of their range, and goes on in the slice that holds the
    place, until few are left: O(n) a pass, and one or two passes unless many values are equal.
    """
    values = plain(values, np.int64)
    low, high = int(values.min()), int(values.max())
    while low < high:
        width = (high - low) // _BINS + 1
        count = np.zeros(_BINS + 1, np.int64)
        _count(values, low, high, width, count)
        ends = np.cumsum(count)
        slot = int(np.searchsorted(ends, place, side="right"))
        place -= int(ends[slot - 1]) if slot else 0
        low, high = low + slot * width, min(low + (slot + 1) * width - 1, high)
        if count[slot] <= _FEW:
            found = np.empty(count[slot], np.int64)
            _take(values, low, high, found)
            return int(np.partition(found, place)[place])
    return low


@numba.njit(cache=True, nogil=True)
def _count(values, low, high, width, count):  # type: ignore[no-untyped-def]
    for value in values:
        if low <= value <= high:
            count[(value - low) // width] += 1


@numba.njit(cache=True, nogil=True)
def _take(values, low, high, found):  # type: ignore[no-untyped-def]
    size = 0
    for value in values:
        if low <= value <= high:
            found[size] = value
            size += 1
