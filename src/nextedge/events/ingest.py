"""What every door does with events before they are stored: check each one, and refuse it alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nextedge.config import Config
from nextedge.data.erased_users import Forgotten
from nextedge.errors import EventError
from nextedge.events.clock import Clock
from nextedge.events.event import Event, parse_event
from nextedge.events.profile_fields import refuse_identifiers
from nextedge.events.schemas import EVENTS
from nextedge.types import Identifier

Raw = Event | Mapping[str, Any]
Strangers = Callable[[Sequence[Identifier]], set[Identifier]]
"""Tells those of some users whom no release knows."""


@dataclass(frozen=True)
class Rejected:
    """An event that was not taken: its place among those given, from 0, and why."""

    index: int
    reason: str


@dataclass(frozen=True)
class CheckedEvents:
    """Events that may be stored, how many were fit (those of forgotten people too), and the rest."""

    kept: list[Event]
    accepted: int
    rejected: list[Rejected]


@dataclass(frozen=True)
class Recorded:
    """What became of some events.

    Attributes:
        accepted: fit to be stored.
        stored: new among them.
        rejected: the others, with the reason of each.
    """

    accepted: int
    stored: int
    rejected: tuple[Rejected, ...] = ()


class Ingest:
    """Checks events of one tenant.

    Args:
        forgotten: whose events are left out without a word.
        strangers: asked where ``events.create_users`` is off.
    """

    def __init__(self, config: Config, forgotten: Forgotten, strangers: Strangers) -> None:
        self.config = config
        self.forgotten = forgotten
        self.strangers = strangers
        self.clock = Clock()

    def sort(self, given: Iterable[Raw]) -> CheckedEvents:
        """Tell the events that may be stored from the others."""
        fit: list[tuple[int, Event]] = []
        rejected: list[Rejected] = []
        for index, raw in enumerate(given):
            try:
                fit.append((index, self._checked(raw)))
            except EventError as error:
                rejected.append(Rejected(index, str(error)))
        if not self.config.events.create_users:
            unknown = self._of_strangers([event for _, event in fit])
            rejected += [
                Rejected(index, unknown[e.event_id]) for index, e in fit if e.event_id in unknown
            ]
            fit = [(index, e) for index, e in fit if e.event_id not in unknown]
        among = self.forgotten.among
        kept = [event for _, event in fit if not among((event.user_id, event.candidate_id))]
        return CheckedEvents(kept, len(fit), sorted(rejected, key=lambda each: each.index))

    def _checked(self, raw: Raw) -> Event:
        if not isinstance(raw, Event | Mapping):
            raise EventError('expected an object, as {"type": "dismiss", …}')
        seconds = self.config.events.future_seconds
        event = parse_event(raw, clock=self.clock, future_seconds=seconds)
        refuse_identifiers([event.model_extra], self.config.onboarding.identifier_columns)
        return event

    def _of_strangers(self, events: Sequence[Event]) -> dict[str, str]:
        """Why events are refused, by their ids: they would make users.

        What only takes somebody out of sight is taken of everybody: they may be in tomorrow's tables.
        """
        asked = [e for e in events if not EVENTS[e.type].narrows and e.user_id is not None]
        users = {u for e in asked for u in (e.user_id, e.candidate_id) if u is not None}
        unknown = self.strangers(list(users)) if users else set()
        return {
            e.event_id: f"{name}: unknown user {user!r}: no release knows it, and "
            "events.create_users = false; add it to the users table and build"
            for e in asked
            for name, user in (("candidate_id", e.candidate_id), ("user_id", e.user_id))
            if user in unknown
        }
