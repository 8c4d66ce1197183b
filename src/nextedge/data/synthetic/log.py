"""What a round of events leaves behind, in buffers that are written out and used again."""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from nextedge.data.synthetic.draw import next_uniform
from nextedge.types import IndexArray, IntArray

ACTION_NONE, ACTION_ACCEPT, ACTION_DISMISS, ACTION_CLICK = -1, 0, 1, 2
ACTION_NAMES = ("accept", "dismiss", "click")

LISTS_PER_VISIT = 3
POSITION_BIAS = 0.7
"""Exponent of the examination probability position^−bias."""


class Output(NamedTuple):
    """Buffers of one round; ``filled`` counts edges, impressions, blocks and lists."""

    source: IndexArray
    target: IndexArray
    time: IntArray
    viewer: IndexArray
    shown: IndexArray
    shown_at: IntArray
    action: npt.NDArray[np.int8]
    acted_at: IntArray
    position: npt.NDArray[np.int16]
    list_number: IntArray
    blocker: IndexArray
    other: IndexArray
    blocked_at: IntArray
    filled: IntArray


@numba.njit(cache=True, nogil=True)
def examined(state, position):  # type: ignore[no-untyped-def]
    """Whether the list is read as far as this position (from 1)."""
    return next_uniform(state) < np.float64(position) ** -POSITION_BIAS


@numba.njit(cache=True, nogil=True)
def log_impression(output, viewer, shown, time, position, action, acted):  # type: ignore[no-untyped-def]
    """Add one shown row to the buffers."""
    row = output.filled[1]
    output.viewer[row], output.shown[row], output.shown_at[row] = viewer, shown, time
    output.action[row], output.acted_at[row] = action, acted
    output.position[row], output.list_number[row] = position, output.filled[3]
    output.filled[1] += 1
