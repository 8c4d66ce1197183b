"""Connections: communities, homophily and triadic closure, one edge after another in time."""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

from nextedge.data.synthetic.people import DAY, People

IntArray = npt.NDArray[np.int64]
_MEMORY = 24  # connections of a user that closure draws from


def make_connections(
    people: People, edges: int, days: int, start: int, seed: int
) -> tuple[IntArray, IntArray, IntArray]:
    """Distinct pairs and their times (µs), in order of time.

    Each new edge starts at a user drawn by sociability among those who have joined. Its other
    end closes a wedge (more often as the network ages), or comes from the same company,
    school or city, the same industry, or anywhere.
    """
    users = len(people)
    order = np.argsort(people.joined, kind="stable")
    fraction = np.sort(np.random.default_rng([seed, 2]).beta(1.6, 1.0, edges))
    times = start + (fraction * (days - 1) * DAY).astype(np.int64)
    present = np.searchsorted(people.joined[order], times, side="right")
    weight = np.cumsum(people.sociability[order])
    groups = [
        _members(codes, users)
        for codes in (people.company, people.school, people.city, people.industry)
    ]
    flat = [array for group in groups for array in group]
    codes = np.stack((people.company, people.school, people.city, people.industry))
    source, target, kept = _grow(
        order, present, weight, codes, *flat, people.joined, times, users, seed
    )
    pair = np.minimum(source, target) * users + np.maximum(source, target)
    _, first = np.unique(pair, return_index=True)
    chosen = np.zeros(edges, bool)
    chosen[first] = True
    chosen &= kept
    return source[chosen], target[chosen], times[chosen]


def _members(codes: IntArray, users: int) -> tuple[IntArray, IntArray]:
    """Users of each code, as ragged rows."""
    indptr = np.concatenate(([0], np.cumsum(np.bincount(codes))))
    return indptr.astype(np.int64), np.argsort(codes, kind="stable").astype(np.int64)


@numba.njit(cache=True, nogil=True)
def _grow(  # type: ignore[no-untyped-def]
    order, present, weight, codes, p0, m0, p1, m1, p2, m2, p3, m3, joined, times, users, seed
):
    np.random.seed(seed)
    edges = len(times)
    source = np.zeros(edges, np.int64)
    target = np.zeros(edges, np.int64)
    kept = np.zeros(edges, np.bool_)
    recent = np.full((users, _MEMORY), -1, np.int64)
    degree = np.zeros(users, np.int64)
    for edge in range(edges):
        here = present[edge]
        if here < 2:
            continue
        draw = np.random.random() * weight[here - 1]
        user = order[np.searchsorted(weight[:here], draw)]
        closing = 0.35 + 0.3 * edge / edges
        for _ in range(8):  # until the other end has joined and is no repeat
            kind = np.random.random()
            other = -1
            if kind < closing and degree[user] > 0:
                middle = recent[user, np.random.randint(min(degree[user], _MEMORY))]
                other = recent[middle, np.random.randint(min(degree[middle], _MEMORY))]
            else:
                kind = np.random.random()
                if kind < 0.45:
                    other = _mate(p0, m0, codes[0, user])
                elif kind < 0.70:
                    other = _mate(p1, m1, codes[1, user])
                elif kind < 0.85:
                    other = _mate(p2, m2, codes[2, user])
                elif kind < 0.95:
                    other = _mate(p3, m3, codes[3, user])
                else:
                    draw = np.random.random() * weight[here - 1]
                    other = order[np.searchsorted(weight[:here], draw)]
            if (
                other == user
                or other < 0
                or joined[other] > times[edge]
                or _knows(recent, user, other)
            ):
                continue
            source[edge], target[edge], kept[edge] = user, other, True
            for a, b in ((user, other), (other, user)):
                place = degree[a] if degree[a] < _MEMORY else np.random.randint(_MEMORY)
                recent[a, place] = b
                degree[a] += 1
            break
    return source, target, kept


@numba.njit(cache=True, nogil=True)
def _mate(indptr, members, code):  # type: ignore[no-untyped-def]
    low, high = indptr[code], indptr[code + 1]
    return members[low + np.random.randint(high - low)]


@numba.njit(cache=True, nogil=True)
def _knows(recent, user, other):  # type: ignore[no-untyped-def]
    for place in range(_MEMORY):
        if recent[user, place] == other:
            return True
    return False
