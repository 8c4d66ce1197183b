"""Recorded events as one Arrow table, for joins instead of a loop over events."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nextedge import schema
from nextedge.data.ids import is_int64
from nextedge.events.event import Event

UTC = pa.timestamp("us", "UTC")
_MOST_POSITIONS = 1_000_000
# types of events between two users, whatever other ids they have
OF_PEOPLE = frozenset(
    "connect disconnect accept request decline withdraw block unblock hide_connection "
    "unhide_connection".split()
)


def event_rows(events: Iterable[Event]) -> pa.Table:
    """One row for each event id, sorted by time and id.

    Columns: ``type``, ``event_id``; ``micros`` (UTC); ``usr``, ``kind`` (people or items) and
    ``target``, ids as text; ``rid``, the recommendation id or an empty text; ``position`` (from 1)
    and ``weight``, null if missing or invalid; ``event``.
    """
    columns = tuple(zip(*map(_row, events), strict=True)) or ((),) * len(_SCHEMA)
    rows = pa.table(
        [pa.array(values, part.type) for values, part in zip(columns, _SCHEMA, strict=True)],
        schema=_SCHEMA,
    )
    at = rows.column_names.index("micros")
    rows = rows.set_column(at, "micros", rows["micros"].cast(pa.int64()))
    # by all columns, so that the order of the log decides nothing
    rows = rows.sort_by([(name, "ascending") for name in rows.column_names])
    numbered = pa.table({"id": rows["event_id"], "row": pa.array(np.arange(len(rows)))})
    first = numbered.group_by("id").aggregate([("row", "min")])["row_min"]
    return rows if len(first) == len(rows) else rows.take(first.take(pc.sort_indices(first)))


_SCHEMA = pa.schema(
    [
        ("micros", UTC),
        ("event_id", pa.string()),
        ("type", pa.string()),
        ("usr", pa.string()),
        ("kind", pa.string()),
        ("target", pa.string()),
        ("rid", pa.string()),
        ("position", pa.int64()),
        ("event", pa.string()),
        ("weight", pa.float64()),
    ]
)


def _row(event: Event) -> tuple[Any, ...]:
    # one access to each event: a million objects are far apart in memory
    more = event.model_extra
    fields = {**vars(event), **more} if more else vars(event)
    field, item = fields.get, event.item_id
    of_item = item is not None and event.type not in OF_PEOPLE
    return (
        event.timestamp,
        event.event_id,
        event.type,
        _text(event.user_id),
        "items" if of_item else "people",
        _text(item if of_item else event.candidate_id),
        _recommendation(field("recommendation_id")),
        _position(field("position")),
        _name(field("event")),
        _weight(field("weight")),
    )


def _text(identifier: object) -> str | None:
    return None if identifier is None else str(identifier)


def _recommendation(value: object) -> str:
    return str(value) if isinstance(value, str | int) else ""


def _position(value: object) -> int | None:
    whole = isinstance(value, int | float) and not isinstance(value, bool) and value == value // 1
    return int(value) if whole and 0 <= value <= _MOST_POSITIONS else None  # type: ignore[operator, call-overload]


def _name(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _weight(value: object) -> float | None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if number and math.isfinite(value) and value >= 0 else None  # type: ignore[arg-type, operator]


def ids_as(text: pa.Array | pa.ChunkedArray, kind: pa.DataType) -> pa.Array | pa.ChunkedArray:
    """Ids in a table's type; null if the type cannot hold an id."""
    if pa.types.is_integer(kind):
        return pc.if_else(is_int64(text), text, None).cast(kind)
    return text.cast(kind)


def appended(rows: pa.Table, columns: dict[str, Any], needed: Sequence[str]) -> pa.Table:
    """A table with further rows in its own types, without rows that lack a ``needed`` value.

    Columns that the table lacks are left out; columns that are not passed are null.
    """
    typed = {}
    for name, values in columns.items():
        if name in rows.column_names:
            kind = rows.schema.field(name).type
            identifier = schema.is_identifier(name)
            typed[name] = ids_as(values, kind) if identifier else values.cast(kind)
    more = pa.table(typed)
    for name in needed:
        if name in more.column_names:
            more = more.filter(pc.is_valid(more.column(name)))
    nullable = pa.schema([field.with_nullable(True) for field in rows.schema])
    return pa.concat_tables([rows.cast(nullable), more], promote_options="default")
