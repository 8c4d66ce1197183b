"""The overlay: what has changed since the release, folded out of the event log.

Every process keeps its own copy and catches up by position before it answers, so that what
was acknowledged by any process is seen by the next request of every process.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from nextedge.errors import LiveStateError
from nextedge.events.event import Event
from nextedge.events.fold import new_folds
from nextedge.events.log import BEGINNING, LiveLog
from nextedge.events.stated import restated
from nextedge.types import MICROSECONDS_PER_DAY, Identifier

_KEPT_SHOWN = 2000
_NOBODY: frozenset[str] = frozenset()


def _key(identifier: Identifier | None) -> str:
    return str(identifier)


class Standing:
    """Pairs that hold for both people as long as either of them keeps them up."""

    def __init__(self) -> None:
        self._kept: set[tuple[str, str]] = set()
        self._others: dict[str, set[str]] = {}

    def __len__(self) -> int:
        return len(self._others)

    def add(self, by: str, other: str) -> None:
        """``by`` puts the pair up."""
        self._kept.add((by, other))
        self._others.setdefault(by, set()).add(other)
        self._others.setdefault(other, set()).add(by)

    def remove(self, by: str, other: str) -> None:
        """``by`` takes back what they put up; what the other one did stands."""
        self._kept.discard((by, other))
        if (other, by) not in self._kept:
            self._others.get(by, set()).discard(other)
            self._others.get(other, set()).discard(by)

    def pairs(self) -> list[tuple[str, str]]:
        """All pairs, by whom they were put up."""
        return sorted(self._kept)

    def of(self, user: str) -> frozenset[str] | set[str]:
        """Everybody who is in a pair with a user."""
        return self._others.get(user, _NOBODY)


class Overlay:
    """Live state by user id (as text): connected, dismissed, blocked, opted out, gone, shown."""

    def __init__(self, log: LiveLog) -> None:
        self.log = log
        self._forget_all()
        self._epoch = 0
        self.gone_version = 0
        self._lock = threading.Lock()
        self._seen = threading.local()

    def _forget_all(self) -> None:
        self.position = BEGINNING
        self.folds = new_folds()
        self.connected: dict[str, set[str]] = defaultdict(set)
        self.disconnected: dict[str, set[str]] = defaultdict(set)
        self.dismissed: dict[tuple[str, str], set[str]] = defaultdict(set)
        self.blocked = Standing()
        self.hidden_connections = Standing()
        self.interacted: dict[str, set[str]] = defaultdict(set)
        self.opted_out: set[str] = set()
        self.departed: set[str] = set()
        self.unavailable: set[str] = set()
        self.stated: dict[str, dict[str, tuple[str, ...]]] = {}
        self.shown: dict[tuple[str, str], list[tuple[int, str]]] = defaultdict(list)
        self._versions: dict[str, int] = {}
        self._shown_versions: dict[str, int] = {}
        self.narrowed: list[tuple[str | None, str | None, str | None]] = []
        """User, other user and item of every event that takes somebody out of others' sight."""
        self._generation: object = None

    def catch_up(self, *, quick: bool = False) -> None:
        """Fold in every event that was recorded since the last call, by any process.

        Args:
            quick: as in ``LiveLog.changes``.

        Raises:
            LiveStateError: the log cannot be read; nobody may be shown by what is known here.
        """
        changes = self.log.changes(quick=quick)
        if getattr(self._seen, "changes", None) == changes:
            return
        with self._lock:
            generation = self.log.generation()
            if generation != self._generation:
                self._start_over(generation)
            self._replay()
        self._seen.changes = changes

    def _start_over(self, generation: object) -> None:
        """Fold the whole log anew: events that were folded before may have been erased.

        Another thread sees the old state or the new, part by part, and never an empty one.
        """
        fresh = Overlay(self.log)
        fresh._replay()
        epoch = max(self._epoch, fresh._epoch) + 1
        gone = max(self.gone_version, fresh.gone_version) + 1
        own = {"log", "_lock", "_seen"}
        self.__dict__.update({n: v for n, v in vars(fresh).items() if n not in own})
        self._epoch, self._generation, self.gone_version = epoch, generation, gone

    def _replay(self) -> None:
        for position, event in self.log.read(self.position):
            self._apply(event)
            self.position = position

    @contextmanager
    def still(self) -> Iterator[None]:
        """Nothing is folded in meanwhile."""
        with self._lock:
            yield

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
        for fold in self.folds.values():
            fold.apply(event)
        if event.type in _GONE:
            self.gone_version += 1
        if event.type in _FOR_ALL:
            self._epoch += 1
        if event.type in _NARROWING:
            named = (event.user_id, event.candidate_id, event.item_id)
            self.narrowed.append(tuple(None if i is None else _key(i) for i in named))  # type: ignore[arg-type]
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
        self.blocked.add(_key(event.user_id), _key(event.candidate_id))

    def _unblock(self, event: Event) -> None:
        self.blocked.remove(_key(event.user_id), _key(event.candidate_id))

    def _hide_connection(self, event: Event) -> None:
        self.hidden_connections.add(_key(event.user_id), _key(event.candidate_id))

    def _unhide_connection(self, event: Event) -> None:
        self.hidden_connections.remove(_key(event.user_id), _key(event.candidate_id))

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

    def _leave(self, event: Event) -> None:
        self.departed.add(_key(event.user_id))

    def _profile_update(self, event: Event) -> None:
        user = _key(event.user_id)
        self.stated[user] = restated(self.stated.get(user, {}), event.model_extra or {})

    def _item_unavailable(self, event: Event) -> None:
        self.unavailable.add(_key(event.item_id))

    def _item_available(self, event: Event) -> None:
        self.unavailable.discard(_key(event.item_id))

    def current_version(
        self, user_id: Identifier, *, shown: bool = False, quick: bool = False
    ) -> tuple[int, int, int]:
        """The version after catching up; one that never holds where the log cannot be read."""
        try:
            self.catch_up(quick=quick)
        except LiveStateError:
            return -1, -1, -1
        return self.version(user_id, shown=shown)

    @property
    def absent(self) -> set[str]:
        """Everybody who is shown to nobody: opted out, or gone."""
        return self.opted_out | self.departed if self.departed else self.opted_out

    def askers(self, user_ids: Sequence[Identifier]) -> list[Identifier]:
        """The ids for whom is asked, those who are gone as strangers."""
        return [_STRANGER if _key(user) in self.departed else user for user in user_ids]

    def hidden_from(self, kind: str, user_id: Identifier) -> set[str]:
        """Ids that must not be shown to one user, beside those whom nobody is shown."""
        user = _key(user_id)
        if user in self.departed:
            return set()
        hidden = self.dismissed[kind, user].copy() if (kind, user) in self.dismissed else set()
        if kind == "people":
            hidden |= self.connected.get(user, set()) | self.blocked.of(user)
            return hidden | self.hidden_connections.of(user)
        return hidden | self.interacted.get(user, set())

    def gone(self, kind: str) -> set[str]:
        """Ids that nobody is shown; it differs only where ``gone_version`` does."""
        return self.absent if kind == "people" else self.unavailable

    @property
    def severs(self) -> bool:
        """Whether there is anything that could link two people no more."""
        return bool(self.blocked or self.hidden_connections or self.disconnected)

    def severed(self, user_id: Identifier) -> set[str]:
        """Whom a user must not be linked to by any reason: blocked, disconnected or hidden."""
        user = _key(user_id)
        ended = self.disconnected.get(user, _NOBODY)
        return {*self.blocked.of(user), *self.hidden_connections.of(user), *ended}

    def shown_since(self, kind: str, user_id: Identifier, now: int, days: float) -> set[str]:
        """Ids shown to a user in the last ``days``."""
        since = now - int(days * MICROSECONDS_PER_DAY)
        if _key(user_id) in self.departed:
            return set()
        shown = self.shown.get((kind, _key(user_id)), [])
        return {target for micros, target in shown if micros >= since}


def _target(event: Event) -> tuple[str, str]:
    if event.item_id is not None:
        return "items", _key(event.item_id)
    return "people", _key(event.candidate_id)


_STRANGER = ""  # no table holds an empty id
_NARROWING = frozenset({
    "opt_out", "leave", "item_unavailable", "block", "disconnect", "hide_connection",
})  # fmt: skip
"""Events after which somebody, or a pair, must not be shown or told of to a third person either."""
_FOR_ALL = frozenset({"opt_in", "unblock", "unhide_connection"})
"""Events that may bring somebody back into anyone's list."""
_GONE = frozenset({"opt_out", "opt_in", "leave", "item_available", "item_unavailable"})
_HANDLERS: dict[str, Callable[[Overlay, Event], None]] = {
    "connect": Overlay._connect,
    "accept": Overlay._connect,
    "disconnect": Overlay._disconnect,
    "block": Overlay._block,
    "unblock": Overlay._unblock,
    "hide_connection": Overlay._hide_connection,
    "unhide_connection": Overlay._unhide_connection,
    "dismiss": Overlay._dismiss,
    "interact": Overlay._interact,
    "impression": Overlay._impression,
    "opt_out": Overlay._opt_out,
    "opt_in": Overlay._opt_in,
    "leave": Overlay._leave,
    "item_unavailable": Overlay._item_unavailable,
    "item_available": Overlay._item_available,
    "profile_update": Overlay._profile_update,
}
