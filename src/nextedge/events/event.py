"""Events: facts from outside, validated before anything is stored."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from nextedge.errors import EventError, nearest
from nextedge.events.stated import stated_attributes

EventType = Literal[
    "connect", "disconnect", "interact", "impression", "click", "accept", "dismiss", "block",
    "unblock", "opt_out", "opt_in", "leave", "hide_connection", "unhide_connection",
    "item_available", "item_unavailable", "profile_update", "request", "decline", "withdraw",
    "purchase", "item_upsert",
]  # fmt: skip
_PEOPLE = frozenset({
    "connect", "disconnect", "accept", "block", "unblock", "hide_connection", "unhide_connection",
    "request", "decline", "withdraw",
})  # fmt: skip
_EITHER = frozenset({"impression", "click", "dismiss"})
_CATALOGUE = frozenset({"item_available", "item_unavailable", "item_upsert"})


class Event(BaseModel):
    """One fact. Unknown fields are kept.

    ``event_id`` makes recording idempotent: an event that is recorded twice counts once.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    type: EventType
    user_id: int | str | None = None
    candidate_id: int | str | None = None
    item_id: int | str | None = None
    surface: str | None = None
    timestamp: datetime = Field(default_factory=lambda: datetime.now(UTC))
    event_id: str = Field(default_factory=lambda: uuid.uuid4().hex, min_length=1, max_length=128)

    @field_validator("timestamp")
    @classmethod
    def _utc(cls, value: datetime) -> datetime:
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)

    @property
    def micros(self) -> int:
        """Microseconds since 1970 UTC."""
        return int(self.timestamp.timestamp() * 1_000_000)


def parse_event(raw: Mapping[str, Any]) -> Event:
    """Validate one event.

    Raises:
        EventError: names the field, what was given and what was expected.
    """
    try:
        event = Event.model_validate(dict(raw))
    except ValidationError as error:
        fault = error.errors()[0]
        field = ".".join(str(part) for part in fault["loc"])
        hint = f"; {nearest(str(raw.get('type')), get_args(EventType))}" if field == "type" else ""
        raise EventError(f"{field}: {fault['msg']}{hint}") from None
    if event.type == "profile_update":
        stated_attributes(event.model_extra or {})
    missing = _missing(event)
    if missing:
        raise EventError(f"an event of type {event.type!r} needs {missing}")
    return event


def _missing(event: Event) -> str | None:
    if event.type in _CATALOGUE:
        return None if event.item_id is not None else "item_id"
    if event.user_id is None:
        return "user_id"
    if event.type in _PEOPLE and event.candidate_id is None:
        return "candidate_id"
    if event.type in _PEOPLE and event.candidate_id == event.user_id:
        return "a candidate_id other than its user_id"
    if event.type in ("interact", "purchase") and event.item_id is None:
        return "item_id"
    if event.type in _EITHER and (event.item_id is None) == (event.candidate_id is None):
        return "exactly one of candidate_id and item_id"
    return None
