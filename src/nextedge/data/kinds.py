"""Which columns of users and items are features, and of which kind."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nextedge import schema
from nextedge.config import EntityFeatures
from nextedge.errors import ConfigError, nearest
from nextedge.schema import ColumnKind

if TYPE_CHECKING:
    import ibis

_FEW_VALUES = 50
_LONG_TEXT = 24


def feature_kinds(
    table: ibis.Table, spec: schema.Table, settings: EntityFeatures
) -> dict[str, ColumnKind]:
    """The kind of each feature column, configured or inferred.

    Known columns have the kind of the schema. Others go by type: lists are tags; booleans
    flags; text is a category when few values repeat over many rows, free text when long or
    nearly unique; whole numbers with few or often repeated values are categories (codes);
    other numbers are numbers.

    Raises:
        ConfigError: a configured column is not in the table; names the nearest one.
    """
    configured = _configured(table, settings)
    names = [name for name in table.columns if name not in spec.key]
    facts = _facts(table, [name for name in names if name not in configured])
    kinds: dict[str, ColumnKind] = {}
    for name in names:
        if name in settings.ignore:
            continue
        kind = (
            configured.get(name) or _of_schema(spec, name, table) or _inferred(table, name, facts)
        )
        if kind is not None:
            kinds[name] = kind
    return kinds


def _configured(table: ibis.Table, settings: EntityFeatures) -> dict[str, ColumnKind]:
    kinds: dict[str, ColumnKind] = {}
    for setting, kind in (
        ("categorical", ColumnKind.CATEGORY),
        ("numeric", ColumnKind.NUMBER),
        ("text", ColumnKind.TEXT),
        ("tags", ColumnKind.TAGS),
    ):
        for name in getattr(settings, setting) or ():
            if name not in table.columns:
                raise ConfigError(
                    f"features: {setting} names the column {name!r}, which the table does not "
                    f"have; {nearest(name, table.columns)}"
                )
            kinds[name] = kind
    return kinds


def _of_schema(spec: schema.Table, name: str, table: ibis.Table) -> ColumnKind | None:
    """The schema's kind, unless the column's type cannot carry it."""
    kind = spec.kind_of(name)
    if kind is ColumnKind.TAGS and not table[name].type().is_array():
        return ColumnKind.CATEGORY
    if kind is ColumnKind.CATEGORY and table[name].type().is_array():
        return ColumnKind.TAGS
    return kind


def _facts(table: ibis.Table, names: list[str]) -> dict[str, tuple[int, int, float]]:
    """Per column: rows with a value, distinct values (approximate), mean length of text."""
    plain = [n for n in names if table[n].type().is_string() or table[n].type().is_integer()]
    if not plain:
        return {}
    wanted = {}
    for place, name in enumerate(plain):
        column = table[name]
        wanted[f"count_{place}"] = column.count()
        wanted[f"distinct_{place}"] = column.approx_nunique()
        if column.type().is_string():
            wanted[f"length_{place}"] = column.length().mean()
    row = table.aggregate(**wanted).to_pyarrow().to_pylist()[0]
    return {
        name: (row[f"count_{p}"], row[f"distinct_{p}"], row.get(f"length_{p}") or 0.0)
        for p, name in enumerate(plain)
    }


def _inferred(
    table: ibis.Table, name: str, facts: dict[str, tuple[int, int, float]]
) -> ColumnKind | None:
    kind = table[name].type()
    if kind.is_array():
        return ColumnKind.TAGS
    if kind.is_boolean():
        return ColumnKind.FLAG
    if kind.is_timestamp() or kind.is_date():
        return ColumnKind.TIMESTAMP
    if kind.is_floating() or kind.is_decimal():
        return ColumnKind.NUMBER
    if name not in facts:
        return None
    rows, distinct, length = facts[name]
    few = distinct <= max(_FEW_VALUES, rows**0.5) or distinct * 4 <= rows
    if kind.is_integer():
        codes = distinct <= max(_FEW_VALUES, rows**0.5) or distinct * 2 <= rows
        return ColumnKind.CATEGORY if codes else ColumnKind.NUMBER
    if few and length <= 2 * _LONG_TEXT:
        return ColumnKind.CATEGORY
    return ColumnKind.TEXT if length > _LONG_TEXT or distinct > 0 else None
