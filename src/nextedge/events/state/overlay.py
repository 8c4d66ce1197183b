"""The overlay: live state folded from the event log.

Every process has its own overlay and catches up by position before it answers, so the next request
of any process sees every acknowledged event. It starts from the newest checkpoint that fits the log
and folds only the events after it.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from nextedge.data.erased_users import ErasedUsers
from nextedge.errors import LiveStateError
from nextedge.events.event import Event
from nextedge.events.logs.log import LiveLog
from nextedge.events.schemas import EVENTS
from nextedge.events.state.checkpoint import Checkpoints
from nextedge.events.state.folded_log import FoldedLog
from nextedge.events.state.folded_state import NO_USERS, text
from nextedge.types import MICROSECONDS_PER_DAY, Identifier

_STRANGER = ""  # no table holds an empty id
_NARROWING = frozenset(name for name, declared in EVENTS.items() if declared.narrows)
_WIDENING = frozenset(name for name, declared in EVENTS.items() if declared.widens)


class Overlay(FoldedLog):
    """Live state of every user and item, as of the last ``catch_up``; safe for threads.

    Args:
        checkpoints: where to start; None = at the first event of the log.
        shown_days: minimum age of impressions that are dropped.

    Attributes:
        narrowed: user, other user and item of every event that narrows.
    """

    def __init__(
        self, log: LiveLog, checkpoints: Checkpoints | None = None, shown_days: float = math.inf
    ) -> None:
        super().__init__(log, shown_days)
        self.checkpoints = checkpoints
        self.narrowed: list[tuple[str | None, str | None, str | None]] = []
        self._versions: dict[str, int] = {}
        self._impression_versions: dict[str, int] = {}
        self._epoch = 0
        self._lock = threading.Lock()
        self._seen = threading.local()

    def catch_up(self, *, quick: bool = False) -> None:
        """Fold all events that any process recorded since the last call.

        Args:
            quick: as in ``LiveLog.changes``.

        Raises:
            LiveStateError: the log cannot be read; then no user may be recommended.
        """
        changes = self.log.changes(quick=quick)
        if getattr(self._seen, "changes", None) == changes:
            return  # this thread has seen these changes: no lock for most requests
        with self._lock:
            generation = self.log.generation()
            if generation != self.generation:
                self._start_over(generation)
            self.replay()
        self._seen.changes = changes

    def _start_over(self, generation: object) -> None:
        """Fold the log again, because folded events may have been erased."""

        def empty() -> Overlay:
            overlay = self.emptied()
            overlay.generation = generation
            return overlay

        fresh = (self.checkpoints and self.checkpoints.load(empty)) or empty()
        fresh.replay()
        self._keep_hidden(fresh)
        epoch = max(self._epoch, fresh._epoch) + 1
        gone = max(self.gone_version, fresh.gone_version) + 1
        process_state = {"log", "_lock", "_seen"}
        # other threads read meanwhile: each attribute is the old or the new one, never an empty one
        self.__dict__.update({n: v for n, v in vars(fresh).items() if n not in process_state})
        self._epoch, self.gone_version = epoch, gone

    def _keep_hidden(self, fresh: Overlay) -> None:
        # A release with an erased user is served until the next one is loaded, but the user's
        # opt-out and blocks have left the log: such users stay hidden.
        lost = (self.absent | self._versions.keys()) - fresh._versions.keys()
        erased = ErasedUsers(self.checkpoints.directory.parent) if self.checkpoints else ()
        fresh.departed |= {user for user in lost if user in self.departed or user in erased}
        fresh.opted_out |= {user for user in lost if user in self.opted_out}

    def emptied(self) -> Overlay:
        """An overlay of the same log that has folded nothing."""
        return Overlay(self.log, self.checkpoints, self.shown_days)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stop other threads from folding events in the block."""
        with self._lock:
            yield

    def version(self, user_id: Identifier, *, shown: bool = False) -> tuple[int, int, int]:
        """A value that changes with every event that may change a user's recommendations.

        Args:
            shown: impressions count too.
        """
        # ids of HTTP requests are text already, and a cached response needs nothing else of here
        user = user_id if isinstance(user_id, str) else text(user_id)
        seen = self._impression_versions.get(user, 0) if shown else 0
        return self._epoch, self._versions.get(user, 0), seen

    def _apply(self, event: Event) -> None:
        super()._apply(event)
        kind, user, other = event.type, event.user_id, event.candidate_id
        if kind in _WIDENING:
            self._epoch += 1
        if kind in _NARROWING:
            user_id, other_id, item_id = (
                None if identifier is None else text(identifier)
                for identifier in (user, other, event.item_id)
            )
            self.narrowed.append((user_id, other_id, item_id))
        versions = self._impression_versions if kind == "impression" else self._versions
        for identifier in (user, other):
            if identifier is not None:
                name = text(identifier)
                versions[name] = versions.get(name, 0) + 1

    def current_version(
        self, user_id: Identifier, *, shown: bool = False, quick: bool = False
    ) -> tuple[int, int, int]:
        """The version after catching up; one of no cache entry if the log cannot be read."""
        try:
            self.catch_up(quick=quick)
        except LiveStateError:
            return -1, -1, -1
        return self.version(user_id, shown=shown)

    @property
    def absent(self) -> set[str]:
        """Users whom no list may have: opted out or departed."""
        return self.opted_out | self.departed if self.departed else self.opted_out

    def query_ids(self, user_ids: Sequence[Identifier]) -> list[Identifier]:
        """Ids of queries; a departed user's is replaced by an id that no release has."""
        return [_STRANGER if text(user) in self.departed else user for user in user_ids]

    def hidden_from(self, kind: str, user_id: Identifier) -> set[str]:
        """Ids that one user's list must not have, beside those of ``gone``."""
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
        """Ids that no list may have; ``gone_version`` changes with it."""
        return self.absent if kind == "people" else self.unavailable

    def severed(self, user_id: Identifier) -> set[str]:
        """Users whom no reason may link to this user: blocked, disconnected or hidden."""
        user = text(user_id)
        ended = self.disconnected.get(user, NO_USERS)
        return {*self.blocked.of(user), *self.hidden_connections.of(user), *ended}

    def impressions_since(self, kind: str, user_id: Identifier, now: int, days: float) -> set[str]:
        """Ids with an impression for a user in the last ``days``."""
        since = now - int(days * MICROSECONDS_PER_DAY)
        if text(user_id) in self.departed:
            return set()
        impressions = self.impressions.get((kind, text(user_id)), [])
        return {target for micros, target in impressions.copy() if micros >= since}
