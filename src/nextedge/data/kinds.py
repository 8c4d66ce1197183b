"""Infer the kinds of the feature columns of users and items.

The configuration decides first, then the names of the schema, then these rules in order:

==================================================  ===========================================
a list of plain values                              tags
true or false; a time or a date                     flag; timestamp
``latitude`` or ``lat``, ``longitude``, ``lon`` …   latitude, longitude
fractions                                           number
whole numbers, a name that ends in ``id``,          category (a code)
``index``, ``code`` or the like
whole numbers, few different ones                   category
whole numbers that repeat though they are           category
scattered over a wide range
other whole numbers                                 number
text, nearly all different, without blanks          ignored (an address, a hash, a login)
text, few different ones or without blanks          category
other text                                          text
==================================================  ===========================================

Few is at most 50 or the square root of the rows, for text also a quarter of the rows. Numbers are
scattered if less than a fifth of the whole numbers between the quartiles occur.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nextedge import schema
from nextedge.config import EntityFeatures
from nextedge.engines.base import ROW_NUMBER
from nextedge.errors import ConfigError, nearest
from nextedge.schema import ColumnKind

if TYPE_CHECKING:
    import ibis

_FEW_VALUES = 50
_LONG_TEXT = 48
_REPEATED = 0.7  # distinct values per row, at most
_UNIQUE = 0.9  # distinct values per row, at least
_SCATTERED = 0.2  # share of the whole numbers between the quartiles that occur, at most
_CODE = r"(^|[_\W])(id|ids|idx|index|code|cd|key)$"
_SINGLE_WORD = r"^[!-~]+$"  # ASCII, as other scripts write sentences without blanks
_DEGREES = {
    **dict.fromkeys(("latitude", "lat"), ColumnKind.LATITUDE),
    **dict.fromkeys(("longitude", "lon", "lng"), ColumnKind.LONGITUDE),
}


@dataclass(frozen=True)
class _Facts:
    """Statistics of one column: rows with a value, distinct values, and others by its type."""

    rows: int
    distinct: int
    length: float = 0.0
    single_words: int = 0
    fractions: int = 0
    lower: float = 0.0
    upper: float = 0.0

    @property
    def few(self) -> bool:
        return self.distinct <= max(_FEW_VALUES, math.sqrt(self.rows))


def feature_kinds(
    table: ibis.Table, spec: schema.Table, settings: EntityFeatures
) -> dict[str, ColumnKind]:
    """The kind of each feature column, configured or inferred; others are ignored.

    Raises:
        ConfigError: a configured column is not in the table (names the nearest one), or its
            type does not fit the configured kind.
    """
    configured = _configured(table, spec, settings)
    left_out = {*spec.key, *settings.ignore, ROW_NUMBER}
    names = [name for name in table.columns if name not in left_out]
    kinds = {name: configured.get(name) or _of_schema(spec, name, table) for name in names}
    facts = _facts(table, [name for name, kind in kinds.items() if kind is None])
    for name in (name for name, kind in kinds.items() if kind is None):
        kinds[name] = _inferred(table, name, facts.get(name))
    return {name: kind for name, kind in kinds.items() if kind is not None}


def _configured(
    table: ibis.Table, spec: schema.Table, settings: EntityFeatures
) -> dict[str, ColumnKind]:
    kinds: dict[str, ColumnKind] = {}
    for setting, kind in (
        ("categorical", ColumnKind.CATEGORY),
        ("numeric", ColumnKind.NUMBER),
        ("text", ColumnKind.TEXT),
        ("tags", ColumnKind.TAGS),
    ):
        for name in getattr(settings, setting) or ():
            where = f"features.{spec.name}.{setting}"
            if name not in table.columns:
                raise ConfigError(
                    f"{where} names the column {name!r}, which the table does not have; "
                    f"{nearest(name, table.columns)}"
                )
            if not _can_be(table[name].type(), kind):
                raise ConfigError(
                    f"{where} names the column {name!r} of type {table[name].type()}; "
                    f"expected a column that can be a {kind.value}"
                )
            kinds[name] = kind
    return kinds


def _can_be(kind: Any, wanted: ColumnKind) -> bool:
    if wanted is ColumnKind.TAGS:
        return bool(kind.is_array() and not kind.value_type.is_nested())
    if wanted is ColumnKind.NUMBER:
        return bool(kind.is_numeric())
    return not (kind.is_nested() or kind.is_binary())


def _of_schema(spec: schema.Table, name: str, table: ibis.Table) -> ColumnKind | None:
    """The schema's kind, unless the column's type does not fit it."""
    kind = spec.kind_of(name)
    if kind in (ColumnKind.CATEGORY, ColumnKind.TEXT) and not _can_be(table[name].type(), kind):
        return None
    if kind is ColumnKind.TAGS and not table[name].type().is_array():
        return ColumnKind.CATEGORY
    return kind


def _facts(table: ibis.Table, names: list[str]) -> dict[str, _Facts]:
    """Statistics of columns, in one pass over the table."""
    wanted: dict[str, Any] = {}
    for position, name in enumerate(names):
        column, kind = table[name], table[name].type()
        facts: dict[str, Any] = {}
        if kind.is_string():
            facts["length"] = column.length().mean()
            facts["single_words"] = column.re_search(_SINGLE_WORD).sum()
        elif kind.is_numeric() and not kind.is_boolean():
            number = column.cast("float64")
            finite = (number.isnan() | number.isinf()).ifelse(None, number)
            facts["fractions"] = (finite % 1 != 0).sum()
            facts["lower"], facts["upper"] = (finite.approx_quantile(q) for q in (0.25, 0.75))
        if facts:
            # An exact number of distinct values would hold all of them in memory.
            facts |= {"rows": column.count(), "distinct": column.approx_nunique()}
        # By position, as the name of a column may contain a slash.
        wanted |= {f"{position}/{fact}": value for fact, value in facts.items()}
    if not wanted:
        return {}
    row = table.aggregate(**wanted).to_pyarrow().to_pylist()[0]
    by_name: dict[str, dict[str, Any]] = {}
    for key, value in row.items():
        position, fact = key.split("/")
        by_name.setdefault(names[int(position)], {})[fact] = value or 0
    return {name: _Facts(**facts) for name, facts in by_name.items()}


def _inferred(table: ibis.Table, name: str, facts: _Facts | None) -> ColumnKind | None:
    kind = table[name].type()
    if kind.is_array():
        return ColumnKind.TAGS if _can_be(kind, ColumnKind.TAGS) else None
    if kind.is_boolean():
        return ColumnKind.FLAG
    if kind.is_timestamp() or kind.is_date():
        return ColumnKind.TIMESTAMP
    if facts is None or not facts.rows:
        return None
    if kind.is_string():
        return _of_text(facts)
    if name.lower() in _DEGREES:
        return _DEGREES[name.lower()]
    return ColumnKind.CATEGORY if _is_code(table, name, facts) else ColumnKind.NUMBER


def _of_text(facts: _Facts) -> ColumnKind | None:
    single = facts.single_words >= 0.99 * facts.rows
    if facts.length > _LONG_TEXT and not single:
        return ColumnKind.TEXT
    if facts.few or facts.distinct * 4 <= facts.rows:
        return ColumnKind.CATEGORY
    if single:
        return None if facts.distinct >= _UNIQUE * facts.rows else ColumnKind.CATEGORY
    return ColumnKind.TEXT


def _is_code(table: ibis.Table, name: str, facts: _Facts) -> bool:
    if facts.fractions:
        return False
    if facts.few or re.search(_CODE, name.lower()):
        return True
    if facts.distinct > _REPEATED * facts.rows:
        return False
    within = table[name].between(facts.lower, facts.upper)
    # Amounts and ages repeat once the range around them is full, codes of a long list earlier.
    occurring = table.filter(within)[name].approx_nunique().to_pyarrow().as_py()
    return bool(occurring < _SCATTERED * (facts.upper - facts.lower + 1))
