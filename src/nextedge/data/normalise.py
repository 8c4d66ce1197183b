"""Convert each known column to the type that later steps rely on, beside the original column.

This step drops no row: an unreadable value becomes null in its converted form, and
``nextedge.data.rules`` or the report decides what follows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import ibis

from nextedge import schema
from nextedge.data.report import Finding
from nextedge.data.rules import INTERNAL, PARSED
from nextedge.data.timestamps import parse_time, time_facts, usable_time_type
from nextedge.engines.base import Engine
from nextedge.errors import DataError
from nextedge.schema import ColumnKind

if TYPE_CHECKING:
    from ibis.expr.types import Column, Table

UTC = "timestamp('UTC', 6)"
_DEFAULTS: dict[str, dict[str, Any]] = {
    schema.USERS: {"discoverable": True},
    schema.ITEMS: {"available": True, "unsafe": False},
    schema.CONNECTIONS: {schema.WEIGHT: 1.0},
    schema.INTERACTIONS: {schema.WEIGHT: 1.0},
}
_ABSENT: dict[str, dict[str, str]] = {
    schema.CONNECTIONS: {schema.TIMESTAMP: UTC},
    schema.INTERACTIONS: {schema.TIMESTAMP: UTC, "event": "string"},
    schema.IMPRESSIONS: {
        "recommendation_id": "string",
        "position": "int64",
        "action": "string",
        "action_timestamp": UTC,
    },
}
_EXACT = 2**53  # a float holds every whole number up to it
_TRUE = ("true", "t", "yes", "y", "1")
_FALSE = ("false", "f", "no", "n", "0")
_WANTED = {
    ColumnKind.TIMESTAMP: "dates, ISO 8601 text or numbers since 1970",
    ColumnKind.NUMBER: "numbers",
    ColumnKind.LATITUDE: "degrees",
    ColumnKind.LONGITUDE: "degrees",
    ColumnKind.FLAG: "true or false",
    ColumnKind.TAGS: "a list, or text with | between its parts",
}


@dataclass
class Normalised:
    """A table with ``PARSED`` columns beside the originals, and findings on assumptions."""

    table: Table
    defaults: dict[str, Any]
    parsed: dict[str, ColumnKind] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    timed: bool = False


def normalise(engine: Engine, spec: schema.Table, table: Table, location: str) -> Normalised:
    """Add the converted form of every known column of a table.

    Raises:
        DataError: the type of a column does not fit its kind; names every such column.
    """
    result = Normalised(table, _DEFAULTS.get(spec.name, {}))
    kinds = {c.name: c.kind for c in spec.columns if c.name in table.columns and c.kind in _WANTED}
    _require_types(spec, table, kinds, location)
    times = [name for name, kind in kinds.items() if kind is ColumnKind.TIMESTAMP]
    facts = _time_facts(engine, table, times)
    columns: dict[str, Column] = {}
    blank = {n: table[n].nullif("") for n in kinds if table[n].type().is_string()}
    table = table.mutate(**blank) if blank else table
    for name, kind in kinds.items():
        if kind is ColumnKind.TIMESTAMP:
            time = parse_time(table[name], facts[name])
            columns[PARSED + name] = time.value
            if time.note:
                result.findings.append(Finding("time_form", f"{name}: {time.note}", 0, "converted"))
        else:
            columns[PARSED + name] = _parse(table[name], kind)
        result.parsed[name] = kind
    result.timed = schema.TIMESTAMP in times
    result.table = table.mutate(**columns, **_portable(table, set(kinds)))
    return result


def finish(
    normal: Normalised, spec: schema.Table, rows: Table, id_types: Mapping[str, str]
) -> Table:
    """Replace the original columns by the converted ones, and add missing columns."""
    columns: dict[str, Any] = {name: rows[PARSED + name] for name in normal.parsed}
    for name, default in normal.defaults.items():
        column = columns.get(name)
        columns[name] = _constant(default) if column is None else column.fill_null(default)
    for name, kind in _ABSENT.get(spec.name, {}).items():
        if name not in rows.columns:
            columns[name] = ibis.null(kind)
        elif name == "position":
            position = columns[name]
            whole = ibis.ifelse(position.between(-_EXACT, _EXACT), position, None)
            columns[name] = whole.cast("int64")
        elif kind == "string":
            columns[name] = rows[name].cast("string")
    if spec.name == schema.IMPRESSIONS:
        for column in spec.columns:
            if column.refers_to and column.name not in rows.columns:
                columns[column.name] = ibis.null(id_types.get(column.refers_to, "int64"))
    names = [name for name in rows.columns if not name.startswith(INTERNAL)]
    return rows.select(**({name: rows[name] for name in names} | columns))


def _constant(value: Any) -> Column:
    # 1.0 alone is a decimal to DuckDB, and Ibis leaves out a cast of a float to a float
    return ibis.literal(int(value)).cast("boolean" if isinstance(value, bool) else "float64")


def _require_types(
    spec: schema.Table, table: Table, kinds: dict[str, ColumnKind], location: str
) -> None:
    faults = [
        f"{spec.name}: {location}: column {name!r} has type {table[name].type()}; expected "
        f"{_WANTED[kind]}"
        for name, kind in kinds.items()
        if not _can_hold(table[name].type(), kind)
    ]
    if faults:
        raise DataError("\n".join(faults))


def _can_hold(kind: Any, wanted: ColumnKind) -> bool:
    if kind.is_null() or kind.is_string():
        return True
    if wanted is ColumnKind.TIMESTAMP:
        return usable_time_type(kind)
    if wanted is ColumnKind.TAGS:
        return bool(kind.is_array() or kind.is_integer())
    if wanted is ColumnKind.FLAG:
        return bool(kind.is_boolean() or kind.is_numeric())
    return bool(kind.is_numeric() and not kind.is_boolean())


def _time_facts(engine: Engine, table: Table, times: list[str]) -> dict[str, dict[str, Any]]:
    wanted = {
        f"{index}/{fact}": value
        for index, name in enumerate(times)
        for fact, value in time_facts(table[name]).items()
    }
    row = engine.to_arrow(table.aggregate(**wanted)).to_pylist()[0] if wanted else {}
    return {
        name: {key.split("/")[1]: v for key, v in row.items() if key.split("/")[0] == str(index)}
        for index, name in enumerate(times)
    }


def _parse(column: Column, kind: ColumnKind) -> Column:
    if kind is ColumnKind.FLAG:
        return _flag(column)
    if kind is ColumnKind.TAGS:
        return _tags(column)
    # A plain cast of text would stop at the first unreadable value.
    number = column.try_cast("float64") if column.type().is_string() else column.cast("float64")
    if kind is ColumnKind.NUMBER:
        return number
    most = 90 if kind is ColumnKind.LATITUDE else 180
    return ibis.ifelse(number.between(-most, most), number, None)


def _flag(column: Column) -> Column:
    if column.type().is_boolean():
        return column
    if not column.type().is_string():
        return column.cast("float64") != 0
    word = column.strip().lower()
    return ibis.cases(
        (word.isin(_TRUE), True), (word.isin(_FALSE), False), else_=ibis.null("boolean")
    )


def _tags(column: Column) -> Column:
    """Text such as ``a|b``, ``a;b``, ``a,b`` or ``["a", "b"]`` as a list; lists as they are."""
    if column.type().is_array():
        return column
    bare = column.cast("string").re_replace(r"[\[\]\"']", "").strip()
    return bare.re_split(r"\s*[|;,]\s*").filter(lambda tag: tag != "")


def _portable(table: Table, known: set[str]) -> dict[str, Column]:
    """Other columns of rare types, in types that every later step supports."""
    columns: dict[str, Column] = {}
    for name, kind in table.schema().items():
        if name in known:
            continue
        if kind.is_decimal():
            columns[name] = table[name].cast("float64")
        elif kind.is_json() or kind.is_uuid() or kind.is_time() or kind.is_interval():
            columns[name] = table[name].cast("string")
    return columns
