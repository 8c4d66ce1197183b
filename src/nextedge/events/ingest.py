"""Check events before they are stored; an invalid event is refused alone."""

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
Strangers = Callable[[Sequence[Identifier]], set[Identifier]]  # selects users of no release


@dataclass(frozen=True)
class Rejected:
    """A refused event: its index in the batch, from 0, and the reason."""

    index: int
    reason: str


@dataclass(frozen=True)
class CheckedEvents:
    """Events to store, number of valid events (erased users' included), and refused events."""

    to_store: list[Event]
    accepted: int
    rejected: list[Rejected]


@dataclass(frozen=True)
class Recorded:
    """Numbers of valid events and of new ones among them, and the refused events."""

    accepted: int
    stored: int
    rejected: tuple[Rejected, ...] = ()


class Ingest:
    """Checks events of one tenant.

    Args:
        forgotten: users whose events are dropped without an error.
        strangers: selects unknown users, where ``events.create_users`` is off.
    """

    def __init__(self, config: Config, forgotten: ErasedUsers, strangers: Strangers) -> None:
        self.config = config
        self.forgotten = forgotten
        self.strangers = strangers
        self.clock = Clock()

    def sort(self, batch: Iterable[Raw]) -> CheckedEvents:
        """Split a batch into events to store and refused events."""
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
        to_store = [event for _, event in valid if not among((event.user_id, event.candidate_id))]
        return CheckedEvents(to_store, len(valid), sorted(rejected, key=lambda r: r.index))

    def _checked(self, raw: Raw) -> Event:
        if not isinstance(raw, Event | Mapping):
            raise EventError('expected an object, as {"type": "dismiss", …}')
        seconds = self.config.events.future_seconds
        event = parse_event(raw, clock=self.clock, future_seconds=seconds)
        refuse_identifiers([event.model_extra], self.config.onboarding.identifier_columns)
        return event

    def _of_strangers(self, events: Sequence[Event]) -> dict[str, str]:
        """Reasons by event id, for events that would create users."""
        # an event that only hides a user is accepted for unknown users: the next tables may have them
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
