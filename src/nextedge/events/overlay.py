"""The overlay: what has changed since the release, folded out of the event log.

Every process keeps its own copy and catches up by position before it answers, so that what
was acknowledged by any process is seen by the next request of every process.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable

from nextedge.events.event import Event
from nextedge.events.log import LocalLog
from nextedge.events.stated import restated
from nextedge.types import MICROSECONDS_PER_DAY, Identifier

_KEPT_SHOWN = 2000


def _key(identifier: Identifier | None) -> str:
    return str(identifier)


class Overlay:
    """Live state by user id (as text): connected, dismissed, blocked, opted out, shown."""

    def __init__(self, log: LocalLog) -> None:
        self.log = log
        self.position = 0
        self.connected: dict[str, set[str]] = defaultdict(set)
        self.disconnected: dict[str, set[str]] = defaultdict(set)
        self.dismissed: dict[tuple[str, str], set[str]] = defaultdict(set)
        self.blocked: dict[str, set[str]] = defaultdict(set)
        self.interacted: dict[str, set[str]] = defaultdict(set)
        self.opted_out: set[str] = set()
        self.opted_in: set[str] = set()
        self.unavailable: set[str] = set()
        self.stated: dict[str, dict[str, tuple[str, ...]]] = {}
        self.shown: dict[tuple[str, str], list[tuple[int, str]]] = defaultdict(list)
        self._versions: dict[str, int] = {}
        self._shown_versions: dict[str, int] = {}
        self._epoch = 0
        self._lock = threading.Lock()
        self._seen = threading.local()

    def catch_up(self) -> None:
        """Fold in every event that was recorded since the last call, by any process."""
        changes = self.log.changes()
        if getattr(self._seen, "changes", None) == changes:
            return
        with self._lock:
            for position, event in self.log.read(self.position):
                self._apply(event)
                self.position = position
        self._seen.changes = changes

    def version(self, user_id: Identifier, *, shown: bool = False) -> tuple[int, int, int]:
        """Differs after any event that may change what a user may be shown.

        Args:
            shown: impressions count too.
        """
        user = _key(user_id)
        seen = self._shown_versions.get(user, 0) if shown else 0
        return self._epoch, self._versions.get(user, 0), seen

    def _apply(self, event: Event) -> None:
        handler = _HANDLERS.get(event.type)
        if handler is not None:
            handler(self, event)
        if event.type in _FOR_ALL:
            self._epoch += 1
            return
        versions = self._shown_versions if event.type == "impression" else self._versions
        for identifier in (event.user_id, event.candidate_id):
            if identifier is not None:
                user = _key(identifier)
                versions[user] = versions.get(user, 0) + 1

    def _connect(self, event: Event) -> None:
        a, b = _key(event.user_id), _key(event.candidate_id)
        for left, right in ((a, b), (b, a)):
            self.connected[left].add(right)
            self.disconnected[left].discard(right)

    def _disconnect(self, event: Event) -> None:
        a, b = _key(event.user_id), _key(event.candidate_id)
        for left, right in ((a, b), (b, a)):
            self.connected[left].discard(right)
            self.disconnected[left].add(right)

    def _block(self, event: Event) -> None:
        a, b = _key(event.user_id), _key(event.candidate_id)
        self.blocked[a].add(b)
        self.blocked[b].add(a)

    def _unblock(self, event: Event) -> None:
        a, b = _key(event.user_id), _key(event.candidate_id)
        self.blocked[a].discard(b)
        self.blocked[b].discard(a)

    def _dismiss(self, event: Event) -> None:
        kind, target = _target(event)
        self.dismissed[kind, _key(event.user_id)].add(target)

    def _interact(self, event: Event) -> None:
        if event.item_id is not None:
            self.interacted[_key(event.user_id)].add(_key(event.item_id))

    def _impression(self, event: Event) -> None:
        kind, target = _target(event)
        shown = self.shown[kind, _key(event.user_id)]
        shown.append((event.micros, target))
        del shown[:-_KEPT_SHOWN]

    def _opt_out(self, event: Event) -> None:
        self.opted_out.add(_key(event.user_id))

    def _opt_in(self, event: Event) -> None:
        self.opted_out.discard(_key(event.user_id))

    def _profile_update(self, event: Event) -> None:
        user = _key(event.user_id)
        self.stated[user] = restated(self.stated.get(user, {}), event.model_extra or {})

    def _item_unavailable(self, event: Event) -> None:
        self.unavailable.add(_key(event.item_id))

    def _item_available(self, event: Event) -> None:
        self.unavailable.discard(_key(event.item_id))

    def hidden_from(self, kind: str, user_id: Identifier) -> set[str]:
        """Ids that must not be shown to a user, other than those of the release."""
        user = _key(user_id)
        hidden = self.dismissed[kind, user].copy() if (kind, user) in self.dismissed else set()
        if kind == "people":
            hidden |= self.connected.get(user, set()) | self.blocked.get(user, set())
            return hidden | self.opted_out
        return hidden | self.interacted.get(user, set()) | self.unavailable

    def shown_since(self, kind: str, user_id: Identifier, now: int, days: float) -> set[str]:
        """Ids shown to a user in the last ``days``."""
        since = now - int(days * MICROSECONDS_PER_DAY)
        shown = self.shown.get((kind, _key(user_id)), [])
        return {target for micros, target in shown if micros >= since}


def _target(event: Event) -> tuple[str, str]:
    if event.item_id is not None:
        return "items", _key(event.item_id)
    return "people", _key(event.candidate_id)


_FOR_ALL = frozenset({"opt_out", "opt_in", "item_available", "item_unavailable"})
"""Events that may change anyone's list."""
_HANDLERS: dict[str, Callable[[Overlay, Event], None]] = {
    "connect": Overlay._connect,
    "accept": Overlay._connect,
    "disconnect": Overlay._disconnect,
    "block": Overlay._block,
    "unblock": Overlay._unblock,
    "dismiss": Overlay._dismiss,
    "interact": Overlay._interact,
    "impression": Overlay._impression,
    "opt_out": Overlay._opt_out,
    "opt_in": Overlay._opt_in,
    "item_unavailable": Overlay._item_unavailable,
    "item_available": Overlay._item_available,
    "profile_update": Overlay._profile_update,
}
