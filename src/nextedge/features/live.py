"""Counters by position that take one fact at a time, in forward decay."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from nextedge.features.counters import (
    BY_POSITION,
    CONNECT,
    INTERACT,
    ITEM,
    LATEST,
    TASTE,
    USER,
    DecayedCounter,
)
from nextedge.types import IndexArray

_MOST_HALF_LIVES = 256
"""Most half-lives after a landmark; 2^256 is far below the largest float64."""


class Decaying:
    """One counter of ``size`` positions; one writer at a time, any number of readers."""

    def __init__(self, counter: DecayedCounter, size: int, landmark: int) -> None:
        self.counter = counter
        # All values have one landmark: a fact changes one number, and a read of many values is one
        # array operation. The machine allocates no memory for pages of zeros that nothing writes.
        self._state: tuple[npt.NDArray[np.float64], int] = (np.zeros(size), landmark)

    def add(self, position: int, time: int, weight: float) -> None:
        """Count one fact."""
        values, landmark = self._state
        # The landmark moves on before the numbers grow too large. Readers see the old pair or the
        # new one, since a new array replaces both at once.
        if (time - landmark) / self.counter.half_life > _MOST_HALF_LIVES:
            values, landmark = values * self.counter.factor(landmark, time), time
            self._state = values, landmark
        values[position] += weight * self.counter.factor(time, landmark)

    def read(self, positions: IndexArray, clock: int) -> npt.NDArray[np.float64]:
        """float64[n]: the values as of an instant."""
        values, landmark = self._state
        return values[positions] * self.counter.factor(landmark, clock)


class LiveCounters:
    """The real-time features of events later than ``as_of``, by the positions of one release.

    Args:
        users, items: numbers of both.
        category: int32[items], code of each item, -1 for none; or None.
        as_of: microseconds; the release counts the events up to then.
    """

    def __init__(self, users: int, items: int, category: IndexArray | None, as_of: int) -> None:
        self.as_of = self.clock = as_of
        self._category = category
        self._counters = {
            counter.name: Decaying(counter, items if counter.key == (ITEM,) else users, as_of)
            for counter in BY_POSITION
        }
        self._taste: dict[int, dict[int, tuple[float, int]]] = {}
        self._latest: dict[int, list[tuple[int, int]]] = {}
        self._facts: dict[int, int] = {}

    def tick(self, time: int) -> None:
        """Set the clock to the time of a fact, of a known user or not."""
        # Events may arrive late: the clock never runs back.
        self.clock = max(self.clock, time)

    def interact(self, user: int, item: int, time: int) -> None:
        """Count one interaction; a position below 0 is unknown."""
        # An item that is newer than the release still counts for its user's activity.
        if item >= 0:
            self._add((ITEM,), INTERACT, item, time, 1)
        if user < 0:
            return
        self._add((USER,), INTERACT, user, time, 1)
        latest = [*self._latest.get(user, ()), (time, item)]
        # A new list, since readers may hold the old one; ties by item, as in ``LatestOf``.
        self._latest[user] = sorted(latest, reverse=True)[: LATEST.n]
        if item >= 0 and self._category is not None and self._category[item] >= 0:
            self._like(user, int(self._category[item]), time)

    def _like(self, user: int, code: int, time: int) -> None:
        tastes = self._taste.setdefault(user, {})
        value, landmark = tastes.get(code, (0.0, time))
        # A late fact fades to the landmark, which never moves back: values cannot overflow.
        later = max(time, landmark)
        weight = TASTE.weights[INTERACT] * TASTE.factor(time, later)
        tastes[code] = value * TASTE.factor(landmark, later) + weight, later

    def connect(self, ends: Sequence[int], time: int, sign: int) -> None:
        """Count one connection at both ends, or subtract it (``sign`` -1)."""
        for user in ends:
            if user >= 0:
                self._add((USER,), CONNECT, user, time, sign)

    def _add(self, key: tuple[str, ...], kind: str, position: int, time: int, sign: int) -> None:
        for decaying in self._counters.values():
            counter = decaying.counter
            if counter.key == key and kind in counter.weights:
                decaying.add(position, time, sign * counter.weights[kind])
        if key == (USER,):
            self._facts[position] = self._facts.get(position, 0) + 1

    def counts(self, name: str, positions: IndexArray, clock: int) -> npt.NDArray[np.float64]:
        """See ``LiveCounts.counts``."""
        return self._counters[name].read(positions, clock)

    def taste(self, user: int, clock: int) -> dict[int, float]:
        """See ``LiveCounts.taste``."""
        # A copy of the items, since another thread may add one meanwhile.
        tastes = list(self._taste.get(user, {}).items())
        return {code: value * TASTE.factor(since, clock) for code, (value, since) in tastes}

    def latest(self, user: int) -> list[tuple[int, int]]:
        """See ``LiveCounts.latest``."""
        return self._latest.get(user, [])

    def version(self, user: int) -> int:
        """See ``LiveCounts.version``: the number of facts of a user."""
        return self._facts.get(user, 0)
