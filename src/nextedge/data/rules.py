"""The rules that a row must meet, declared as pandera checks and counted in one pass.

pandera's own lazy validation brings the verdict on every row into Python once one row fails.
Its checks are Ibis expressions, though: here they are joined into one column, the first rule
that a row breaks, which the engine counts, gives examples of and filters by, at any size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ibis
import pandera.ibis as pandera

from nextedge import schema

if TYPE_CHECKING:
    from pandera.ibis import IbisData

INTERNAL = "__nextedge_"
"""Prefix of the columns that cleaning adds, and takes away again."""
PARSED = INTERNAL + "parsed_"
"""Prefix of a column's cleaned form, beside the column as it was given."""
KNOWN = INTERNAL + "known_"
"""Prefix of the flag that says whether an id is in the table that it refers to."""
REASON = INTERNAL + "reason"

PROPENSITY = "propensity"
_PAIRS = {
    schema.CONNECTIONS: (schema.SRC, schema.DST),
    schema.BLOCKS: (schema.USER_ID, schema.OTHER_ID),
}


@dataclass(frozen=True)
class Rule:
    """One rule: the row is dropped when the check fails."""

    code: str
    text: str
    columns: tuple[str, ...]
    """Columns to show of a row that breaks it."""
    check: pandera.Check


def _rule(code: str, text: str, columns: tuple[str, ...], holds: Callable[[Any], Any]) -> Rule:
    def evaluate(data: IbisData) -> Any:
        return holds(data.table).fill_null(False)

    return Rule(code, text, columns, pandera.Check(evaluate, name=code, ignore_na=False))


def row_rules(table: ibis.Table, spec: schema.Table) -> list[Rule]:
    """The rules of one table, in the order in which a row is judged."""
    rules = [
        _rule(f"missing_{name}", f"{name} is missing", spec.required, _is_given(name))
        for name in spec.required
    ]
    if spec.name == schema.IMPRESSIONS:
        rules.append(_one_shown(table))
        if PARSED + PROPENSITY in table.columns:
            text = "the propensity is no probability above 0 and at most 1"
            rules.append(_rule("bad_propensity", text, (PROPENSITY,), _is_propensity))
    if PARSED + schema.TIMESTAMP in table.columns:
        text = "the timestamp cannot be read; expected ISO 8601 or a number since 1970"
        rules.append(_rule("unreadable_timestamp", text, (schema.TIMESTAMP,), _is_readable))
    if PARSED + schema.WEIGHT in table.columns:
        text = "the weight is no number, negative or not finite"
        rules.append(_rule("bad_weight", text, (schema.WEIGHT,), _is_weight))
    if spec.name in _PAIRS:
        left, right = _PAIRS[spec.name]
        text = f"{left} and {right} are the same"
        rules.append(_rule("self_loop", text, (left, right), lambda t: t[left] != t[right]))
    for column in spec.columns:
        if KNOWN + column.name in table.columns:
            rules.append(_is_in_its_table(column))
    return rules


def _is_given(name: str) -> Callable[[Any], Any]:
    return lambda table: table[name].notnull()


def _is_readable(table: Any) -> Any:
    return table[schema.TIMESTAMP].isnull() | table[PARSED + schema.TIMESTAMP].notnull()


def _is_weight(table: Any) -> Any:
    weight = table[PARSED + schema.WEIGHT]
    good = weight.notnull() & ~weight.isnan() & ~weight.isinf() & (weight >= 0)
    return table[schema.WEIGHT].isnull() | good


def _is_propensity(table: Any) -> Any:
    propensity = table[PARSED + PROPENSITY]
    return table[PROPENSITY].isnull() | ((propensity > 0) & (propensity <= 1))


def _is_in_its_table(column: schema.Column) -> Rule:
    text = f'{column.name} is not in the table {column.refers_to} (data.dangling = "keep" keeps it)'
    name = column.name
    return _rule(
        f"dangling_{name}", text, (name,), lambda t: t[name].isnull() | t[KNOWN + name].notnull()
    )


def _one_shown(table: ibis.Table) -> Rule:
    shown = tuple(c for c in (schema.CANDIDATE_ID, schema.ITEM_ID) if c in table.columns)
    text = "not exactly one of candidate_id and item_id is given"

    def holds(rows: Any) -> Any:
        if len(shown) == 1:
            return rows[shown[0]].notnull()
        return rows[shown[0]].notnull() != rows[shown[1]].notnull()

    return _rule("shown_not_one", text, shown, holds)


def mark(table: ibis.Table, rules: list[Rule]) -> ibis.Table:
    """Add the column ``REASON``: the code of the first rule that the row breaks, or null."""
    if not rules:
        return table.mutate(**{REASON: ibis.null("string")})
    failed = [(~rule.check(table).check_output, rule.code) for rule in rules]
    return table.mutate(**{REASON: ibis.cases(*failed, else_=ibis.null("string"))})
