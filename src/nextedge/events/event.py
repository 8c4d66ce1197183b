"""Events: validation before they are stored, and a faster path for stored ones."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Annotated, Any

import pydantic_core
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
    field_validator,
)

from nextedge.errors import EventError, nearest
from nextedge.events.clock import Clock
from nextedge.events.profile_fields import stated_attributes
from nextedge.events.schemas import EVENTS, EventId, Id, Unicode

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
FUTURE_SECONDS = 300.0  # clocks of senders may be ahead by so much


def _known(name: str) -> str:
    if name not in EVENTS:
        raise ValueError(f"no event is of type {name!r}; {nearest(name, EVENTS)}")
    return name


EventType = Annotated[
    str, AfterValidator(_known), WithJsonSchema({"type": "string", "enum": list(EVENTS)})
]


class Event(BaseModel):
    """One fact; unknown fields stay. An event id that is recorded twice counts once."""

    model_config = ConfigDict(frozen=True, extra="allow")

    type: EventType
    user_id: Id | None = None
    candidate_id: Id | None = None
    item_id: Id | None = None
    surface: Unicode | None = None
    timestamp: datetime = Field(default_factory=lambda: datetime.now(UTC))
    event_id: EventId = Field(default_factory=lambda: uuid.uuid4().hex)
    schema_version: int = Field(1, ge=1)

    @field_validator("timestamp")
    @classmethod
    def _utc(cls, value: datetime) -> datetime:
        try:
            return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
        except OverflowError:
            raise ValueError("expected a time in UTC of the years 1 to 9999") from None

    @cached_property
    def micros(self) -> int:
        """Exact microseconds since 1970 UTC."""
        return (self.timestamp - _EPOCH) // _MICROSECOND

    def given(self, name: str) -> Any:
        """An undeclared field of the event, or None."""
        return (self.model_extra or {}).get(name)


_FIELDS = frozenset(Event.model_fields)


def parse_event(
    raw: Mapping[str, Any] | Event,
    *,
    clock: Clock | None = None,
    future_seconds: float = FUTURE_SECONDS,
) -> Event:
    """Validate one event.

    Args:
        clock: stamps an event without a timestamp and bounds the others; None = the system's.
        future_seconds: limit of an event's time ahead of the clock.

    Raises:
        EventError: names the field, its value and the expected one.
    """
    clock = clock or Clock()
    fields = _fields(raw)
    stamped = fields.get("timestamp") is None
    if stamped:
        fields["timestamp"] = _EPOCH + clock.stamp() * _MICROSECOND
    if fields.get("event_id", "") is None:
        del fields["event_id"]
    try:
        event = _with_typed_fields(Event.model_validate(fields))
    except ValidationError as error:
        raise EventError(_reason(error)) from None
    declared = EVENTS[event.type]
    if event.schema_version > declared.version:
        raise EventError(
            f"schema_version: {event.schema_version} of {event.type!r} is newer than this version "
            f"of NextEdge reads; expected at most {declared.version}: upgrade, or send that"
        )
    if declared.states:
        stated_attributes(event.model_extra or {})
    if missing := _missing(event):
        raise EventError(f"an event of type {event.type!r} needs {missing}")
    if not stamped and event.micros > clock.now() + future_seconds * 1_000_000:
        raise EventError(
            f"timestamp: {event.timestamp.isoformat()} is more than {future_seconds:g} s ahead of "
            "the clock (events.future_seconds); correct the sender's clock or the time's zone"
        )
    return event


def stored_event(body: bytes | str) -> Event:
    """Parse an event of a log without validation, which happened before it was stored.

    Raises:
        EventError: this version cannot read it.
    """
    try:
        extra = pydantic_core.from_json(body)
        take = extra.pop
        kind, when = take("type"), datetime.fromisoformat(take("timestamp"))
        fields = {
            "type": kind,
            "user_id": take("user_id", None),
            "candidate_id": take("candidate_id", None),
            "item_id": take("item_id", None),
            "surface": take("surface", None),
            "timestamp": when,
            "event_id": take("event_id"),
            "schema_version": take("schema_version", 1),
            "micros": (when - _EPOCH) // _MICROSECOND,
        }
        if fields["schema_version"] > EVENTS[kind].version:
            raise ValueError(f"schema_version {fields['schema_version']} of {kind!r} is newer")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise EventError(f"an event of the log cannot be read: {error!r}") from None
    # as model_construct does it, but faster: a restart folds every event of the log
    event = Event.__new__(Event)
    object.__setattr__(event, "__dict__", fields)
    object.__setattr__(event, "__pydantic_fields_set__", set(_FIELDS))
    object.__setattr__(event, "__pydantic_extra__", extra)
    object.__setattr__(event, "__pydantic_private__", None)
    return event


def readable_event(body: bytes | str) -> Event | None:
    """Like ``stored_event``, but None if this version cannot read it."""
    try:
        return stored_event(body)
    except EventError:
        return None


def _fields(raw: Mapping[str, Any] | Event) -> dict[str, Any]:
    if not isinstance(raw, Event):
        return dict(raw)
    fields = raw.model_dump()
    if "timestamp" not in raw.model_fields_set:
        del fields["timestamp"]  # Event filled it in by the system's clock; ours must stamp it
    return fields


def _with_typed_fields(event: Event) -> Event:
    extra = event.model_extra
    if not extra:
        return event
    declared = EVENTS[event.type]
    if not declared.fields.keys().isdisjoint(extra):
        checked = declared.model.model_validate(extra)  # converts, as text to a time
        extra.update({name: getattr(checked, name) for name in extra})
    try:
        pydantic_core.to_json(extra)  # what the log cannot store must fail here, not at the append
    except (ValueError, RecursionError) as error:
        raise EventError(f"its further fields cannot be kept as JSON: {error}") from None
    return event


def _reason(error: ValidationError) -> str:
    fault = error.errors()[0]
    field = next((str(part) for part in fault["loc"]), "event")
    return f"{field}: {fault['msg'].removeprefix('Value error, ')}"


def _missing(event: Event) -> str | None:
    declared = EVENTS[event.type]
    for name in declared.needs:
        if getattr(event, name) is None:
            return name
    if declared.either and (event.item_id is None) == (event.candidate_id is None):
        return "exactly one of candidate_id and item_id"
    if event.candidate_id is not None and str(event.candidate_id) == str(event.user_id):
        return "a candidate_id other than its user_id"
    return None
