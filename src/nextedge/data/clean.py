"""Clean one table for later steps, and count every dropped row.

The engine counts: one pass judges every row and counts by reason, another finds duplicates. Only
the example rows come into Python.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import ibis

from nextedge import schema
from nextedge.config import Config
from nextedge.data.normalise import Normalised, finish, normalise
from nextedge.data.report import Finding, TableReport
from nextedge.data.rules import INTERNAL, KNOWN, PARSED, REASON, Rule, mark, row_rules
from nextedge.engines.base import Engine
from nextedge.errors import DataError, nearest
from nextedge.schema import ColumnKind

if TYPE_CHECKING:
    from ibis.expr.types import Table

_ROW = INTERNAL + "row"
_RANK = INTERNAL + "rank"
_EXAMPLES = 3


@dataclass(frozen=True)
class Context:
    """The inputs of cleaning beside the table: clean tables before it, id types and settings."""

    engine: Engine
    clean: Mapping[str, Table]
    id_types: Mapping[str, str]
    keep_dangling: bool
    directed: bool
    now: datetime


def clean_table(
    spec: schema.Table, table: Table, location: str, context: Context
) -> tuple[Table, TableReport]:
    """Clean one table; returns an expression and the report.

    Raises:
        DataError: no timestamp can be read, or the type of a column is not usable.
    """
    normal = normalise(context.engine, spec, table, location)
    rules = row_rules(_with_known(normal.table, spec, context), spec)
    counts = _judge(normal, spec, rules, context)
    _require_readable_times(spec, normal, counts, location)
    findings = normal.findings + _row_findings(normal, spec, rules, counts, context)
    valid = _valid(normal.table, spec, rules, context)
    clean = finish(normal, spec, valid, context.id_types)
    used = counts.get(None, {}).get("rows", 0)
    clean, more = _unique(clean, normal, spec, rules, used, context)
    if spec.name == schema.CONNECTIONS:
        more += _repeated_pairs(clean, used - sum(f.rows for f in more), context)
    read = sum(count["rows"] for count in counts.values())
    lost = sum(f.rows for f in more if f.action in ("dropped", "merged"))
    span = counts.get(None, {})
    return clean, TableReport(
        table=spec.name,
        location=location,
        rows_read=read,
        rows_used=used - lost,
        findings=tuple(findings + more + _time_findings(spec, normal, span, context)),
        columns={name: str(kind) for name, kind in clean.schema().items()},
        first=_iso(span.get("first")),
        last=_iso(span.get("last")),
    )


def _with_known(table: Table, spec: schema.Table, context: Context) -> Table:
    """Join a flag for every id that refers to another table of the tenant."""
    if context.keep_dangling:
        return table
    for column in spec.columns:
        target = context.clean.get(column.refers_to or "")
        if target is None or column.name not in table.columns:
            continue
        key = schema.TABLES[column.refers_to or ""].key[0]
        name = KNOWN + column.name
        # Distinct: a repeated id would repeat the rows that refer to it.
        known = target.select(**{name: target[key]}).distinct()
        table = table.left_join(known, table[column.name] == known[name])
    return table


def _valid(table: Table, spec: schema.Table, rules: list[Rule], context: Context) -> Table:
    marked = mark(_with_known(table, spec, context), rules)
    return marked.filter(marked[REASON].isnull())


def _judge(
    normal: Normalised, spec: schema.Table, rules: list[Rule], context: Context
) -> dict[str | None, dict[str, Any]]:
    """By reason (None: the row is used): rows, time span, and numbers of unreadable values."""
    marked = mark(_with_known(normal.table, spec, context), rules)
    wanted: dict[str, Any] = {"rows": marked.count()}
    if normal.timed:
        time = marked[PARSED + schema.TIMESTAMP]
        now = ibis.literal(context.now).cast("timestamp('UTC', 6)")
        wanted |= {"first": time.min(), "last": time.max(), "timed": time.count()}
        wanted["future"] = (time > now).sum()
    for name in _optional(normal, spec):
        lost = marked[name].notnull() & marked[PARSED + name].isnull()
        wanted[f"lost/{name}"] = lost.sum()
    if spec.key:
        wanted["distinct"] = marked[spec.key[0]].nunique()
    rows = context.engine.to_arrow(marked.group_by(REASON).aggregate(**wanted)).to_pylist()
    return {row[REASON]: row for row in rows}


def _optional(normal: Normalised, spec: schema.Table) -> list[str]:
    # an unreadable value of these columns becomes empty; of the others it drops the row
    judged = {schema.TIMESTAMP, schema.WEIGHT}
    return [name for name in normal.parsed if name not in judged or spec.key]


def _require_readable_times(
    spec: schema.Table, normal: Normalised, counts: dict[str | None, dict[str, Any]], location: str
) -> None:
    unreadable = counts.get("unreadable_timestamp", {}).get("rows", 0)
    if unreadable and not any(count.get("timed") for count in counts.values()):
        raise DataError(
            f"{spec.name}: {location}: column 'timestamp': none of its {unreadable:,} values "
            f"can be read as a time; expected ISO 8601 (2024-05-01T10:00:00Z) or a number"
        )


def _row_findings(
    normal: Normalised,
    spec: schema.Table,
    rules: list[Rule],
    counts: dict[str | None, dict[str, Any]],
    context: Context,
) -> list[Finding]:
    findings = []
    for rule in rules:
        if rows := counts.get(rule.code, {}).get("rows", 0):
            examples = _examples(normal, spec, rules, rule, context)
            findings.append(Finding(rule.code, rule.text, rows, "dropped", examples))
    for name in _optional(normal, spec):
        if lost := int(counts.get(None, {}).get(f"lost/{name}") or 0):
            default = normal.defaults.get(name)
            instead = "left empty" if default is None else f"taken as {str(default).lower()}"
            text = f"{name} cannot be read: {instead}"
            findings.append(Finding(f"unreadable_{name}", text, lost, "converted"))
    return findings


def _examples(
    normal: Normalised, spec: schema.Table, rules: list[Rule], rule: Rule, context: Context
) -> tuple[str, ...]:
    numbered = normal.table.mutate(**{_ROW: context.engine.row_number(normal.table)})
    marked = mark(_with_known(numbered, spec, context), rules)
    chosen = marked.filter(marked[REASON] == rule.code).order_by(_ROW).limit(_EXAMPLES)
    # as text: Python has no time before the year 1 or after 9999
    times = {
        name: chosen[name].cast("string")
        for name in rule.columns
        if chosen[name].type().is_timestamp()
    }
    chosen = chosen.mutate(**times) if times else chosen
    rows = context.engine.to_arrow(chosen.select(_ROW, *rule.columns)).to_pylist()
    return tuple(
        f"row {row[_ROW] + 1}: " + ", ".join(f"{name}={row[name]!r}" for name in rule.columns)
        for row in rows
    )


def _unique(
    clean: Table,
    normal: Normalised,
    spec: schema.Table,
    rules: list[Rule],
    used: int,
    context: Context,
) -> tuple[Table, list[Finding]]:
    """One row for each key; in tables without a key, no row that is equal in every column."""
    if spec.key:
        distinct = _count(context, clean.select(spec.key[0]).distinct()) if used else 0
        # The last row of each id takes a sort, which a table without repeats is spared.
        if distinct == used:
            return clean, []
        text = f"{spec.key[0]} is there more than once: the last row is used"
        last = _last_of_key(normal, spec, rules, context)
        return last, [Finding("duplicate_id", text, used - distinct, "merged")]
    # without a time, an equal row may be a repeat and not a copy
    if spec.name != schema.BLOCKS and not normal.timed:
        return clean, []
    unique = clean.distinct()
    if normal.timed:
        timed = clean.filter(clean[schema.TIMESTAMP].notnull()).distinct()
        unique = timed.union(clean.filter(clean[schema.TIMESTAMP].isnull()))
    count = _count(context, unique)
    if count == used:
        return clean, []
    text = "the same row is there more than once, equal in every column"
    return unique, [Finding("duplicate_row", text, used - count, "dropped")]


def _last_of_key(
    normal: Normalised, spec: schema.Table, rules: list[Rule], context: Context
) -> Table:
    numbered = normal.table.mutate(**{_ROW: context.engine.row_number(normal.table)})
    valid = _valid(numbered, spec, rules, context)
    rank = ibis.row_number().over(group_by=list(spec.key), order_by=ibis.desc(_ROW))
    ranked = valid.mutate(**{_RANK: rank})
    last = ranked.filter(ranked[_RANK] == 0).order_by(_ROW)
    return finish(normal, spec, last, context.id_types)


def _repeated_pairs(clean: Table, used: int, context: Context) -> list[Finding]:
    src, dst = clean[schema.SRC], clean[schema.DST]
    pairs = clean.select(a=src, b=dst)
    if not context.directed:
        pairs = clean.select(a=ibis.least(src, dst), b=ibis.greatest(src, dst))
    repeated = used - _count(context, pairs.distinct())
    if not repeated:
        return []
    text = "the pair is there already: kept, and counted in its weight"
    return [Finding("repeated_pair", text, repeated, "kept")]


def _time_findings(
    spec: schema.Table, normal: Normalised, span: dict[str, Any], context: Context
) -> list[Finding]:
    if spec.kind_of(schema.TIMESTAMP) is not ColumnKind.TIMESTAMP:
        return []
    if not normal.timed:
        text = "no timestamp: splits are random, and nothing is known of order"
        return [Finding("no_timestamp", text, 0, "warning")]
    findings = []
    if untimed := span.get("rows", 0) - span.get("timed", 0):
        text = "timestamp is missing: the row is used, without a time"
        findings.append(Finding("missing_time", text, untimed, "kept"))
    if future := int(span.get("future") or 0):
        text = f"the timestamp is later than now ({context.now:%Y-%m-%d %H:%M} UTC)"
        findings.append(Finding("future_timestamp", text, future, "warning"))
    return findings


def _count(context: Context, table: Table) -> int:
    return int(context.engine.to_arrow(table.aggregate(rows=table.count()))["rows"][0].as_py())


def _iso(time: datetime | None) -> str | None:
    return time.astimezone(UTC).isoformat() if time is not None else None


def renamed(table: Table, name: str, location: str, config: Config) -> Table:
    """The table with the column names of the schema, mapped by ``data.columns``."""
    mapping = config.data.columns.get(name, {})
    for ours, theirs in mapping.items():
        if theirs not in table.columns:
            raise DataError(
                f"{name}: {location}: data.columns.{name}.{ours} names the column {theirs!r}, "
                f"which is not there; {nearest(theirs, table.columns)}"
            )
    # A column that has our name but is not the mapped one must not come as well.
    taken = set(mapping) | set(mapping.values())
    others = {column: table[column] for column in table.columns if column not in taken}
    return table.select(**{o: table[t] for o, t in mapping.items()}, **others) if mapping else table
