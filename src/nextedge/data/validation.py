"""Read and clean all tables of a tenant, and report used and dropped rows with reasons.

This module checks required columns before cleaning and types after it; ``nextedge.data.rules`` has
the rules for rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from nextedge import schema
from nextedge.config import Config
from nextedge.data.clean import renamed
from nextedge.data.contact_columns import identifier_columns
from nextedge.data.report import CheckReport, Finding, TableReport
from nextedge.engines.base import Engine
from nextedge.errors import ConfigError, DataError, nearest

if TYPE_CHECKING:
    from ibis.expr.types import Table

_NEEDED = {"people": schema.CONNECTIONS, "items": schema.INTERACTIONS}


@dataclass(frozen=True)
class Validated:
    """Clean tables as expressions by name, and the report."""

    tables: dict[str, Table]
    report: CheckReport


def validate(config: Config, engine: Engine, frames: Mapping[str, Any] | None = None) -> Validated:
    """Read, check and clean every table of a tenant.

    Args:
        config: locations of the tables and names of their columns.
        frames: pandas, Polars, Arrow, DuckDB or Ibis tables by name, which replace files.

    Raises:
        DataError: a table is not usable; lists every fault of every table.
    """
    validated = inspect_data(config, engine, frames)
    if validated.report.fatal:
        raise DataError("\n".join(validated.report.fatal))
    return validated


def check_data(config: Config, frames: Mapping[str, Any] | None = None) -> CheckReport:
    """The report of ``inspect_data`` on a new local engine."""
    from nextedge.engines.duckdb.engine import LocalEngine

    with LocalEngine() as engine:
        return inspect_data(config, engine, frames).report


def inspect_data(
    config: Config, engine: Engine, frames: Mapping[str, Any] | None = None
) -> Validated:
    """Like ``validate``, but faults are in ``report.fatal`` instead of being raised."""
    faults: list[str] = []
    locations, tables = _read_all(config, engine, frames or {}, faults)
    clean, reports = _clean_all(config, engine, tables, locations, faults)
    if not faults:  # a missing table may be one with a fault
        faults += _unusable(config, reports)
    return Validated(clean, CheckReport(tuple(reports), tuple(faults)))


def _read_all(
    config: Config, engine: Engine, frames: Mapping[str, Any], faults: list[str]
) -> tuple[dict[str, str], dict[str, Table]]:
    from nextedge.storage.locations import public_url

    locations, tables = {}, {}
    for name in frames:
        if name not in schema.TABLES:
            faults.append(f"no table {name!r}; {nearest(name, schema.TABLES)}")
    sources = dict(config.data.sources()) | dict.fromkeys(frames, "memory")
    # The schema's order: a table comes after those that it refers to.
    for name in (table for table in schema.TABLES if table in sources):
        locations[name] = public_url(sources[name])
        try:
            if name in frames:
                table = engine.register(name, frames[name])
            else:
                table = engine.read(name, sources[name], config.base)
            table = renamed(table, name, locations[name], config)
            if name == schema.USERS:
                # Addresses and numbers stay out of every table: ``contact_columns`` stores hashes.
                table = table.drop(*identifier_columns(table, config))
            table = _with_types(table, schema.TABLES[name])
            _require_columns(table, schema.TABLES[name], locations[name])
            tables[name] = table
        except DataError as error:
            faults.append(str(error))
    return locations, tables


def _clean_all(
    config: Config,
    engine: Engine,
    tables: dict[str, Table],
    locations: dict[str, str],
    faults: list[str],
) -> tuple[dict[str, Table], list[TableReport]]:
    from nextedge.data.clean import Context, clean_table
    from nextedge.data.erased_users import ErasedUsers, without_erased_users
    from nextedge.data.identifiers import unify_identifiers

    unified = unify_identifiers(engine, tables, locations)
    faults += unified.faults
    clean: dict[str, Table] = {}
    reports: list[TableReport] = []
    if unified.faults:
        return clean, reports
    context = Context(
        engine,
        {},
        _id_types(unified.tables),
        config.data.dangling == "keep",
        config.data.directed,
        datetime.now(UTC),
    )
    forgotten = ErasedUsers(config.state_path)
    for name, whole in unified.tables.items():
        try:
            table, dropped = without_erased_users(engine, name, whole, forgotten)
            referred = {key: clean[key] for key in _filled(reports)}
            context = replace(context, clean=referred)
            clean[name], report = clean_table(schema.TABLES[name], table, locations[name], context)
            _require_types(clean[name], schema.TABLES[name], context.id_types)
            kinds = _kinds(clean[name], schema.TABLES[name], config)
        except (DataError, ConfigError) as error:
            faults.append(_named(name, locations[name], str(error)))
            continue  # the report has the faults of all tables
        said = tuple(unified.findings[name]) + dropped + report.findings + _emptiness(report)
        read = report.rows_read + sum(finding.rows for finding in dropped)
        reports.append(replace(report, rows_read=read, findings=said, kinds=kinds))
    return clean, reports


def _kinds(table: Table, spec: schema.Table, config: Config) -> dict[str, str]:
    """Kind of each column, or ``ignored``."""
    from nextedge.data.kinds import feature_kinds

    known = {name: kind for name in table.columns if (kind := spec.kind_of(name))}
    if spec.name in (schema.USERS, schema.ITEMS):
        known |= feature_kinds(table, spec, getattr(config.features, spec.name))
    return {name: known[name].value if name in known else "ignored" for name in table.columns}


def _filled(reports: list[TableReport]) -> list[str]:
    # an empty table counts as absent
    return [report.table for report in reports if report.rows_used]


def _emptiness(report: TableReport) -> tuple[Finding, ...]:
    if report.rows_used:
        return ()
    text = "no usable row: the table is taken as not given"
    return (Finding("empty", text, 0, "warning"),)


def _named(table: str, location: str, message: str) -> str:
    return message if message.startswith(f"{table}: ") else f"{table}: {location}: {message}"


def _id_types(tables: Mapping[str, Table]) -> dict[str, str]:
    types = {}
    for name, table in tables.items():
        for column in schema.TABLES[name].columns:
            if column.kind is schema.ColumnKind.IDENTIFIER and column.name in table.columns:
                types[column.refers_to or name] = str(table[column.name].type())
    return types


def _with_types(table: Table, spec: schema.Table) -> Table:
    """The table with a type for columns without values, which have none."""
    import ibis

    fitting = {schema.ColumnKind.IDENTIFIER: "int64", schema.ColumnKind.TAGS: "array<string>"}
    empty = {}
    for name, kind in table.schema().items():
        if kind.is_null() or (kind.is_unknown() and "NULL" in str(kind)):
            known = spec.kind_of(name)
            empty[name] = ibis.null(fitting.get(known, "string") if known else "string")
    return table.mutate(**empty) if empty else table


def _require_columns(table: Table, spec: schema.Table, location: str) -> None:
    missing = sorted(set(spec.required) - set(table.columns))
    if missing:
        hints = "; ".join(f"{column!r} ({_nearest(column, table.columns)})" for column in missing)
        raise DataError(
            f"{spec.name}: {location}: required column missing: {hints}; if yours has another "
            f'name, set [data.columns.{spec.name}] {missing[0]} = "your name"'
        )
    if spec.name == schema.IMPRESSIONS and not (
        {schema.CANDIDATE_ID, schema.ITEM_ID} & set(table.columns)
    ):
        raise DataError(
            f"{spec.name}: {location}: required column missing: expected candidate_id or item_id"
        )


def _nearest(name: str, columns: Sequence[str]) -> str:
    """A hint with the nearest column, regardless of case."""
    same = next((column for column in columns if column.casefold() == name.casefold()), None)
    listed = f"valid: {', '.join(sorted(columns))}"
    return f"did you mean {same!r}? {listed}" if same else nearest(name, columns)


def _require_types(table: Table, spec: schema.Table, id_types: Mapping[str, str]) -> None:
    """Raise TypeError if a clean column has not the type that later steps rely on."""
    import ibis

    kinds = {schema.ColumnKind.TIMESTAMP: "timestamp('UTC', 6)", schema.ColumnKind.FLAG: "boolean"}
    types = table.schema()
    for column in spec.columns:
        kind = kinds.get(column.kind)
        if column.kind is schema.ColumnKind.IDENTIFIER:
            kind = id_types.get(column.refers_to or spec.name)
        if kind is None or (column.name not in types and not column.required):
            continue
        # a fault of this package, not of the tenant's data: no DataError
        if column.name not in types or types[column.name].copy(nullable=True) != ibis.dtype(kind):
            raise TypeError(f"{spec.name}.{column.name} is not {kind} after cleaning: {types}")


def _unusable(config: Config, reports: list[TableReport]) -> list[str]:
    rows = {report.table: report for report in reports}
    faults = []
    for name, surface in config.surfaces.items():
        table = _NEEDED[surface.kind]
        columns = ", ".join(schema.TABLES[table].required)
        if table not in rows:
            faults.append(
                f"surface {name!r} needs the table {table!r}, which is not given; "
                f"add it to [data], with the columns {columns}"
            )
        elif rows[table].rows_used == 0:
            faults.append(
                f"{table}: {rows[table].location}: no usable row of {rows[table].rows_read:,} read "
                f"({_why(rows[table])}); surface {name!r} needs at least one, with the columns "
                f"{columns}"
            )
    return faults


def _why(report: TableReport) -> str:
    dropped = [f for f in report.findings if f.action == "dropped"]
    return "; ".join(f"{f.rows:,}: {f.text}" for f in dropped) or "the table is empty"
