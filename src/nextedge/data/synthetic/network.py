"""The growing network, for the kernels: rows of neighbours, and blocked pairs."""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from nextedge.data.synthetic.draw import next_below
from nextedge.types import BoolArray, IndexArray, IntArray


class Network(NamedTuple):
    """Growing adjacency: rows of doubling capacity, cut one after another from ``cells``.

    All rows that a user of degree d has had take fewer than 4 d + 4 cells, so 8 E + 4 N cells are
    enough for E edges.

    Attributes:
        start: int64[N], first cell of the row of each user.
        reached: number of users in each circle so far.
        counters: numbers of users, cells, edges and blocks so far.
    """

    cells: IndexArray
    start: IntArray
    degree: IndexArray
    capacity: IndexArray
    reached: IntArray
    blocked: IndexArray
    has_block: BoolArray
    counters: IntArray
    random: npt.NDArray[np.uint64]


@numba.njit(cache=True, nogil=True)
def connected(network, one, other):  # type: ignore[no-untyped-def]
    """Whether two users are connected: scans the shorter of their rows."""
    if network.degree[one] > network.degree[other]:
        one, other = other, one
    first = network.start[one]
    for cell in range(first, first + network.degree[one]):
        if network.cells[cell] == other:
            return True
    return False


@numba.njit(cache=True, nogil=True)
def _append(network, one, other):  # type: ignore[no-untyped-def]
    degree, capacity = network.degree[one], network.capacity[one]
    if degree == capacity:
        old, new = network.start[one], network.counters[1]
        for step in range(degree):
            network.cells[new + step] = network.cells[old + step]
        network.capacity[one] = max(4, 2 * capacity)
        network.counters[1] += network.capacity[one]
        network.start[one] = new
    network.cells[network.start[one] + degree] = other
    network.degree[one] = degree + 1


@numba.njit(cache=True, nogil=True)
def connect(network, output, one, other, time):  # type: ignore[no-untyped-def]
    _append(network, one, other)
    _append(network, other, one)
    row = output.filled[0]
    output.source[row], output.target[row], output.time[row] = one, other, time
    output.filled[0] += 1
    network.counters[2] += 1


@numba.njit(cache=True, nogil=True)
def is_blocked(network, one, other):  # type: ignore[no-untyped-def]
    # Most users have no block, and need no scan of the blocked pairs.
    if not (network.has_block[one] and network.has_block[other]):
        return False
    for row in range(network.counters[3]):
        first, second = network.blocked[row, 0], network.blocked[row, 1]
        if (first == one and second == other) or (first == other and second == one):
            return True
    return False


@numba.njit(cache=True, nogil=True)
def block(network, output, one, other, time):  # type: ignore[no-untyped-def]
    row = network.counters[3]
    if row == len(network.blocked):
        return
    network.blocked[row, 0], network.blocked[row, 1] = one, other
    network.has_block[one] = network.has_block[other] = True
    network.counters[3] += 1
    row = output.filled[2]
    output.blocker[row], output.other[row], output.blocked_at[row] = one, other, time
    output.filled[2] += 1


@numba.njit(cache=True, nogil=True)
def neighbour(network, one):  # type: ignore[no-untyped-def]
    return network.cells[network.start[one] + next_below(network.random, network.degree[one])]


@numba.njit(cache=True, nogil=True)
def eligible(network, one, other):  # type: ignore[no-untyped-def]
    return (
        other >= 0
        and other != one
        and not connected(network, one, other)
        and not is_blocked(network, one, other)
    )
