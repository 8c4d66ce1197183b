"""The facts that real-time features count, in order of arrival.

A release has counted the facts up to its ``as_of`` and adds only later ones, by the time of the
fact, so that none counts twice. The next build adds facts that arrive late with an earlier time.
"""

from __future__ import annotations

import threading
from typing import Any, NamedTuple

from nextedge.events.event import Event
from nextedge.events.interaction import interaction_weight
from nextedge.events.projections.projection import Projection
from nextedge.features.counters import CONNECT, INTERACT

Pair = tuple[str, str]
KEPT = 500_000  # the latest facts stay, for a release that is loaded later and for a restart
# key of the connection among a pair's stamps; the other keys are user ids, which are not empty
_CONNECTION = ""
# events of a pair, and whether they narrow
_NARROWS = {
    "connect": False,
    "accept": False,
    "disconnect": True,
    "hide_connection": True,
    "unhide_connection": False,
}


class Fact(NamedTuple):
    """One fact; ``sign`` is -1 for a counted connection that ended, was hidden or was made again."""

    kind: str
    time: int
    user: str
    other: str
    sign: int = 1


class CountedFacts(Projection):
    """The latest facts in order of arrival.

    A connection counts once, at the time it was made last, while it lasts and is not hidden.
    """

    name = "counted"

    def __init__(self) -> None:
        self._facts: list[Fact] = []
        self._first = 0
        self._lock = threading.Lock()
        self._stamps: dict[Pair, dict[str, int]] = {}
        self._counted: dict[Pair, int] = {}

    @property
    def added(self) -> int:
        """Number of facts since the log began."""
        return self._first + len(self._facts)

    def since(self, number: int) -> tuple[list[Fact], int]:
        """The stored facts from a number on, and the number after the last one."""
        with self._lock:
            return self._facts[max(number - self._first, 0) :], self.added

    def apply(self, event: Event) -> None:
        if interaction_weight(event) is not None:
            self._add(Fact(INTERACT, event.micros, str(event.user_id), str(event.item_id)))
            return
        narrows = _NARROWS.get(event.type)
        if narrows is None:
            return
        # the latest event decides, by event time, and of two at once the one that narrows
        by, other = str(event.user_id), str(event.candidate_id)
        pair = (by, other) if by < other else (other, by)
        stamps = self._stamps.setdefault(pair, {})
        key = by if event.type.endswith("hide_connection") else _CONNECTION
        stamps[key] = max(stamps.get(key, 0), 2 * event.micros + narrows)
        self._settle(pair, stamps)

    def _settle(self, pair: Pair, stamps: dict[str, int]) -> None:
        """Revoke a pair's fact and add it again if it has changed; odd stamps narrow."""
        before = self._counted.pop(pair, None)
        lasts = _CONNECTION in stamps and not any(stamp % 2 for stamp in stamps.values())
        now = stamps[_CONNECTION] // 2 if lasts else None
        if now is not None:
            self._counted[pair] = now
        if now == before:
            return
        if before is not None:
            self._add(Fact(CONNECT, before, *pair, -1))
        if now is not None:
            self._add(Fact(CONNECT, now, *pair))

    def _add(self, fact: Fact) -> None:
        with self._lock:
            self._facts.append(fact)
            # drops half at a time, so that the copy is rare
            if len(self._facts) > 2 * KEPT:
                self._first += len(self._facts) - KEPT
                del self._facts[:-KEPT]

    def dump(self) -> dict[str, Any]:
        return {
            "facts": [list(fact) for fact in self._facts],
            "first": self._first,
            "stamps": [[*pair, stamps] for pair, stamps in self._stamps.items()],
            "counted": [[*pair, time] for pair, time in self._counted.items()],
        }

    def load(self, dumped: dict[str, Any]) -> None:
        self._facts = [Fact(*row) for row in dumped["facts"]]
        self._first = dumped["first"]
        self._stamps = {(a, b): stamps for a, b, stamps in dumped["stamps"]}
        self._counted = {(a, b): time for a, b, time in dumped["counted"]}
