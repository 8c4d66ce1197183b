"""Records events of one tenant durably: those of callers, and those of a broker."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence

from nextedge.config import Config
from nextedge.data.erased_users import ErasedUsers
from nextedge.errors import EventError, LiveStateError, NoReleaseError
from nextedge.events.event import Event
from nextedge.events.ingest import CheckedEvents, Ingest, Raw, Recorded
from nextedge.serving.active_release import ActiveReleases
from nextedge.serving.release.loader import LiveState
from nextedge.types import Identifier


class EventRecorder:
    """Checks events and appends them to the live log.

    Args:
        active: releases whose users are known; read where ``events.create_users`` is off.
    """

    def __init__(self, config: Config, live: LiveState, active: ActiveReleases) -> None:
        self.live = live
        self.active = active
        self._ingest = Ingest(config, ErasedUsers(config.state_path), self._unknown_users)

    def record(self, events: Raw | Iterable[Raw]) -> int:
        """Store events durably; returns how many were new.

        Events that name a forgotten person are left out.

        Raises:
            EventError: an event does not fit its schema; none is stored.
        """
        fit = self.admitted([events] if isinstance(events, Event | Mapping) else events)
        return self.live.overlay.log.append(fit)

    def record_each(self, events: Iterable[Raw]) -> Recorded:
        """Store the events that fit their schemas, durably, and give the reason of each other one."""
        checked = self._check(events)
        stored = self.live.overlay.log.append(checked.to_store) if checked.to_store else 0
        return Recorded(checked.accepted, stored, tuple(checked.rejected))

    def admitted(self, events: Iterable[Raw]) -> list[Event]:
        """The events that may be stored, without those of forgotten people.

        Raises:
            EventError: one does not fit its schema.
        """
        checked = self._check(events)
        for rejected in checked.rejected[:1]:
            raise EventError(rejected.reason)
        return checked.to_store

    def _check(self, events: Iterable[Raw]) -> CheckedEvents:
        listed = list(events)
        if not all(_timed(event) for event in listed):
            # an event without a time gets one that is later than every event of the log
            with contextlib.suppress(LiveStateError):  # append raises it
                overlay = self.live.overlay
                overlay.catch_up()
                if (latest := overlay.latest_micros) is not None:
                    self._ingest.clock.observe(latest)
        return self._ingest.sort(listed)

    def _unknown_users(self, users: Sequence[Identifier]) -> set[Identifier]:
        """The users whom no active release knows; none before the first release."""
        unknown = set(users)
        try:
            arms = self.active.of_users(users)
        except NoReleaseError:
            # before the first release nobody is known: every event would be refused
            return set()
        for release in {id(arm[0]): arm[0] for arm in arms}.values():
            listed = list(unknown)
            positions = release.entities.users.positions(listed)
            unknown = {user for user, at in zip(listed, positions, strict=True) if at < 0}
        return unknown


def _timed(raw: Raw) -> bool:
    """Whether an event was given with its time."""
    if isinstance(raw, Event):
        return "timestamp" in raw.model_fields_set
    return not isinstance(raw, Mapping) or raw.get("timestamp") is not None
