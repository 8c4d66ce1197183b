"""Random numbers that depend on (seed, stream, row) alone, never on the order of the work.

A draw of a row hashes seed, stream and row with SplitMix64 (Steele, Lea and Flood, "Fast splittable
pseudorandom number generators", OOPSLA 2014), so any chunk of rows can be made alone. The kernels
that grow a network event by event carry one SplitMix64 state instead.
"""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

from nextedge.types import IndexArray, IntArray

Doubles = npt.NDArray[np.float64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)
_UNIT = 1.0 / (1 << 53)  # a float64 has 53 random bits


@numba.njit(cache=True, nogil=True, inline="always")
def mix(value):  # type: ignore[no-untyped-def]
    """SplitMix64's finaliser: uint64 → uint64, every input bit reaches every output bit."""
    value = (value ^ (value >> np.uint64(30))) * _FIRST
    value = (value ^ (value >> np.uint64(27))) * _SECOND
    return value ^ (value >> np.uint64(31))


@numba.njit(cache=True, nogil=True, inline="always")
def next_uniform(state):  # type: ignore[no-untyped-def]
    """Advance ``state`` (uint64[1]) and return a float64 in [0, 1)."""
    state[0] += _GOLDEN
    return np.float64(mix(state[0]) >> np.uint64(11)) * _UNIT


@numba.njit(cache=True, nogil=True, inline="always")
def next_below(state, limit):  # type: ignore[no-untyped-def]
    """A whole number in [0, limit)."""
    # A product close to the limit rounds up to it.
    return min(np.int64(next_uniform(state) * limit), np.int64(limit) - 1)


@numba.njit(cache=True, nogil=True)
def search(cumulative, start, stop, share):  # type: ignore[no-untyped-def]
    """A position in [start, stop), drawn by weight.

    ``cumulative[i]`` is the weight before position i; ``share`` is uniform in [0, 1).
    """
    low, high = start, stop - 1
    aim = cumulative[start] + share * (cumulative[stop] - cumulative[start])
    while low < high:
        middle = (low + high + 1) >> 1
        if cumulative[middle] <= aim:
            low = middle
        else:
            high = middle - 1
    return low


def search_guide(cumulative: Doubles) -> IndexArray:
    """int32[len]: for equal steps of the whole weight, the position where each begins."""
    steps = np.linspace(0.0, cumulative[-1], len(cumulative))
    return np.maximum(np.searchsorted(cumulative, steps, side="right") - 2, 0).astype(np.int32)


@numba.njit(cache=True, nogil=True)
def search_prefix(cumulative, guide, stop, share):  # type: ignore[no-untyped-def]
    """``search`` from 0 to ``stop`` in about one step, by its ``search_guide``.

    Chen and Asau, "On generating random variates from an empirical distribution", 1974.
    """
    aim = share * cumulative[stop]
    last = len(guide) - 1
    position = np.int64(guide[min(np.int64(aim / cumulative[last] * last), last)])
    while position + 1 < stop and cumulative[position + 1] <= aim:
        position += 1
    return min(position, stop - 1)


@numba.njit(cache=True, nogil=True)
def _uniform(key, first, out):  # type: ignore[no-untyped-def]
    for number in range(len(out)):
        row = np.uint64(first + number)
        out[number] = np.float64(mix(mix(key + row * _GOLDEN) ^ key) >> np.uint64(11)) * _UNIT


def stream_key(seed: int, stream: str) -> np.uint64:
    """One 64-bit key for a named stream of draws of a seed."""
    words = np.frombuffer(stream.encode().ljust(8 * (len(stream) // 8 + 1), b"\0"), np.uint64)
    key = int(seed)
    for word in words:
        key = _mix_int(key ^ int(word))
    return np.uint64(_mix_int(key + int(_GOLDEN)))


def _mix_int(value: int) -> int:
    value &= (1 << 64) - 1
    value = (value ^ (value >> 30)) * int(_FIRST) & ((1 << 64) - 1)
    value = (value ^ (value >> 27)) * int(_SECOND) & ((1 << 64) - 1)
    return value ^ (value >> 31)


def uniform(seed: int, stream: str, count: int, first: int = 0) -> Doubles:
    """float64[count] in [0, 1): draws ``first … first + count`` of a stream."""
    out = np.empty(count)
    _uniform(stream_key(seed, stream), first, out)
    return out


def normal(seed: int, stream: str, count: int, first: int = 0) -> Doubles:
    """float64[count], standard normal, by Box and Muller."""
    radius = np.sqrt(-2.0 * np.log1p(-uniform(seed, stream + ".radius", count, first)))
    drawn: Doubles = radius * np.cos(2.0 * np.pi * uniform(seed, stream + ".angle", count, first))
    return drawn


def pick(seed: int, stream: str, count: int, weights: Doubles, first: int = 0) -> IntArray:
    """int64[count]: choices among ``len(weights)`` by weight."""
    cumulative = np.cumsum(weights) / np.sum(weights)
    drawn = np.searchsorted(cumulative, uniform(seed, stream, count, first), side="right")
    # The last cumulative weight may round to less than 1.
    return np.minimum(drawn, len(weights) - 1).astype(np.int64)


def zipf(count: int, exponent: float, offset: float = 0.0) -> Doubles:
    """float64[count]: Zipf–Mandelbrot weights (rank + offset)^−exponent, ranks from 1."""
    weights: Doubles = (np.arange(1.0, count + 1.0) + offset) ** -exponent
    weights /= weights.sum()
    return weights


def event_times(
    seed: int, stream: str, total: int, first: int, count: int, grid: IntArray, mass: Doubles
) -> IntArray:
    """int64[count]: moments ``first … first + count`` of ``total``, ascending, µs UTC.

    Stratified inverse transform: event i is at quantile (i + u_i) / total of the intensity whose
    cumulative mass at the ``grid`` moments is ``mass``. So events ascend, and any run of them can be
    made without the others.
    """
    rank = np.arange(first, first + count) + uniform(seed, stream, count, first)
    moments = np.interp(rank / max(total, 1), mass / mass[-1], grid.astype(np.float64) - grid[0])
    times: IntArray = grid[0] + np.floor(moments).astype(np.int64)
    return times
