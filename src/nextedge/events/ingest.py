"""Checks of events before they are stored; an invalid event is refused alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nextedge.config import Config
from nextedge.data.erased_users import ErasedUsers
from nextedge.errors import EventError
from nextedge.events.clock import Clock
from nextedge.events.event import Event, parse_event
from nextedge.events.profile_fields import refuse_identifiers
from nextedge.events.schemas import EVENTS
from nextedge.types import Identifier

Raw = Event | Mapping[str, Any]
Strangers = Callable[[Sequence[Identifier]], set[Identifier]]
"""Those of some users whom no release knows."""


@dataclass(frozen=True)
class Rejected:
    """A refused event: its index in the batch, from 0, and the reason."""

    index: int
    reason: str


@dataclass(frozen=True)
class CheckedEvents:
    """The outcome of checks.

    Attributes:
        accepted: number of valid events, those of erased users too.
        kept: events to store.
    """

    kept: list[Event]
    accepted: int
    rejected: list[Rejected]


@dataclass(frozen=True)
class Recorded:
    """The outcome of recording events.

    Attributes:
        accepted: number of valid events.
        stored: number of new ones among them.
        rejected: the others, with reasons.
    """

    accepted: int
    stored: int
    rejected: tuple[Rejected, ...] = ()


class Ingest:
    """Checks events of one tenant.

    Args:
        forgotten: users whose events are dropped in silence.
        strangers: called where ``events.create_users`` is off.
    """

    def __init__(self, config: Config, forgotten: ErasedUsers, strangers: Strangers) -> None:
        self.config = config
        self.forgotten = forgotten
        self.strangers = strangers
        self.clock = Clock()

    def sort(self, batch: Iterable[Raw]) -> CheckedEvents:
        """Split a batch into events to store and refused ones."""
        valid: list[tuple[int, Event]] = []
        rejected: list[Rejected] = []
        for index, raw in enumerate(batch):
            try:
                valid.append((index, self._checked(raw)))
            except EventError as error:
                rejected.append(Rejected(index, str(error)))
        if not self.config.events.create_users:
            unknown = self._of_strangers([event for _, event in valid])
            rejected += [
                Rejected(index, unknown[e.event_id]) for index, e in valid if e.event_id in unknown
            ]
            valid = [(index, e) for index, e in valid if e.event_id not in unknown]
        among = self.forgotten.among
        kept = [event for _, event in valid if not among((event.user_id, event.candidate_id))]
        return CheckedEvents(kept, len(valid), sorted(rejected, key=lambda refused: refused.index))

    def _checked(self, raw: Raw) -> Event:
        if not isinstance(raw, Event | Mapping):
            raise EventError('expected an object, as {"type": "dismiss", …}')
        seconds = self.config.events.future_seconds
        event = parse_event(raw, clock=self.clock, future_seconds=seconds)
        refuse_identifiers([event.model_extra], self.config.onboarding.identifier_columns)
        return event

    def _of_strangers(self, events: Sequence[Event]) -> dict[str, str]:
        """Reasons by event id, for events that would create users."""
        # an event that only hides a user is taken of everyone: the next tables may have them
        creating = [e for e in events if not EVENTS[e.type].narrows and e.user_id is not None]
        users = {u for e in creating for u in (e.user_id, e.candidate_id) if u is not None}
        unknown = self.strangers(list(users)) if users else set()
        return {
            e.event_id: f"{name}: unknown user {user!r}: no release knows it, and "
            "events.create_users = false; add it to the users table and build"
            for e in creating
            for name, user in (("candidate_id", e.candidate_id), ("user_id", e.user_id))
            if user in unknown
        }
