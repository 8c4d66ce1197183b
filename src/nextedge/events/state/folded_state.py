"""The state of a set of events, in any order; the overlay and builds share it.

The latest event decides a fact, by event time; of two at the same microsecond, the narrowing one.
So a fact that is on or off is one number, its *stamp*: ``2 · micros + (1 if it narrows)``, and the
larger stamp wins. Late, repeated and out-of-order deliveries give the same state. A fact that no
event can revoke (a dismissal, a departure, a purchase) is a member of a set that only grows.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Collection, Hashable, Iterable
from typing import Any, Generic, TypeVar

from nextedge.events.event import Event
from nextedge.events.profile_fields import stated_values
from nextedge.events.schemas import EVENTS
from nextedge.types import MICROSECONDS_PER_DAY, Identifier

Key = TypeVar("Key", bound=Hashable)
Pair = tuple[str, str]
_MOST_IMPRESSIONS = 2000  # the latest of one user and kind: bounds the memory for a user
NO_USERS: frozenset[str] = frozenset()


def text(identifier: Identifier | None) -> str:
    """The key of an id: its text."""
    return str(identifier)


def stamp_of(event: Event, *, narrows: bool) -> int:
    """The stamp of an event."""
    return 2 * event.micros + narrows


def micros_of(stamp: int) -> int:
    """The event time of a stamp."""
    return stamp >> 1


class LastWriteWins(Generic[Key]):
    """Facts that are on (odd stamps) or off, by their latest events."""

    def __init__(self) -> None:
        self.stamps: dict[Key, int] = {}

    def write(self, key: Key, stamp: int) -> bool:
        """Write a stamp if it is later; returns whether the fact has changed."""
        before = self.stamps.get(key)
        if before is not None and before >= stamp:
            return False
        self.stamps[key] = stamp
        return before is None or bool((before ^ stamp) & 1)


class TwoSidedPairs:
    """Pairs that are on for both users while either user has set them."""

    def __init__(self) -> None:
        self._sides: LastWriteWins[Pair] = LastWriteWins()
        self._others: dict[str, set[str]] = {}

    def __len__(self) -> int:
        return len(self._others)

    def write(self, by: str, other: str, stamp: int) -> None:
        """Set or revoke the pair for ``by``; the other user's side stays as it is."""
        if not self._sides.write((by, other), stamp):
            return
        if stamp & 1:
            self._others.setdefault(by, set()).add(other)
            self._others.setdefault(other, set()).add(by)
        elif not self._sides.stamps.get((other, by), 0) & 1:
            _drop(self._others, by, other)
            _drop(self._others, other, by)

    def __contains__(self, side: Pair) -> bool:
        """Whether the pair (by, other) was ever set or revoked."""
        return side in self._sides.stamps

    def pairs(self) -> list[tuple[str, str, int]]:
        """Sorted (by, other, microseconds) of all pairs that are on."""
        sides = self._sides.stamps.items()
        return sorted((by, other, micros_of(stamp)) for (by, other), stamp in sides if stamp & 1)

    def of(self, user: str) -> frozenset[str] | set[str]:
        """All users in a pair with a user."""
        return self._others.get(user, NO_USERS)

    def dump(self) -> list[list[Any]]:
        """Plain JSON values."""
        return [[by, other, stamp] for (by, other), stamp in self._sides.stamps.items()]


def _pair(a: str, b: str) -> Pair:
    return (a, b) if a < b else (b, a)


def _drop(sets: dict[str, set[str]], key: str, member: str) -> None:
    members = sets.get(key)
    if members is not None:
        members.discard(member)
        if not members:  # an empty set a user would stay in memory for ever
            del sets[key]


class FoldedState:
    """State by user id (as text): connections, requests, dismissals, blocks, profiles and so on.

    Args:
        shown_days: drop impressions that are older than the user's latest one by more days.

    Attributes:
        latest_micros: the latest event time.
        gone_version: changes with the users and items that no list may have.
        profiles: values by attribute, by user.
        impressions: (time, id) by kind and user, sorted.
    """

    def __init__(self, shown_days: float = math.inf) -> None:
        self.shown_days = shown_days
        self.connected: dict[str, set[str]] = {}
        self.disconnected: dict[str, set[str]] = {}
        self.dismissed: dict[tuple[str, str], set[str]] = {}
        self.blocked = TwoSidedPairs()
        self.hidden_connections = TwoSidedPairs()
        self.requested = TwoSidedPairs()
        self.interacted: dict[str, set[str]] = {}
        self.opted_out: set[str] = set()
        self.departed: set[str] = set()
        self.unavailable: set[str] = set()
        self.profiles: dict[str, dict[str, tuple[str, ...]]] = {}
        self.impressions: dict[tuple[str, str], list[tuple[int, str]]] = {}
        self.latest_micros: int | None = None
        self.gone_version = 0
        self._pairs: LastWriteWins[Pair] = LastWriteWins()
        self._opted: LastWriteWins[str] = LastWriteWins()
        self._items: LastWriteWins[str] = LastWriteWins()
        self._stated: dict[tuple[str, str], tuple[int, bool, str]] = {}

    @classmethod
    def of(cls, events: Iterable[Event], types: Collection[str] = EVENTS) -> FoldedState:
        """The state of events of some types."""
        state = cls()
        for event in events:
            if event.type in types:
                state.add(event)
        return state

    def add(self, event: Event) -> None:
        """Fold an event; folding it again changes nothing."""
        if self.latest_micros is None or event.micros > self.latest_micros:
            self.latest_micros = event.micros
        handler = _HANDLERS[event.type]
        if handler is not None:
            handler(self, event)

    def connections(self) -> list[tuple[str, str, int]]:
        """Sorted (user, other, microseconds) of all pairs that events connected."""
        pairs = self._pairs.stamps.items()
        return sorted((a, b, micros_of(stamp)) for (a, b), stamp in pairs if not stamp & 1)

    def ended(self) -> set[Pair]:
        """Pairs whose connection has ended, each sorted by text."""
        return {pair for pair, stamp in self._pairs.stamps.items() if stamp & 1}

    def _connect(self, event: Event) -> None:
        self._join(text(event.user_id), text(event.candidate_id), stamp_of(event, narrows=False))

    def _disconnect(self, event: Event) -> None:
        self._join(text(event.user_id), text(event.candidate_id), stamp_of(event, narrows=True))

    def _join(self, a: str, b: str, stamp: int) -> None:
        # to connect and to disconnect both answer the earlier requests of the two
        for by, other in ((a, b), (b, a)):
            if (by, other) in self.requested:
                self.requested.write(by, other, stamp & ~1)
        if not self._pairs.write(_pair(a, b), stamp):
            return
        now, before = self.connected, self.disconnected
        if stamp & 1:
            now, before = before, now
        for left, right in ((a, b), (b, a)):
            now.setdefault(left, set()).add(right)
            _drop(before, left, right)

    def _request(self, event: Event) -> None:
        self._ask(event.user_id, event.candidate_id, stamp_of(event, narrows=True))

    def _withdraw(self, event: Event) -> None:
        self._ask(event.user_id, event.candidate_id, stamp_of(event, narrows=False))

    def _decline(self, event: Event) -> None:
        self._ask(event.candidate_id, event.user_id, stamp_of(event, narrows=False))
        self._dismiss(event)

    def _ask(self, by: Identifier | None, other: Identifier | None, stamp: int) -> None:
        """Put a request up or take it back; a later connection, or end of one, has answered it."""
        a, b = text(by), text(other)
        answered = self._pairs.stamps.get(_pair(a, b))
        self.requested.write(a, b, stamp if answered is None else max(stamp, answered & ~1))

    def _block(self, event: Event) -> None:
        stamp = stamp_of(event, narrows=event.type == "block")
        self.blocked.write(text(event.user_id), text(event.candidate_id), stamp)

    def _hide_connection(self, event: Event) -> None:
        stamp = stamp_of(event, narrows=event.type == "hide_connection")
        self.hidden_connections.write(text(event.user_id), text(event.candidate_id), stamp)

    def _dismiss(self, event: Event) -> None:
        kind, target = target_of(event)
        self.dismissed.setdefault((kind, text(event.user_id)), set()).add(target)

    def _interact(self, event: Event) -> None:
        self.interacted.setdefault(text(event.user_id), set()).add(text(event.item_id))

    def _impression(self, event: Event) -> None:
        if not self.shown_days:
            return
        kind, target = target_of(event)
        impressions = self.impressions.setdefault((kind, text(event.user_id)), [])
        new = event.micros, target
        position = bisect_left(impressions, new)
        if position < len(impressions) and impressions[position] == new:
            return
        impressions.insert(position, new)
        if not math.isinf(self.shown_days):
            oldest = impressions[-1][0] - int(self.shown_days * MICROSECONDS_PER_DAY)
            del impressions[: bisect_left(impressions, (oldest, ""))]
        del impressions[:-_MOST_IMPRESSIONS]

    def _opt(self, event: Event) -> None:
        user, stamp = text(event.user_id), stamp_of(event, narrows=event.type == "opt_out")
        if self._opted.write(user, stamp):
            (self.opted_out.add if stamp & 1 else self.opted_out.discard)(user)
            self.gone_version += 1

    def _leave(self, event: Event) -> None:
        self.departed.add(text(event.user_id))
        self.gone_version += 1

    def _profile_update(self, event: Event) -> None:
        user = text(event.user_id)
        for name, values in stated_values(event.model_extra or {}).items():
            self._state(user, name, (event.micros, not values, event.event_id), values)

    def _state(
        self, user: str, name: str, stamp: tuple[int, bool, str], values: tuple[str, ...]
    ) -> None:
        before = self._stated.get((user, name))
        if before is not None and before >= stamp:
            return
        self._stated[user, name] = stamp
        # replaced as a whole, so that a reading thread sees the old or the new profile
        profile = {**self.profiles.get(user, {}), name: values}
        self.profiles[user] = {name: values for name, values in profile.items() if values}

    def _item_unavailable(self, event: Event) -> None:
        self._offer(event, available=False)

    def _item_available(self, event: Event) -> None:
        self._offer(event, available=True)

    def _item_upsert(self, event: Event) -> None:
        available = event.given("available")
        if available is not None:
            self._offer(event, available=available)

    def _offer(self, event: Event, *, available: bool) -> None:
        item, stamp = text(event.item_id), stamp_of(event, narrows=not available)
        if self._items.write(item, stamp):
            (self.unavailable.add if stamp & 1 else self.unavailable.discard)(item)
            self.gone_version += 1

    def dump(self) -> dict[str, list[Any]]:
        """The state as rows of plain JSON values, in any order."""
        return {
            "pairs": [[a, b, stamp] for (a, b), stamp in self._pairs.stamps.items()],
            "requested": self.requested.dump(),
            "blocked": self.blocked.dump(),
            "hidden_connections": self.hidden_connections.dump(),
            "opted": [[user, stamp] for user, stamp in self._opted.stamps.items()],
            "items": [[item, stamp] for item, stamp in self._items.stamps.items()],
            "departed": [[user] for user in self.departed],
            "dismissed": [[kind, user, sorted(of)] for (kind, user), of in self.dismissed.items()],
            "interacted": [[user, sorted(of)] for user, of in self.interacted.items()],
            "stated": [
                [user, name, *stamp, list(self.profiles.get(user, {}).get(name, ()))]
                for (user, name), stamp in self._stated.items()
            ],
            "shown": [
                [kind, user, [list(impression) for impression in impressions]]
                for (kind, user), impressions in self.impressions.items()
            ],
            "latest": [] if self.latest_micros is None else [[self.latest_micros]],
        }

    def load(self, dumped: dict[str, list[Any]]) -> None:
        """Load the result of ``dump`` into an empty state."""
        for a, b, stamp in dumped["pairs"]:
            self._join(a, b, stamp)
        for name in ("requested", "blocked", "hidden_connections"):
            for by, other, stamp in dumped[name]:
                getattr(self, name).write(by, other, stamp)
        self._opted.stamps = dict(dumped["opted"])
        self.opted_out = {user for user, stamp in dumped["opted"] if stamp & 1}
        self._items.stamps = dict(dumped["items"])
        self.unavailable = {item for item, stamp in dumped["items"] if stamp & 1}
        self.departed = {user for (user,) in dumped["departed"]}
        self.dismissed = {(kind, user): set(of) for kind, user, of in dumped["dismissed"]}
        self.interacted = {user: set(of) for user, of in dumped["interacted"]}
        for user, name, micros, taken_back, event_id, values in dumped["stated"]:
            self._state(user, name, (micros, taken_back, event_id), tuple(values))
        self.impressions = {
            (kind, user): [(micros, target) for micros, target in impressions]
            for kind, user, impressions in dumped["shown"]
        }
        for (micros,) in dumped["latest"]:
            self.latest_micros = micros


def target_of(event: Event) -> tuple[str, str]:
    """Kind (``items`` or ``people``) and id of the target of an event."""
    if event.item_id is not None:
        return "items", text(event.item_id)
    return "people", text(event.candidate_id)


_HANDLERS: dict[str, Callable[[FoldedState, Event], None] | None] = {
    "connect": FoldedState._connect,
    "accept": FoldedState._connect,
    "disconnect": FoldedState._disconnect,
    "request": FoldedState._request,
    "withdraw": FoldedState._withdraw,
    "decline": FoldedState._decline,
    "block": FoldedState._block,
    "unblock": FoldedState._block,
    "hide_connection": FoldedState._hide_connection,
    "unhide_connection": FoldedState._hide_connection,
    "dismiss": FoldedState._dismiss,
    "interact": FoldedState._interact,
    "purchase": FoldedState._interact,
    "impression": FoldedState._impression,
    "click": None,
    "opt_out": FoldedState._opt,
    "opt_in": FoldedState._opt,
    "leave": FoldedState._leave,
    "item_upsert": FoldedState._item_upsert,
    "item_unavailable": FoldedState._item_unavailable,
    "item_available": FoldedState._item_available,
    "profile_update": FoldedState._profile_update,
}
