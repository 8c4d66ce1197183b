"""The kernel that grows the network event by event, in the order of time.

An event draws an actor: a newcomer, or a user by activity. The actor meets another user by a random
walk of two steps (triadic closure: Leskovec, Backstrom, Kumar and Tomkins, "Microscopic evolution
of social networks", KDD 2008) or in a circle. The more both share, the likelier the meeting becomes
a connection. A logged user acts through a list of recommendations instead: looks at a position with
probability position^−0.7, and accepts, dismisses or ignores the candidate.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from nextedge.data.synthetic.draw import Doubles, next_uniform, search, search_prefix
from nextedge.data.synthetic.log import (
    ACTION_ACCEPT,
    ACTION_DISMISS,
    ACTION_NONE,
    LISTS_PER_VISIT,
    examined,
    log_impression,
)
from nextedge.data.synthetic.network import block, connect, eligible, neighbour
from nextedge.types import BoolArray, IndexArray, IntArray

_SECOND_US = 1_000_000
_NEWCOMER_US = 20.0 * 86_400e6
_LASTING_ZEAL = 0.1
_TRIES = 30
_TRIES_PER_ACTOR = 10
_TRIES_FOR_ZEAL = 16


class Crowd(NamedTuple):
    """Arrays of N people; see ``People``. ``traits``: company, school, city, industry."""

    created: IntArray
    active: int
    # int32[N, 4]: the kernel compares strangers all the time, and a row is one cache miss.
    traits: IndexArray
    skill_bits: npt.NDArray[np.uint64]
    activity: npt.NDArray[np.float32]
    cumulative_activity: Doubles
    activity_guide: IndexArray
    discoverable: BoolArray
    logged: BoolArray


class Rules(NamedTuple):
    """Settings of the kernel; ``closure`` probabilities are interpolated over ``span``."""

    closure_start: float
    closure_end: float
    start: int
    span: int
    newcomer_share: float
    waning_us: float
    homophily: float
    block_share: float
    impression_start: int
    list_length: int
    edge_limit: int


@numba.njit(cache=True, nogil=True, inline="always")
def _bits(value):  # type: ignore[no-untyped-def]
    count = 0
    while value != np.uint64(0):
        value &= value - np.uint64(1)
        count += 1
    return count


@numba.njit(cache=True, nogil=True)
def affinity(crowd, homophily, one, other):  # type: ignore[no-untyped-def]
    """Probability that a meeting becomes a connection: logistic in the common traits."""
    shared = 0
    for half in range(2):
        shared += _bits(crowd.skill_bits[one, half] & crowd.skill_bits[other, half])
    common = (
        1.0 * (crowd.traits[one, 0] == crowd.traits[other, 0])
        + 0.9 * (crowd.traits[one, 1] == crowd.traits[other, 1])
        + 0.5 * (crowd.traits[one, 2] == crowd.traits[other, 2])
        + 0.9 * (crowd.traits[one, 3] == crowd.traits[other, 3])
        + 0.4 * min(shared, 3)
    )
    return 1.0 / (1.0 + np.exp(1.4 - homophily * common))


@numba.njit(cache=True, nogil=True)
def _admit(crowd, communities, network, time):  # type: ignore[no-untyped-def]
    """Add the users who joined by now to their circles."""
    joined = network.counters[0]
    while joined < crowd.active and crowd.created[joined] <= time:
        for kind in range(len(communities.kinds)):
            network.reached[communities.circle[kind, joined]] += 1
        joined += 1
    network.counters[0] = joined


@numba.njit(cache=True, nogil=True)
def _zeal(crowd, rules, one, time):  # type: ignore[no-untyped-def]
    """Zeal of a user: 1 for a newcomer, falling to a lasting level."""
    age = time - max(crowd.created[one], rules.start)
    return _LASTING_ZEAL + (1.0 - _LASTING_ZEAL) * np.exp(-age / rules.waning_us)


@numba.njit(cache=True, nogil=True)
def _actor(crowd, network, rules, time):  # type: ignore[no-untyped-def]
    joined = network.counters[0]
    if next_uniform(network.random) < rules.newcomer_share:
        since = time + np.int64(np.log(1.0 - next_uniform(network.random)) * _NEWCOMER_US)
        newcomer = np.searchsorted(crowd.created[:joined], since) - 1
        if newcomer >= 0 and next_uniform(network.random) < crowd.activity[newcomer]:
            return newcomer
    one = np.int64(0)
    for _ in range(_TRIES_FOR_ZEAL):
        share = next_uniform(network.random)
        one = search_prefix(crowd.cumulative_activity, crowd.activity_guide, joined, share)
        if next_uniform(network.random) < _zeal(crowd, rules, one, time):
            break
    return one


@numba.njit(cache=True, nogil=True)
def _meet(communities, network, one, closure):  # type: ignore[no-untyped-def]
    """A user whom ``one`` meets, or −1: a friend of a friend, or a member of a circle."""
    if network.degree[one] > 0 and next_uniform(network.random) < closure:
        return np.int64(neighbour(network, neighbour(network, one)))
    draw = next_uniform(network.random) * communities.kinds[-1]
    kind = 0
    while communities.kinds[kind] <= draw:
        kind += 1
    circle = communities.circle[kind, one]
    if network.reached[circle] < 2:  # nobody else has joined it yet
        return np.int64(-1)
    first = communities.start[circle]
    share = next_uniform(network.random)
    stop = first + network.reached[circle]
    return np.int64(communities.members[search(communities.cumulative, first, stop, share)])


@numba.njit(cache=True, nogil=True)
def _act(crowd, communities, network, rules, output, one, closure, time):  # type: ignore[no-untyped-def]
    """Meetings, until one becomes a connection (or, rarely, a block)."""
    for attempt in range(_TRIES):
        if attempt and attempt % _TRIES_PER_ACTOR == 0:
            one = _actor(crowd, network, rules, time)
        other = _meet(communities, network, one, closure)
        if other < 0:
            continue
        welcome = 0.25 + 0.75 * _zeal(crowd, rules, other, time)
        fit = affinity(crowd, rules.homophily, one, other)
        # ``eligible`` scans a row, and most meetings fail before: it comes last.
        if next_uniform(network.random) < fit * welcome and eligible(network, one, other):
            if next_uniform(network.random) < rules.block_share:
                block(network, output, one, other, time)
            else:
                connect(network, output, one, other, time)
            return


@numba.njit(cache=True, nogil=True)
def _compile_list(crowd, communities, network, rules, one, closure, listed, score):  # type: ignore[no-untyped-def]
    """Fill ``listed`` with distinct people, best guess first; returns how many."""
    count = 0
    # Bounded: a user may have fewer eligible candidates than a list.
    for _ in range(4 * rules.list_length):
        if count == rules.list_length:
            break
        other = _meet(communities, network, one, closure)
        if not eligible(network, one, other):
            continue
        if not crowd.discoverable[other] or np.any(listed[:count] == other):
            continue
        guess = affinity(crowd, rules.homophily, one, other) + 0.5 * next_uniform(network.random)
        rank = count
        while rank > 0 and score[rank - 1] < guess:
            listed[rank], score[rank] = listed[rank - 1], score[rank - 1]
            rank -= 1
        listed[rank], score[rank] = other, guess
        count += 1
    return count


@numba.njit(cache=True, nogil=True)
def _visit(crowd, communities, network, rules, output, one, closure, time, listed, score):  # type: ignore[no-untyped-def]
    """Log lists to a logged user, until the user accepts a candidate of one."""
    accepted = 0
    for _ in range(LISTS_PER_VISIT):
        count = _compile_list(crowd, communities, network, rules, one, closure, listed, score)
        now = time
        for rank in range(count):
            action, fit = ACTION_NONE, affinity(crowd, rules.homophily, one, listed[rank])
            now += np.int64(_SECOND_US * (0.5 + 4.0 * next_uniform(network.random)))
            if examined(network.random, rank + 1):
                if next_uniform(network.random) < 0.5 * fit * fit:
                    action = ACTION_ACCEPT
                    accepted += 1
                    connect(network, output, one, listed[rank], now)
                elif next_uniform(network.random) < 0.12 * (1.0 - fit):
                    action = ACTION_DISMISS
            log_impression(output, one, listed[rank], time, rank + 1, action, now)
        output.filled[3] += count > 0
        if accepted:
            return
        time = now + 20 * _SECOND_US


@numba.njit(cache=True, nogil=True)
def grow(crowd, communities, network, rules, output, times):  # type: ignore[no-untyped-def]
    """Run the events at ``times`` until they end or a buffer is full; returns how many ran."""
    listed, score = np.empty(rules.list_length, np.int64), np.empty(rules.list_length)
    room = LISTS_PER_VISIT * rules.list_length
    for event in range(len(times)):
        if (
            output.filled[0] + room > len(output.source)
            or output.filled[1] + room > len(output.viewer)
            or output.filled[2] == len(output.blocker)
        ):
            return event  # the caller writes the buffers out and continues here
        if network.counters[2] + room > rules.edge_limit:  # the adjacency has no room
            continue
        time = times[event]
        _admit(crowd, communities, network, time)
        if network.counters[0] < 2:
            continue
        elapsed = (time - rules.start) / rules.span
        closure = rules.closure_start + (rules.closure_end - rules.closure_start) * elapsed
        one = _actor(crowd, network, rules, time)
        if crowd.logged[one] and time >= rules.impression_start:
            _visit(crowd, communities, network, rules, output, one, closure, time, listed, score)
        else:
            _act(crowd, communities, network, rules, output, one, closure, time)
    return len(times)
