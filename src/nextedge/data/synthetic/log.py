"""The buffers of a round of events, which are written out and used again."""

from __future__ import annotations

from typing import Any, NamedTuple

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
_BLOCKS = 10_000
_IMPRESSION = (np.int32, np.int32, np.int64, np.int8, np.int64, np.int16, np.int64)


class Output(NamedTuple):
    """Buffers of one round; ``filled`` counts edges, impressions, blocks and lists.

    An edge is a connection, or an interaction with the ``event`` of its kind.
    """

    source: IndexArray
    target: IndexArray
    time: IntArray
    event: npt.NDArray[np.int8]
    viewer: IndexArray
    candidate: IndexArray
    listed_at: IntArray
    action: npt.NDArray[np.int8]
    acted_at: IntArray
    position: npt.NDArray[np.int16]
    list_number: IntArray
    blocker: IndexArray
    other: IndexArray
    blocked_at: IntArray
    filled: IntArray

    @classmethod
    def of_size(cls, edges: int, impressions: int) -> Output:
        """Empty buffers; pages that no event writes to take no memory."""

        def buffers(size: int, *kinds: type[np.generic]) -> list[npt.NDArray[Any]]:
            return [np.empty(size, kind) for kind in kinds]

        rows = buffers(edges, np.int32, np.int32, np.int64, np.int8)
        rows += buffers(impressions, *_IMPRESSION)
        rows += buffers(_BLOCKS, np.int32, np.int32, np.int64)
        return cls._make([*rows, np.zeros(4, np.int64)])


@numba.njit(cache=True, nogil=True)
def examined(state, position):  # type: ignore[no-untyped-def]
    """Whether the viewer looks at this position of the list (from 1)."""
    return next_uniform(state) < np.float64(position) ** -POSITION_BIAS


@numba.njit(cache=True, nogil=True)
def log_impression(output, viewer, candidate, time, position, action, acted):  # type: ignore[no-untyped-def]
    """Add one impression to the buffers."""
    row = output.filled[1]
    output.viewer[row], output.candidate[row], output.listed_at[row] = viewer, candidate, time
    output.action[row], output.acted_at[row] = action, acted
    output.position[row], output.list_number[row] = position, output.filled[3]
    output.filled[1] += 1
