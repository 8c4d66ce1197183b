"""Apply the attributes of users and items in events to their tables; the latest event wins."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nextedge import schema
from nextedge.events.event import Event
from nextedge.events.to_tables.rows import UTC as TIME
from nextedge.events.to_tables.rows import ids_as
from nextedge.schema import ColumnKind

# values of a new row that no event states
_FLAGS = {"discoverable": True, "available": True, "unsafe": False}
_CREATED = "created_at"
# (bound, units a second) of times as numbers, as in the tables: seconds below 1e11, then ms, µs, ns
_MAGNITUDES = ((1e11, 1), (1e14, 1_000), (1e17, 1_000_000), (math.inf, 1_000_000_000))
_TYPES = {
    ColumnKind.CATEGORY: pa.string(),
    ColumnKind.TEXT: pa.string(),
    ColumnKind.NUMBER: pa.float64(),
    ColumnKind.TAGS: pa.list_(pa.string()),
    ColumnKind.TIMESTAMP: TIME,
    ColumnKind.FLAG: pa.bool_(),
}


@dataclass
class UpdatedRows:
    """A table after the events, and the number of unreadable values by column."""

    rows: pa.Table
    unreadable: Counter[str] = field(default_factory=Counter)


def with_profiles(rows: pa.Table, events: Iterable[Event]) -> UpdatedRows:
    """Users with the attributes of their events; adds no rows."""
    updates = [event for event in events if event.type == "profile_update"]
    return _restated(rows, schema.USERS, _statements(updates, "user_id"), set())


def with_newcomers(rows: pa.Table, events: pa.Table) -> pa.Table:
    """Users of the table, and a row without attributes for every other user of the events.

    Args:
        events: rows of ``event_rows``.
    """
    people = events.filter(pc.equal(events["kind"], "people"))
    named = pa.table(
        {
            "id": pa.chunked_array([*events["usr"].chunks, *people["target"].chunks], pa.string()),
            "micros": pa.chunked_array(
                [*events["micros"].chunks, *people["micros"].chunks], pa.int64()
            ),
        }
    )
    first = named.filter(pc.is_valid(named["id"])).group_by("id").aggregate([("micros", "min")])
    key = rows[schema.USER_ID]
    known = pc.is_in(first["id"], value_set=key.cast(pa.string()))
    fresh = first.filter(pc.invert(known)).sort_by("id")
    return _appended(rows, schema.USERS, fresh["id"], fresh["micros_min"])


def with_items(
    rows: pa.Table | None, events: Sequence[Event], id_type: pa.DataType
) -> UpdatedRows | None:
    """Items after upserts and changes of availability; None without a table and upserts.

    An upsert of an item without a row adds one.

    Args:
        id_type: type of the item ids, for a new table.
    """
    upserts = [event for event in events if event.type == "item_upsert"]
    changes = [e for e in events if e.type in ("item_available", "item_unavailable")]
    if rows is None:
        if not upserts:
            return None
        rows = _empty_items(upserts, id_type)
    statements = _statements(upserts, "item_id")
    statements += [
        (str(e.item_id), e.micros, e.event_id, {"available": e.type == "item_available"})
        for e in changes
    ]
    return _restated(rows, schema.ITEMS, statements, {str(e.item_id) for e in upserts})


_Statement = tuple[str, int, str, Mapping[str, Any]]  # id, time in µs, event id, values


def _statements(events: Iterable[Event], key: str) -> list[_Statement]:
    return [
        (str(getattr(e, key)), e.micros, e.event_id, {**_declared(e), **(e.model_extra or {})})
        for e in events
    ]


# fields that describe the event itself, not the user or item
_OF_EVENT = frozenset(
    "type user_id candidate_id item_id surface timestamp event_id recommendation_id position "
    "version schema_version".split()
)


def _declared(event: Event) -> dict[str, Any]:
    # fields that Event declares and the event has may be columns as well
    return {
        n: getattr(event, n)
        for n in event.model_fields_set
        if n in Event.model_fields and n not in _OF_EVENT
    }


def _empty_items(upserts: Iterable[Event], id_type: pa.DataType) -> pa.Table:
    stated = {name for event in upserts for name in (event.model_extra or {})}
    spec = schema.TABLES[schema.ITEMS]
    fields = [
        (column.name, _TYPES[column.kind])
        for column in spec.columns
        if column.name not in spec.key and column.name in stated | {"available", "unsafe"}
    ]
    return pa.schema([(spec.key[0], id_type), *fields]).empty_table()


def _restated(
    rows: pa.Table, name: str, statements: list[_Statement], new: set[str]
) -> UpdatedRows:
    """A table with the latest stated value of each column; adds rows for ids among ``new``."""
    if not statements:
        return UpdatedRows(rows)
    spec, unreadable = schema.TABLES[name], Counter[str]()
    key = spec.key[0]
    latest: dict[str, dict[str, Any]] = {}
    first: dict[str, int] = {}
    for identifier, micros, _, fields in sorted(statements, key=lambda stated: stated[:3]):
        if identifier in new:
            first.setdefault(identifier, micros)
        values = latest.setdefault(identifier, {})
        for column in fields.keys() & set(rows.column_names) - {key}:
            value, fits = _value(
                fields[column], rows.schema.field(column).type, spec.kind_of(column)
            )
            unreadable[column] += not fits
            flag = spec.kind_of(column) is ColumnKind.FLAG
            if fits or not flag:  # an unreadable flag leaves the value from before
                values[column] = _FLAGS.get(column) if value is None and flag else value
    known = set(rows[key].cast(pa.string()).to_pylist()) if new else set()
    fresh = sorted(first.keys() - known)
    rows = _appended(
        rows, name, pa.array(fresh, pa.string()), pa.array([first[i] for i in fresh], pa.int64())
    )
    ids = pa.array(list(latest), pa.string())
    position = pc.index_in(rows[key].cast(pa.string()), value_set=ids)
    for at, column in enumerate(rows.column_names):
        stated = {i: v[column] for i, v in enumerate(latest.values()) if column in v}
        if stated:
            field = rows.schema.field(at).with_nullable(True)
            changed = _with_values(rows.column(at), position, list(stated), list(stated.values()))
            rows = rows.set_column(at, field, changed)
    return UpdatedRows(rows, +unreadable)


def _with_values(
    column: pa.ChunkedArray, position: pa.ChunkedArray, stated: list[int], values: list[Any]
) -> pa.ChunkedArray:
    """A column with new values in some rows.

    Args:
        position: of each row's id among the ids of all statements.
        stated: positions of the ids with a new value, ascending.
    """
    number = np.asarray(
        pc.fill_null(pc.index_in(position, value_set=pa.array(stated, position.type)), -1)
    )
    if pa.types.is_timestamp(column.type):
        new = pa.array(values, pa.int64()).cast(TIME).cast(column.type)
    else:
        new = pa.array(values, column.type)
    # one take over old and new values, instead of a Python list of the whole column
    source = np.where(number >= 0, len(column) + number, np.arange(len(column)))
    return pa.chunked_array([*column.chunks, new], column.type).take(pa.array(source))


def _appended(
    rows: pa.Table, name: str, ids: pa.Array | pa.ChunkedArray, micros: pa.Array | pa.ChunkedArray
) -> pa.Table:
    """A table with rows for further ids; their only attribute is the time of their first event."""
    key = schema.TABLES[name].key[0]
    columns = {key: ids_as(ids, rows.schema.field(key).type)}
    if _CREATED in rows.column_names and pa.types.is_timestamp(rows.schema.field(_CREATED).type):
        columns[_CREATED] = micros.cast(TIME).cast(rows.schema.field(_CREATED).type)
    for flag, value in _FLAGS.items():
        if flag in rows.column_names:
            columns[flag] = pa.array([value] * len(ids), pa.bool_())
    more = pa.table(columns)
    more = more.filter(pc.is_valid(more[key]))
    nullable = pa.schema([field.with_nullable(True) for field in rows.schema])
    return pa.concat_tables([rows.cast(nullable), more], promote_options="default")


def _value(raw: Any, kind: pa.DataType, meaning: ColumnKind | None) -> tuple[Any, bool]:
    """A value in a column's type, and whether it fits; None removes a value."""
    if raw is None or raw in ([], ""):
        return None, True
    try:
        if pa.types.is_list(kind) or pa.types.is_large_list(kind):
            parts = _parts(raw)
            values = [_single(part, kind.value_type) for part in parts]
        else:
            values = _single(_alone(raw), kind)
            if meaning in _DEGREES and abs(values) > _DEGREES[meaning]:
                raise ValueError(raw)
    except (ValueError, TypeError, OverflowError, pa.ArrowException):
        return None, False
    return values, True


_DEGREES = {ColumnKind.LATITUDE: 90, ColumnKind.LONGITUDE: 180}


def _alone(raw: Any) -> Any:
    if isinstance(raw, list | tuple):
        if len(raw) != 1:
            raise ValueError(raw)
        return raw[0]
    return raw


def _parts(raw: Any) -> Sequence[Any]:
    if isinstance(raw, list | tuple):
        return raw
    if isinstance(raw, str):
        return [part for part in re.split(r"\s*[|;,]\s*", raw.strip()) if part]
    return [raw]


def _single(raw: Any, kind: pa.DataType) -> Any:
    reader = next((read for fits, read in _READERS if fits(kind)), None)
    if reader is None:
        return pa.scalar(raw, kind).as_py()
    value = reader(raw)
    if pa.types.is_integer(kind):
        pa.scalar(value, kind)  # raises where it is too large
    return value


def _as_text(raw: Any) -> str:
    if isinstance(raw, bool) or not isinstance(raw, str | int | float):
        raise ValueError(raw)
    return str(raw)


def _as_number(raw: Any) -> float:
    if isinstance(raw, bool):
        raise ValueError(raw)
    number = float(raw)
    if not math.isfinite(number):
        raise ValueError(raw)
    return number


def _as_integer(raw: Any) -> int:
    if isinstance(raw, bool):
        raise ValueError(raw)
    whole = int(raw)
    if isinstance(raw, float) and whole != raw:
        raise ValueError(raw)
    return whole


def _as_flag(raw: Any) -> bool:
    if isinstance(raw, bool):
        return raw
    word = str(raw).strip().lower()
    if word in ("true", "t", "yes", "y", "1"):
        return True
    if word in ("false", "f", "no", "n", "0"):
        return False
    raise ValueError(raw)


def _as_micros(raw: Any) -> int:
    if isinstance(raw, bool):
        raise ValueError(raw)
    if isinstance(raw, int | float):
        a_second = next(parts for bound, parts in _MAGNITUDES if abs(raw) < bound)
        return round(raw * (1_000_000 / a_second))
    time = raw if isinstance(raw, datetime) else datetime.fromisoformat(raw)
    time = time.replace(tzinfo=UTC) if time.tzinfo is None else time
    return round(time.timestamp() * 1e6)


_READERS: tuple[tuple[Callable[[pa.DataType], bool], Callable[[Any], Any]], ...] = (
    (lambda kind: pa.types.is_string(kind) or pa.types.is_large_string(kind), _as_text),
    (pa.types.is_boolean, _as_flag),
    (pa.types.is_integer, _as_integer),
    (pa.types.is_floating, _as_number),
    (pa.types.is_timestamp, _as_micros),
)
