"""The kernel that makes interactions event by event, in the order of time.

An event draws a user by activity, who considers a few items: popular ones, new ones, and recent
choices of friends. The user chooses one by softmax over taste (Gumbel-max: Gumbel 1954), or repeats
an earlier choice. A logged user sometimes reads a list instead: looks at a position with probability
position^−0.7, and clicks by taste.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from nextedge.data.synthetic.draw import Doubles, next_below, next_uniform, search_prefix
from nextedge.data.synthetic.log import (
    ACTION_CLICK,
    ACTION_DISMISS,
    ACTION_NONE,
    examined,
    log_impression,
)
from nextedge.types import BoolArray, IndexArray, IntArray

VIEW, LIKE, PURCHASE = 0, 1, 2
EVENT_NAMES = ("view", "like", "purchase")
EVENT_WEIGHTS = (1.0, 2.0, 5.0)

_CONSIDERED = 8
_FRIENDS, _ARRIVALS, _AGAIN = 0.2, 0.25, 0.12
_NEW_US = 14.0 * 86_400e6
_LIST_SHARE = 0.25
_MINUTE_US = 60_000_000
_SECOND_US = 1_000_000


class Market(NamedTuple):
    """N users, M items, and the latest choices of users: ``recent`` int32[N, 8], −1 for none."""

    user_created: IntArray
    cumulative_activity: Doubles
    activity_guide: IndexArray
    taste: npt.NDArray[np.float32]
    logged: BoolArray
    item_created: IntArray
    cumulative_appeal: Doubles
    appeal_guide: IndexArray
    factor: npt.NDArray[np.float32]
    cells: IndexArray
    start: IntArray
    degree: IndexArray
    recent: IndexArray
    choices: IntArray
    random: npt.NDArray[np.uint64]


class Habits(NamedTuple):
    """Settings of the kernel."""

    taste_strength: float
    impression_start: int
    list_length: int


@numba.njit(cache=True, nogil=True)
def _fit(market, user, item):  # type: ignore[no-untyped-def]
    total = 0.0
    for factor in range(market.taste.shape[1]):
        total += market.taste[user, factor] * market.factor[item, factor]
    return total


@numba.njit(cache=True, nogil=True)
def _recall(market, user):  # type: ignore[no-untyped-def]
    """One of the user's latest choices, or −1."""
    size = min(market.choices[user], market.recent.shape[1])
    if size == 0:
        return np.int64(-1)
    return np.int64(market.recent[user, next_below(market.random, size)])


@numba.njit(cache=True, nogil=True)
def _consider(market, user, time, arrived):  # type: ignore[no-untyped-def]
    """An item that the user considers: a friend's, a new or a popular one."""
    draw = next_uniform(market.random)
    if draw < _FRIENDS and market.degree[user] > 0:
        friend = market.start[user] + next_below(market.random, market.degree[user])
        item = _recall(market, market.cells[friend])
        if item >= 0:
            return item
    elif draw < _FRIENDS + _ARRIVALS:
        since = time + np.int64(np.log(1.0 - next_uniform(market.random)) * _NEW_US)
        item = np.searchsorted(market.item_created[:arrived], since) - 1
        if item >= 0:
            return item
    share = next_uniform(market.random)
    return search_prefix(market.cumulative_appeal, market.appeal_guide, arrived, share)


@numba.njit(cache=True, nogil=True)
def _choose(market, habits, user, time, arrived):  # type: ignore[no-untyped-def]
    if next_uniform(market.random) < _AGAIN:
        item = _recall(market, user)
        if item >= 0:
            return item
    best, best_score = np.int64(-1), -np.inf
    for _ in range(_CONSIDERED):
        item = _consider(market, user, time, arrived)
        # The small number keeps a draw of 0 from an infinite logarithm.
        noise = -np.log(-np.log(next_uniform(market.random) + 1e-300))
        score = habits.taste_strength * _fit(market, user, item) + noise
        if score > best_score:
            best, best_score = item, score
    return best


@numba.njit(cache=True, nogil=True)
def _record(market, output, user, item, time, through_list):  # type: ignore[no-untyped-def]
    """Add an interaction; the better the fit, the likelier a like or a purchase."""
    keen = 1.0 / (1.0 + np.exp(-_fit(market, user, item)))
    draw, event = next_uniform(market.random), VIEW
    if not through_list and draw < 0.12 * keen:
        event = PURCHASE
    elif not through_list and draw < 0.45 * keen:
        event = LIKE
    row = output.filled[0]
    output.source[row], output.target[row], output.time[row] = user, item, time
    output.event[row] = event
    output.filled[0] += 1
    turn = market.choices[user] % market.recent.shape[1]
    market.recent[user, turn] = item
    market.choices[user] += 1


@numba.njit(cache=True, nogil=True)
def _show_list(market, habits, output, user, time, arrived, listed, score):  # type: ignore[no-untyped-def]
    """Log a list of items, best guess first, which the user reads from the top; clicks are views."""
    count = 0
    # Bounded: a small catalogue has too few distinct items for a list.
    for _ in range(3 * habits.list_length):
        if count == habits.list_length:
            break
        item = _consider(market, user, time, arrived)
        if np.any(listed[:count] == item):
            continue
        guess = _fit(market, user, item) + 2.0 * next_uniform(market.random)
        rank = count
        while rank > 0 and score[rank - 1] < guess:
            listed[rank], score[rank] = listed[rank - 1], score[rank - 1]
            rank -= 1
        listed[rank], score[rank] = item, guess
        count += 1
    now = time
    for rank in range(count):
        action, item = ACTION_NONE, listed[rank]
        keen = 1.0 / (1.0 + np.exp(1.5 - habits.taste_strength * _fit(market, user, item)))
        now += np.int64(_SECOND_US * (0.5 + 4.0 * next_uniform(market.random)))
        if examined(market.random, rank + 1):
            if next_uniform(market.random) < 0.5 * keen:
                action = ACTION_CLICK
                _record(market, output, user, item, now, True)
            elif next_uniform(market.random) < 0.06 * (1.0 - keen):
                action = ACTION_DISMISS
        log_impression(output, user, item, time, rank + 1, action, now)
    output.filled[3] += count > 0


@numba.njit(cache=True, nogil=True)
def interact(market, habits, output, times):  # type: ignore[no-untyped-def]
    """Run the events at ``times`` until they end or a buffer is full; returns how many ran."""
    listed, score = np.empty(habits.list_length, np.int64), np.empty(habits.list_length)
    joined, arrived = 0, 0
    # For all rows of an event, which cannot stop in the middle.
    room = habits.list_length + 1
    for event in range(len(times)):
        edges, impressions = output.filled[0] + room, output.filled[1] + room
        if edges > len(output.source) or impressions > len(output.viewer):
            return event  # the caller writes the buffers out and continues here
        time = times[event]
        if event == 0:  # a call begins in the middle of the history
            joined = np.searchsorted(market.user_created, time, side="right")
            arrived = np.searchsorted(market.item_created, time, side="right")
        while joined < len(market.user_created) and market.user_created[joined] <= time:
            joined += 1
        while arrived < len(market.item_created) and market.item_created[arrived] <= time:
            arrived += 1
        if joined == 0 or arrived == 0:
            continue
        share = next_uniform(market.random)
        user = search_prefix(market.cumulative_activity, market.activity_guide, joined, share)
        listing = market.logged[user] and time >= habits.impression_start
        if listing and next_uniform(market.random) < _LIST_SHARE:
            _show_list(market, habits, output, user, time, arrived, listed, score)
        else:
            item = _choose(market, habits, user, time, arrived)
            _record(market, output, user, item, time, False)
    return len(times)
