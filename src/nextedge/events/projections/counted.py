"""The facts that real-time features count, out of the events, for every release to take its part of.

A release has counted the facts up to its own ``as_of``. What it adds of these is what is later, by
the time of the fact, so that nothing counts twice. A fact that arrives late, older than ``as_of``
and after the build, is missed until the next build.
"""

from __future__ import annotations

import threading
from typing import Any, NamedTuple

from nextedge.events.event import Event
from nextedge.events.interaction import interaction_weight
from nextedge.events.projections.projection import Projection
from nextedge.features.counters import CONNECT, INTERACT


def fact_kind(event: Event) -> str | None:
    """Which kind of fact an event is, None where it is none."""
    if event.type in ("connect", "accept"):
        return CONNECT
    return None if interaction_weight(event) is None else INTERACT


Pair = tuple[str, str]
KEPT = 500_000
"""Facts that are kept at least, the latest: for a release that is loaded later, or a restart."""


class Fact(NamedTuple):
    """One fact, or one that is taken back.

    Attributes:
        sign: 1, or -1 where a connection that was counted ended, was hidden or was made again.
    """

    kind: str
    time: int
    user: str
    other: str
    sign: int = 1


class CountedFacts(Projection):
    """The latest facts in the order of their arrival.

    A connection counts once, at the time it was made last, while it lasts and is not hidden. What
    holds of a pair is as its latest event says, by event time; of two at once the one that narrows.
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
        """Facts since the log began."""
        return self._first + len(self._facts)

    def since(self, number: int) -> tuple[list[Fact], int]:
        """The facts from one number on, as far as they are kept, and the number after them."""
        with self._lock:
            return self._facts[max(number - self._first, 0) :], self.added

    def apply(self, event: Event) -> None:
        """Add what an event tells."""
        if fact_kind(event) == INTERACT:
            self._add(Fact(INTERACT, event.micros, str(event.user_id), str(event.item_id)))
            return
        narrows = _OF_PAIRS.get(event.type)
        if narrows is None:
            return
        by, other = str(event.user_id), str(event.candidate_id)
        pair = (by, other) if by < other else (other, by)
        stamps = self._stamps.setdefault(pair, {})
        of = by if event.type.endswith("hide_connection") else _TIE
        stamps[of] = max(stamps.get(of, 0), 2 * event.micros + narrows)
        self._settle(pair, stamps)

    def _settle(self, pair: Pair, stamps: dict[str, int]) -> None:
        """Count a pair as it stands now: what is odd narrows."""
        before = self._counted.pop(pair, None)
        stands = _TIE in stamps and not any(stamp % 2 for stamp in stamps.values())
        now = stamps[_TIE] // 2 if stands else None
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
            if len(self._facts) > 2 * KEPT:
                self._first += len(self._facts) - KEPT
                del self._facts[:-KEPT]

    def dump(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "facts": [list(fact) for fact in self._facts],
            "first": self._first,
            "stamps": [[*pair, stamps] for pair, stamps in self._stamps.items()],
            "counted": [[*pair, time] for pair, time in self._counted.items()],
        }

    def load(self, dumped: dict[str, Any]) -> None:
        """Take over what ``dump`` gave."""
        self._facts = [Fact(*each) for each in dumped["facts"]]
        self._first = dumped["first"]
        self._stamps = {(a, b): stamps for a, b, stamps in dumped["stamps"]}
        self._counted = {(a, b): time for a, b, time in dumped["counted"]}


_TIE = ""  # no user has an empty id
_OF_PAIRS = {
    "connect": False,
    "accept": False,
    "disconnect": True,
    "hide_connection": True,
    "unhide_connection": False,
}
"""Events of two people, and whether they narrow."""
