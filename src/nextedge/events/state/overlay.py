"""The overlay: what has changed since the release, folded out of the event log.

Every process keeps its own copy and catches up by position before it answers, so that what
was acknowledged by any process is seen by the next request of every process. It begins with
the newest snapshot that fits the log, and folds only what was recorded after it.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from nextedge.errors import LiveStateError
from nextedge.events.event import Event
from nextedge.events.state.facts import FoldedState, text
from nextedge.events.projections.projection import new_projections
from nextedge.events.logs.log import BEGINNING, LiveLog
from nextedge.events.schemas import EVENTS
from nextedge.types import MICROSECONDS_PER_DAY, Identifier

if TYPE_CHECKING:
    from nextedge.events.state.checkpoint import Snapshots

_NOBODY: frozenset[str] = frozenset()
_STRANGER = ""  # no table holds an empty id
_NARROWING = frozenset(name for name, each in EVENTS.items() if each.narrows)
_FOR_ALL = frozenset(name for name, each in EVENTS.items() if each.widens)


class Overlay(FoldedState):
    """Live state of every user and item, as of the last ``catch_up``; safe for threads.

    Args:
        snapshots: where to begin; None = at the first event of the log.
        shown_days: how long impressions are kept, at least.
    """

    def __init__(
        self, log: LiveLog, snapshots: Snapshots | None = None, shown_days: float = math.inf
    ) -> None:
        super().__init__(shown_days)
        self.log = log
        self.snapshots = snapshots
        self.position = self.previous = BEGINNING
        """Where the last event that was folded stands, and the one before it."""
        self.last_event_id = ""
        self.folded = 0
        """Events folded by this process."""
        self.folds = new_projections()
        self.narrowed: list[tuple[str | None, str | None, str | None]] = []
        """User, other user and item of every event that takes somebody out of others' sight."""
        self.generation: object = None
        """Of the log, as it was folded."""
        self._versions: dict[str, int] = {}
        self._shown_versions: dict[str, int] = {}
        self._epoch = 0
        self._lock = threading.Lock()
        self._seen = threading.local()

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
            if generation != self.generation:
                self._start_over(generation)
            self._replay()
        self._seen.changes = changes

    def _start_over(self, generation: object) -> None:
        """Fold the log anew: events that were folded before may have been erased.

        Another thread sees the old state or the new, part by part, and never an empty one.
        """
        fresh = self.emptied()
        fresh.generation = generation
        if self.snapshots is not None:
            fresh = self.snapshots.loaded(fresh)
        fresh._replay()
        epoch = max(self._epoch, fresh._epoch) + 1
        gone = max(self.gone_version, fresh.gone_version) + 1
        own = {"log", "_lock", "_seen"}
        self.__dict__.update({n: v for n, v in vars(fresh).items() if n not in own})
        self._epoch, self.gone_version = epoch, gone

    def emptied(self) -> Overlay:
        """One of the same log that has folded nothing."""
        return Overlay(self.log, self.snapshots, self.shown_days)

    def _replay(self) -> None:
        for position, event in self.log.read(self.position):
            self._apply(event)
            self.previous, self.position = self.position, position
            self.last_event_id = event.event_id
            self.folded += 1

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
        user = text(user_id)
        seen = self._shown_versions.get(user, 0) if shown else 0
        return self._epoch, self._versions.get(user, 0), seen

    def _apply(self, event: Event) -> None:
        self.add(event)
        for fold in self.folds.values():
            fold.apply(event)
        kind, user, other = event.type, event.user_id, event.candidate_id
        if kind in _FOR_ALL:
            self._epoch += 1
        if kind in _NARROWING:
            user_id, other_id, item_id = (
                None if each is None else text(each) for each in (user, other, event.item_id)
            )
            self.narrowed.append((user_id, other_id, item_id))
        versions = self._shown_versions if kind == "impression" else self._versions
        for identifier in (user, other):
            if identifier is not None:
                name = text(identifier)
                versions[name] = versions.get(name, 0) + 1

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
        return [_STRANGER if text(user) in self.departed else user for user in user_ids]

    def hidden_from(self, kind: str, user_id: Identifier) -> set[str]:
        """Ids that must not be shown to one user, beside those whom nobody is shown."""
        user = text(user_id)
        if user in self.departed:
            return set()
        hidden = self.dismissed[kind, user].copy() if (kind, user) in self.dismissed else set()
        if kind == "people":
            hidden |= self.connected.get(user, set()) | self.disconnected.get(user, set())
            hidden |= self.blocked.of(user) | self.requested.of(user)
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
        user = text(user_id)
        ended = self.disconnected.get(user, _NOBODY)
        return {*self.blocked.of(user), *self.hidden_connections.of(user), *ended}

    def shown_since(self, kind: str, user_id: Identifier, now: int, days: float) -> set[str]:
        """Ids shown to a user in the last ``days``."""
        since = now - int(days * MICROSECONDS_PER_DAY)
        if text(user_id) in self.departed:
            return set()
        shown = self.shown.get((kind, text(user_id)), [])
        return {target for micros, target in shown.copy() if micros >= since}
