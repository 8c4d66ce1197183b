"""Convert events to Kafka messages, and messages of any producer to deliveries."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from nextedge.errors import EventError
from nextedge.events.event import Event, parse_event
from nextedge.events.logs.log import Delivery, Position

if TYPE_CHECKING:
    from confluent_kafka import Message

LONGEST_BODY = 1 << 20  # bytes; the live log refuses longer events too
Headers = dict[str, str | bytes | None]


def key_of(event: Event) -> bytes:
    """Key that decides the partition: the events of a user, or of an item, stay in order."""
    return str(event.item_id if event.user_id is None else event.user_id).encode()


def headers_of(event: Event) -> Headers:
    """Headers that let a consumer select events without parsing the body."""
    return {"event_id": event.event_id.encode(), "type": event.type.encode()}


def position_of(message: Message) -> Position:
    """Position of a message: its partition, and the offset after it."""
    return json.dumps({str(message.partition()): (message.offset() or 0) + 1})


def delivery_of(message: Message) -> Delivery:
    """A message of any producer as a delivery, with its fault if it is no event."""
    body = body_of(message)
    event, fault = None, None
    try:
        event = _event(message, body)
    except EventError as error:
        fault = str(error)
    except (ArithmeticError, RecursionError, ValueError) as error:
        fault = f"a value cannot be stored: {error}"  # as a time before the year 1
    return Delivery(position_of(message), body, event, fault)


def body_of(message: Message) -> bytes:
    """Body of a message; empty for null."""
    value: Any = message.value()
    return b"" if value is None else bytes(value)


def headers_in(message: Message) -> dict[str, bytes]:
    """Headers by name; the first one of a name counts."""
    headers: Any = message.headers() or []
    return {name: bytes(value or b"") for name, value in reversed(headers)}


def _event(message: Message, body: bytes) -> Event:
    if not body:
        raise EventError("the message has no body: expected a JSON object")
    if len(body) > LONGEST_BODY:
        raise EventError(f"the body is longer than {LONGEST_BODY:,} bytes")
    try:
        raw = json.loads(body, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise EventError("the body is not JSON: expected an object with type, user_id, …") from None
    if not isinstance(raw, dict):
        raise EventError(f"the body is a JSON {type(raw).__name__}: expected an object")
    if raw.get("event_id") is None:
        raw["event_id"] = _header_id(message) or _derived_id(message)
    if raw.get("timestamp") is None and (produced := produced_millis(message)):
        raw["timestamp"] = datetime.fromtimestamp(produced / 1000, UTC)
    event = parse_event(raw)
    if b"\\u" in body:
        event.model_dump_json()  # half of a surrogate pair can be read, but never written again
    return event


def _no_number(name: str) -> None:
    raise ValueError(name)


def _header_id(message: Message) -> str:
    return headers_in(message).get("event_id", b"").decode(errors="replace")


def _derived_id(message: Message) -> str:
    # with the time, because a recreated topic counts its offsets from 0 again
    origin = (message.topic(), message.partition(), message.offset(), produced_millis(message))
    return "kafka-" + hashlib.blake2b(repr(origin).encode(), digest_size=16).hexdigest()


def produced_millis(message: Message) -> int:
    """Time at which a message was produced or stored, in ms since 1970; 0 if unknown."""
    kind, millis = message.timestamp()
    return millis if kind and millis > 0 else 0
