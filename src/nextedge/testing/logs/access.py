"""Append to, read and poll the logs that tests open."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from nextedge.config import Config, EventsConfig
from nextedge.errors import LogFullError
from nextedge.events.event import Event
from nextedge.events.logs.log import BEGINNING, Consumer, Delivery, Log, Position, open_log
from nextedge.testing.logs.sample_events import events_of, id_of

PATIENCE_SECONDS = 90.0  # for leases to end and groups to settle


class OpenLog:
    """Opens logs by the tenant's name; the same name again is the same log, in another object.

    Args:
        url: as in ``[events] log``; None is the local log.
        folder: each tenant's state is in a folder of its name.
    """

    def __init__(self, url: str | None, folder: Path) -> None:
        self.url = url
        self.folder = folder
        self._opened: list[Log] = []

    def config(self, tenant: str = "acme", max_backlog: int = 1_000_000) -> Config:
        """The configuration with which a tenant's log opens."""
        events = EventsConfig(max_backlog=max_backlog)
        return Config(tenant=tenant, state=str(self.folder / tenant), events=events)

    def __call__(self, tenant: str = "acme", max_backlog: int = 1_000_000) -> Any:
        """Open the log of a tenant; ``close`` closes it."""
        self._opened.append(open_log(self.url, self.config(tenant, max_backlog)))
        return self._opened[-1]

    def close(self) -> None:
        """Close every open log."""
        for log in self._opened:
            log.close()


def recorded(log: Log, users: Sequence[int | str], count: int) -> list[Event]:
    """Append ``count`` events of each user; returns them."""
    events = events_of(users, count)
    log.append(events)
    return events


def collect(consumer: Consumer, count: int) -> list[Delivery]:
    """Poll until exactly ``count`` events are delivered; fails on fewer or more."""
    deliveries: list[Delivery] = []
    until = time.monotonic() + PATIENCE_SECONDS
    while len(deliveries) < count:
        assert time.monotonic() < until, f"{len(deliveries)} of {count} events came"
        deliveries += consumer.poll(1000, 0.5)
    assert len(deliveries) == count
    return deliveries


def ids_of(deliveries: Iterable[Delivery]) -> list[str]:
    return [row.event.event_id for row in deliveries if row.event is not None]


def read_ids(log: Log, after: Position = BEGINNING, limit: int | None = None) -> list[str]:
    return [id_of(event) for _, event in log.read(after, limit)]


def users_of(deliveries: Iterable[Delivery]) -> set[Any]:
    return {row.event.user_id for row in deliveries if row.event is not None}


def assert_full(log: Log, refused: Event) -> None:
    """Check that the log refuses the event and says when to try again."""
    try:
        log.append([refused])
    except LogFullError as error:
        if error.retry_after_seconds > 0:
            return
    raise AssertionError("expected LogFullError with seconds to wait")
