"""Give all ids of a kind one type: int64 if every table has integers, else string."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nextedge import schema
from nextedge.data.report import Finding
from nextedge.engines.base import Engine
from nextedge.errors import DataError
from nextedge.schema import ColumnKind

if TYPE_CHECKING:
    import ibis

_MOST = 2**63 - 1
_EXACT = 2.0**53  # above it, a float cannot tell neighbouring whole numbers apart


@dataclass(frozen=True)
class Identifiers:
    """All tables with unified ids, findings by table, and faults."""

    tables: dict[str, ibis.Table]
    findings: dict[str, list[Finding]]
    faults: list[str]


def unify_identifiers(
    engine: Engine, tables: Mapping[str, ibis.Table], locations: Mapping[str, str]
) -> Identifiers:
    """Cast the ids of users to one type in all tables, and so the ids of items.

    Whole numbers of any type that fit int64 (floats included) are int64 if every column of the
    kind is; otherwise all are strings. Empty strings and NaN are missing ids.
    """
    unified = Identifiers(dict(tables), {name: [] for name in tables}, [])
    for columns in _columns_by_kind(tables).values():
        whole = {}
        for table, column in columns:
            try:
                fault, whole[table, column] = _examine(engine, tables[table], column)
            except DataError as error:
                unified.faults.append(f"{table}: {locations[table]}: column {column!r}: {error}")
                fault, whole[table, column] = None, False
            if fault:
                unified.faults.append(
                    f"{table}: {locations[table]}: column {column!r}: {fault}; expected ids as "
                    f"whole numbers or strings"
                )
        # One column of text makes all text: an id has the same value in every table.
        as_integers = all(whole.values())
        for table, column in columns:
            _cast(unified, table, column, whole[table, column], as_integers)
    return unified


def _columns_by_kind(tables: Mapping[str, ibis.Table]) -> dict[str, list[tuple[str, str]]]:
    kinds: dict[str, list[tuple[str, str]]] = {schema.USERS: [], schema.ITEMS: []}
    for name, table in tables.items():
        for column in schema.TABLES[name].columns:
            if column.kind is ColumnKind.IDENTIFIER and column.name in table.columns:
                kinds[column.refers_to or name].append((name, column.name))
    return kinds


def _examine(engine: Engine, table: ibis.Table, name: str) -> tuple[str | None, bool]:
    """(fault or None, whether the ids are whole numbers that fit int64)."""
    column, kind = table[name], table[name].type()
    if kind.is_string() or kind.is_uuid():
        return None, False
    if kind.is_null():  # a column without values fits both types
        return None, True
    if kind.is_uint64() or (kind.is_decimal() and kind.scale == 0):
        largest = _first(engine, table.aggregate(x=column.abs().max().cast("string")))
        return None, largest is None or int(largest) <= _MOST
    if kind.is_integer():
        return None, True
    if kind.is_floating() or kind.is_decimal():
        value = column.cast("float64")
        broken = value.notnull() & ~value.isnan() & ((value % 1 != 0) | (value.abs() >= _EXACT))
        example = _first(engine, table.filter(broken.fill_null(False)).select(x=value).limit(1))
        if example is None:
            return None, True
        return f"{example!r} is no whole number that a float holds exactly", False
    return f"has type {kind}", False


def _first(engine: Engine, table: ibis.Table) -> Any:
    rows = engine.to_arrow(table)
    return rows.column(0)[0].as_py() if rows.num_rows else None


def _cast(unified: Identifiers, table: str, name: str, whole: bool, as_integers: bool) -> None:
    column = unified.tables[table][name]
    kind = column.type()
    if kind.is_floating():
        column = column.nullif(float("nan"))
    # A float 7.0 becomes 7 before it becomes text.
    if as_integers or (whole and not kind.is_integer()):
        column = column.cast("int64")
    if not as_integers:
        column = column.cast("string").nullif("")
        if whole and not kind.is_null():
            text = f"{name} is read as text, because ids of the same kind are text elsewhere"
            unified.findings[table].append(Finding("id_as_text", text, 0, "converted"))
    unified.tables[table] = unified.tables[table].mutate(**{name: column})
