"""Events for the tests of logs, and the check of their order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from nextedge.events.event import Event

_START = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)


def event(user: int | str, number: int, **more: Any) -> Event:
    """The ``number``-th event of a user, a second after the one before."""
    when = _START + timedelta(seconds=number)
    fields = {"type": "interact", "item_id": f"i{number}", "event_id": f"{user}/{number}", **more}
    return Event(user_id=user, timestamp=fields.pop("timestamp", when), number=number, **fields)


def events_of(users: Sequence[int | str], count: int) -> list[Event]:
    """Return ``count`` events of each user, one user after the other in turns."""
    return [event(user, number) for number in range(count) for user in users]


class LaterEvent(Event):
    """An event of a type that a later version records, and this one cannot read."""

    type: str


UNREADABLE = LaterEvent(type="teleport", user_id="a", event_id="poison", item_id="x")


def id_of(event: Event) -> str:
    return event.event_id


def assert_ordered(events: Iterable[Event | None]) -> None:
    """Check that each user's events are in the order of their numbers."""
    last: dict[Any, int] = {}
    for event in events:
        assert event is not None
        number = event.given("number")
        assert last.get(event.user_id, -1) < number, f"{event.user_id}: out of order"
        last[event.user_id] = number
