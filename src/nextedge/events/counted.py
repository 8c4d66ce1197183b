"""The facts that real-time features count, out of the events, for every release to take its part of.

A release has counted the facts up to its own ``as_of``. What it adds of these is what is later, by
the time of the fact, so that nothing counts twice. A fact that arrives late, older than ``as_of``
and after the build, is missed until the next build.
"""

from __future__ import annotations

import threading
from typing import Any, NamedTuple

from nextedge.events.event import Event
from nextedge.events.fold import Fold
from nextedge.features.counters import CONNECT, INTERACT

FACTS = {"connect": CONNECT, "accept": CONNECT, "interact": INTERACT}
"""Events that are facts, and of which kind."""
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


class CountedFacts(Fold):
    """The latest facts in the order of their arrival.

    A connection counts once, at the time it was made last, while it lasts and is not hidden.
    """

    name = "counted"

    def __init__(self) -> None:
        self._facts: list[Fact] = []
        self._first = 0
        self._lock = threading.Lock()
        self._made: dict[tuple[str, str], int] = {}
        self._hidden: dict[tuple[str, str], set[str]] = {}
        self._counted: dict[tuple[str, str], int] = {}

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
        if event.type == "interact":
            self._add(Fact(INTERACT, event.micros, str(event.user_id), str(event.item_id)))
            return
        if event.type not in _OF_PAIRS:
            return
        by, other = str(event.user_id), str(event.candidate_id)
        pair = (by, other) if by < other else (other, by)
        if event.type in ("connect", "accept"):
            self._made[pair] = event.micros
        elif event.type == "disconnect":
            self._made.pop(pair, None)
        elif event.type == "hide_connection":
            self._hidden.setdefault(pair, set()).add(by)
        else:
            self._hidden.get(pair, set()).discard(by)
        self._settle(pair)

    def _settle(self, pair: tuple[str, str]) -> None:
        """Count a pair as it stands now."""
        before = self._counted.pop(pair, None)
        now = None if self._hidden.get(pair) else self._made.get(pair)
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
            "made": [[*pair, time] for pair, time in self._made.items()],
            "hidden": [[*pair, sorted(by)] for pair, by in self._hidden.items() if by],
            "counted": [[*pair, time] for pair, time in self._counted.items()],
        }

    def load(self, dumped: dict[str, Any]) -> None:
        """Take over what ``dump`` gave."""
        self._facts = [Fact(*each) for each in dumped["facts"]]
        self._first = dumped["first"]
        self._made = {(a, b): time for a, b, time in dumped["made"]}
        self._hidden = {(a, b): set(by) for a, b, by in dumped["hidden"]}
        self._counted = {(a, b): time for a, b, time in dumped["counted"]}


_OF_PAIRS = frozenset({"connect", "accept", "disconnect", "hide_connection", "unhide_connection"})
