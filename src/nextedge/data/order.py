"""Order statistics of long arrays, without a copy or a sort of the whole array."""

from __future__ import annotations

import numba
import numpy as np

from nextedge.storage.arrays import plain
from nextedge.types import IntArray

_BINS = 1 << 16
_FEW = 1 << 20  # values that are copied and sorted at most


def quantile(values: IntArray, share: float) -> float:
    """``np.quantile(values, share)``, to the last bit."""
    position = share * (len(values) - 1)
    low = int(np.floor(position))
    # NumPy interpolates between these two values.
    around = [kth(values, rank) for rank in (low, min(low + 1, len(values) - 1))]
    # NumPy's own formula, as another one may round the last bit otherwise.
    return float(np.quantile(np.array(around), position - low))


def kth(values: IntArray, rank: int) -> int:
    """The value at a rank (from 0) of the ascending order.

    Counts the values in equal slices of their range, and repeats in the slice of the rank until few
    values remain: O(n) a pass, one or two passes unless many values are equal.
    """
    values = plain(values, np.int64)
    low, high = int(values.min()), int(values.max())
    while low < high:
        width = (high - low) // _BINS + 1
        count = np.zeros(_BINS + 1, np.int64)
        _count(values, low, high, width, count)
        ends = np.cumsum(count)
        slot = int(np.searchsorted(ends, rank, side="right"))
        rank -= int(ends[slot - 1]) if slot else 0
        low, high = low + slot * width, min(low + (slot + 1) * width - 1, high)
        if count[slot] <= _FEW:
            part = np.empty(count[slot], np.int64)
            _take(values, low, high, part)
            return int(np.partition(part, rank)[rank])
    return low


@numba.njit(cache=True, nogil=True)
def _count(values, low, high, width, count):  # type: ignore[no-untyped-def]
    for value in values:
        if low <= value <= high:
            count[(value - low) // width] += 1


@numba.njit(cache=True, nogil=True)
def _take(values, low, high, part):  # type: ignore[no-untyped-def]
    size = 0
    for value in values:
        if low <= value <= high:
            part[size] = value
            size += 1
