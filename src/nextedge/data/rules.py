"""The rules of valid rows, and a column with the first rule that a row breaks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ibis

from nextedge import schema

INTERNAL = "__nextedge_"  # prefix of columns that cleaning adds and later removes
PARSED = INTERNAL + "parsed_"  # prefix of the converted form of a column
KNOWN = INTERNAL + "known_"  # prefix of the flag that an id is in the table that it refers to
REASON = INTERNAL + "reason"

PROPENSITY = "propensity"
_PAIRS = {
    schema.CONNECTIONS: (schema.SRC, schema.DST),
    schema.BLOCKS: (schema.USER_ID, schema.OTHER_ID),
}


@dataclass(frozen=True)
class Rule:
    """One rule: cleaning drops a row if ``holds`` is false or null."""

    code: str
    text: str
    columns: tuple[str, ...]  # columns of an example
    holds: Callable[[Any], Any]  # from a table to a boolean column


def row_rules(table: ibis.Table, spec: schema.Table) -> list[Rule]:
    """The rules of one table, in the order of their checks."""
    rules = [
        Rule(f"missing_{name}", f"{name} is missing", spec.required, _is_given(name))
        for name in spec.required
    ]
    if spec.name == schema.IMPRESSIONS:
        rules.append(_one_shown(table))
        if PARSED + PROPENSITY in table.columns:
            text = "the propensity is no probability above 0 and at most 1"
            rules.append(Rule("bad_propensity", text, (PROPENSITY,), _is_propensity))
    if PARSED + schema.TIMESTAMP in table.columns:
        text = "the timestamp cannot be read; expected ISO 8601 or a number since 1970"
        rules.append(Rule("unreadable_timestamp", text, (schema.TIMESTAMP,), _is_readable))
    if PARSED + schema.WEIGHT in table.columns:
        text = "the weight is no number, negative or not finite"
        rules.append(Rule("bad_weight", text, (schema.WEIGHT,), _is_weight))
    if spec.name in _PAIRS:
        left, right = _PAIRS[spec.name]
        text = f"{left} and {right} are the same"
        rules.append(Rule("self_loop", text, (left, right), lambda t: t[left] != t[right]))
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
    # Estimates divide by it, so it cannot be 0.
    return table[PROPENSITY].isnull() | ((propensity > 0) & (propensity <= 1))


def _is_in_its_table(column: schema.Column) -> Rule:
    text = f'{column.name} is not in the table {column.refers_to} (data.dangling = "keep" keeps it)'
    name = column.name
    return Rule(
        f"dangling_{name}", text, (name,), lambda t: t[name].isnull() | t[KNOWN + name].notnull()
    )


def _one_shown(table: ibis.Table) -> Rule:
    ends = tuple(c for c in (schema.CANDIDATE_ID, schema.ITEM_ID) if c in table.columns)
    text = "not exactly one of candidate_id and item_id is given"

    def holds(rows: Any) -> Any:
        if len(ends) == 1:
            return rows[ends[0]].notnull()
        return rows[ends[0]].notnull() != rows[ends[1]].notnull()

    return Rule("shown_not_one", text, ends, holds)


def mark(table: ibis.Table, rules: list[Rule]) -> ibis.Table:
    """Add the column ``REASON``: the code of the first rule that the row breaks, or null."""
    if not rules:
        return table.mutate(**{REASON: ibis.null("string")})
    failed = [(~rule.holds(table).fill_null(False), rule.code) for rule in rules]
    # One column for all rules: one pass counts, filters and takes examples.
    return table.mutate(**{REASON: ibis.cases(*failed, else_=ibis.null("string"))})
