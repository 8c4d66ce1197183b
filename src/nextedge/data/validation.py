"""Reading and cleaning the input tables: what is used, what is dropped, how many and why.

Every rule is one named table expression. Counting and cleaning run inside the engine; no
table is pulled into Python. pandera checks the columns going in and the contract going out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from nextedge import schema
from nextedge.config import Config
from nextedge.data.report import CheckReport, Finding, TableReport
from nextedge.data.timestamps import to_utc
from nextedge.engines.base import Engine
from nextedge.errors import DataError, nearest
from nextedge.schema import ColumnKind

if TYPE_CHECKING:
    import ibis
    import pyarrow as pa

_ENDS = {  # the two ids of a row that must not be the same
    schema.CONNECTIONS: (schema.SRC, schema.DST),
    schema.BLOCKS: (schema.USER_ID, schema.OTHER_ID),
}
_FLAGS = {"discoverable": True, "available": True, "unsafe": False}


@dataclass(frozen=True)
class Validated:
    """Clean tables as expressions, by name, and the report of how they came to be."""

    tables: dict[str, ibis.Table]
    report: CheckReport


def validate(
    config: Config, engine: Engine, frames: dict[str, pa.Table] | None = None
) -> Validated:
    """Read, check and clean every table that is given.

    Args:
        config: where the tables are and how their columns are named.
        engine: runs the expressions.
        frames: Arrow tables that stand in for files, by table name.

    Raises:
        DataError: something cannot be used; names every fault of every table at once.
    """
    faults: list[str] = []
    raw: dict[str, ibis.Table] = {}
    locations = {name: "memory" for name in frames or {}} | dict(config.data.sources())
    for name, location in locations.items():
        try:
            table = engine.register(name, frames[name]) if frames and name in frames else (
                engine.read(name, location, config.base)
            )
            table = _rename(table, name, location, config)
            _check_columns(table, schema.TABLES[name], location)
            raw[name] = table
        except DataError as error:
            faults.append(str(error))
    _raise(faults)
    typed, notes = _unify_identifiers(raw, locations)
    tables: dict[str, ibis.Table] = {}
    reports = []
    for name in [table for table in schema.TABLES if table in typed]:
        try:
            cleaner = _Cleaner(schema.TABLES[name], locations[name], typed[name], notes[name])
            tables[name], report = cleaner.clean(tables, config)
            reports.append(report)
        except DataError as error:
            faults.append(str(error))
    _raise(faults + _unusable(config, reports))
    return Validated(tables, CheckReport(tuple(reports)))


def _raise(faults: list[str]) -> None:
    if faults:
        raise DataError("\n".join(faults))


def _unusable(config: Config, reports: list[TableReport]) -> list[str]:
    rows = {report.table: report.rows_used for report in reports}
    needs = {"people": schema.CONNECTIONS, "items": schema.INTERACTIONS}
    faults = []
    for name, surface in config.surfaces.items():
        table = needs[surface.kind]
        if rows.get(table, 0) == 0:
            state = "has no usable row" if table in rows else "is not given"
            faults.append(
                f"surface {name!r} needs the table {table!r}, which {state}; "
                f"give one with the columns {', '.join(schema.TABLES[table].required)}"
            )
    return faults


def _rename(table: ibis.Table, name: str, location: str, config: Config) -> ibis.Table:
    mapping = config.data.columns.get(name, {})
    for ours, theirs in mapping.items():
        if theirs not in table.columns:
            raise DataError(
                f"{name}: {location}: data.columns.{name}.{ours} names the column {theirs!r}, "
                f"which the table does not have; {nearest(theirs, table.columns)}"
            )
    shadowed = [ours for ours in mapping if ours in table.columns and ours not in mapping.values()]
    return table.drop(*shadowed).rename(mapping) if mapping else table


def _check_columns(table: ibis.Table, spec: schema.Table, location: str) -> None:
    """Required columns are there, and ids and lists have a type that can be used (pandera)."""
    import pandera.ibis as pandera
    from pandera.errors import SchemaErrors

    expected = pandera.DataFrameSchema({name: pandera.Column(nullable=True) for name in spec.required})
    try:
        expected.validate(table.limit(0), lazy=True)
    except SchemaErrors as error:
        missing = [name for name in spec.required if name not in table.columns]
        if not missing:
            raise DataError(f"{spec.name}: {location}: {error}") from None
        hints = "; ".join(f"{name!r}: {nearest(name, table.columns)}" for name in missing)
        raise DataError(
            f"{spec.name}: {location}: required column missing: {hints}; "
            f"if yours has another name, set data.columns.{spec.name}.{missing[0]}"
        ) from None
    if spec.name == schema.IMPRESSIONS and not (
        {schema.CANDIDATE_ID, schema.ITEM_ID} & set(table.columns)
    ):
        raise DataError(
            f"{spec.name}: {location}: required column missing: expected candidate_id or item_id"
        )
    for column in spec.columns:
        if column.name in table.columns:
            _check_type(table, spec, column, location)


def _check_type(table: ibis.Table, spec: schema.Table, column: schema.Column, place: str) -> None:
    kind = table[column.name].type()
    expected = None
    if column.kind is ColumnKind.IDENTIFIER:
        usable = kind.is_integer() or kind.is_string() or kind.is_uuid() or kind.is_null()
        if kind.is_floating():
            usable = not bool((table[column.name] % 1 != 0).any().to_pyarrow().as_py())
        expected = None if usable else "whole numbers or text"
    elif column.kind is ColumnKind.NUMBER and not (kind.is_numeric() or kind.is_null()):
        expected = "numbers"
    elif column.kind is ColumnKind.FLAG and not (
        kind.is_boolean() or kind.is_integer() or kind.is_null()
    ):
        expected = "true or false"
    elif column.kind is ColumnKind.TIMESTAMP and (kind.is_boolean() or kind.is_nested()):
        expected = "a time"
    if expected:
        raise DataError(
            f"{spec.name}: {place}: column {column.name!r} has the type {kind}; expected {expected}"
        )


def _unify_identifiers(
    raw: dict[str, ibis.Table], locations: dict[str, str]
) -> tuple[dict[str, ibis.Table], dict[str, list[Finding]]]:
    """Give all ids of one kind one type: int64 where every table has integers, else text."""
    ends: dict[str, list[tuple[str, str]]] = {"users": [], "items": []}
    for name, table in raw.items():
        for column in schema.TABLES[name].columns:
            if column.kind is ColumnKind.IDENTIFIER and column.name in table.columns:
                ends["items" if column.name == schema.ITEM_ID else "users"].append((name, column.name))
    notes: dict[str, list[Finding]] = {name: [] for name in raw}
    casts: dict[str, dict[str, Any]] = {name: {} for name in raw}
    for places in ends.values():
        whole = all(_fits_int64(raw[table][column].type()) for table, column in places)
        for table, column in places:
            kind = raw[table][column].type()
            values = raw[table][column].cast("int64") if kind.is_floating() else raw[table][column]
            casts[table][column] = values.cast("int64" if whole else "string")
            if not whole and not kind.is_string():
                text = f"{column} is {kind} here and text in another table: read as text"
                notes[table].append(Finding("id_as_text", text, 0, "converted"))
    return {name: raw[name].mutate(**casts[name]) for name in raw}, notes


def _fits_int64(kind: Any) -> bool:
    return bool(kind.is_integer() and not kind.is_uint64()) or bool(kind.is_floating())


class _Cleaner:
    """Cleans one table rule by rule, counting what each rule drops."""

    def __init__(
        self, spec: schema.Table, location: str, table: ibis.Table, notes: list[Finding]
    ) -> None:
        self.spec = spec
        self.location = location
        self.raw = table
        self.findings = list(notes)
        self.rules: list[tuple[str, str, Any]] = []

    def clean(
        self, others: dict[str, ibis.Table], config: Config
    ) -> tuple[ibis.Table, TableReport]:
        """The clean table, and its report."""
        table = self._normalise(self.raw)
        rows_read = int(self.raw.count().to_pyarrow().as_py())
        rules = self._row_rules(table) + self._dangling(table, others, config)
        table = self._drop(table, rules)
        table = self._unique(table, rules)
        rows_used, first, last = self._summary(table)
        self._contract(table)
        report = TableReport(
            self.spec.name, self.location, rows_read, rows_used, tuple(self.findings),
            {name: str(kind) for name, kind in table.schema().items()}, first, last,
        )  # fmt: skip
        return table, report

    def _normalise(self, table: ibis.Table) -> ibis.Table:
        import ibis

        changes: dict[str, Any] = {}
        for column in self.spec.columns:
            given = column.name in table.columns
            if column.kind is ColumnKind.TIMESTAMP and given:
                changes[column.name] = self._time(table, column.name)
            elif column.kind is ColumnKind.FLAG and column.name in _FLAGS:
                default = _FLAGS[column.name]
                changes[column.name] = (
                    table[column.name].cast("boolean").fill_null(default) if given else ibis.literal(default)
                )
        if self.spec.name in (schema.CONNECTIONS, schema.INTERACTIONS):
            weight = table[schema.WEIGHT] if schema.WEIGHT in table.columns else ibis.literal(1.0)
            changes[schema.WEIGHT] = weight.cast("float64").fill_null(1.0)
            if schema.TIMESTAMP not in table.columns:
                changes[schema.TIMESTAMP] = ibis.null("timestamp('UTC')")
        return table.mutate(**changes) if changes else table

    def _time(self, table: ibis.Table, name: str) -> Any:
        column, kind = table[name], table[name].type()
        if kind.is_timestamp() and kind.timezone is None:
            self.findings.append(Finding("naive_time", f"{name} has no zone: taken as UTC", 0, "converted"))
        if kind.is_null():
            return column.cast("timestamp('UTC')")
        parsed = to_utc(column)
        if kind.is_string():
            given, read = table.aggregate(given=column.count(), read=parsed.count()).to_pyarrow().to_pylist()[0].values()
            if given and not read:
                example = table.filter(column.notnull())[name].limit(1).to_pyarrow()[0].as_py()
                raise DataError(
                    f"{self.spec.name}: {self.location}: column {name!r}: no value can be read as "
                    f"a time (such as {example!r}); expected ISO 8601 or seconds since 1970"
                )
            if read < given:
                self.findings.append(Finding("unreadable_time", f"{name} cannot be read as a time: left empty", given - read, "converted"))
        return parsed

    def _row_rules(self, table: ibis.Table) -> list[tuple[str, str, Any]]:
        """(code, text, condition that drops a row), in the order in which they are counted."""
        rules: list[tuple[str, str, Any]] = []
        for name in self.spec.required:
            rules.append((f"null_{name}", f"{name} is missing", table[name].isnull()))
        if self.spec.name in _ENDS:
            left, right = _ENDS[self.spec.name]
            rules.append(("self_loop", f"{left} and {right} are the same", table[left] == table[right]))
        if schema.WEIGHT in table.columns and self.spec.name != schema.USERS:
            weight = table[schema.WEIGHT]
            if weight.type().is_floating():
                bad = weight.isnan() | weight.isinf() | (weight < 0)
                rules.append(("bad_weight", "weight is negative or not finite", bad))
        if self.spec.name == schema.IMPRESSIONS:
            shown = [table[name] for name in (schema.CANDIDATE_ID, schema.ITEM_ID) if name in table.columns]
            empty = shown[0].isnull() if len(shown) == 1 else shown[0].isnull() == shown[1].isnull()
            rules.append(("shown_nothing", "not exactly one of candidate_id and item_id is given", empty))
        return rules

    def _dangling(
        self, table: ibis.Table, others: dict[str, ibis.Table], config: Config
    ) -> list[tuple[str, str, Any]]:
        rules: list[tuple[str, str, Any]] = []
        for column in self.spec.columns:
            target = others.get(column.refers_to or "")
            if target is None or column.name not in table.columns or config.data.dangling == "keep":
                continue
            key = schema.TABLES[column.refers_to or ""].key[0]
            missing = table[column.name].notnull() & table[column.name].notin(target[key])
            text = f"{column.name} is not in the table {column.refers_to} (data.dangling = \"keep\" keeps such rows)"
            rules.append((f"dangling_{column.name}", text, missing))
        return rules

    def _drop(self, table: ibis.Table, rules: list[tuple[str, str, Any]]) -> ibis.Table:
        if not rules:
            return table
        import ibis

        reason = ibis.cases(*((condition.fill_null(False), code) for code, _, condition in rules), else_=ibis.null("string"))
        marked = table.mutate(_reason=reason)
        counted = marked.filter(marked._reason.notnull()).group_by("_reason").aggregate(rows=lambda t: t.count())
        counts = {row["_reason"]: row["rows"] for row in counted.to_pyarrow().to_pylist()}
        for code, text, _ in rules:
            if counts.get(code):
                sample = marked.filter(marked._reason == code).drop("_reason").limit(3).to_pyarrow().to_pylist()
                shown = tuple(", ".join(f"{name}={value!r}" for name, value in list(row.items())[:4]) for row in sample)
                self.findings.append(Finding(code, text, counts[code], "dropped", shown))
        return marked.filter(marked._reason.isnull()).drop("_reason") if counts else table

    def _unique(self, table: ibis.Table, rules: list[tuple[str, str, Any]]) -> ibis.Table:
        """One row a key, or no row twice where time tells repeats from copies."""
        import ibis

        if self.spec.key:
            numbered = table.mutate(_row=ibis.row_number())
            place = ibis.row_number().over(group_by=list(self.spec.key), order_by=ibis.desc("_row"))
            unique = numbered.mutate(_place=place).filter(lambda t: t._place == 0).drop("_row", "_place")
            code, text = "duplicate_id", "the id is there more than once: the last row is used"
        elif self.spec.name == schema.BLOCKS or self._is_timed(table):
            unique = table.distinct()
            code, text = "duplicate_row", "the same row is there more than once"
        else:
            return table
        before, after = (int(t.count().to_pyarrow().as_py()) for t in (table, unique))
        if before == after:
            return table
        self.findings.append(Finding(code, text, before - after, "dropped"))
        return unique

    def _is_timed(self, table: ibis.Table) -> bool:
        if schema.TIMESTAMP not in table.columns:
            return False
        return bool(table[schema.TIMESTAMP].notnull().any().to_pyarrow().as_py())

    def _summary(self, table: ibis.Table) -> tuple[int, str | None, str | None]:
        if schema.TIMESTAMP not in table.columns:
            return int(table.count().to_pyarrow().as_py()), None, None
        time = table[schema.TIMESTAMP]
        row = table.aggregate(
            rows=table.count(), first=time.min().cast("string"), last=time.max().cast("string"),
            future=(time > time.now() if hasattr(time, "now") else time.isnull()).sum(),
        ).to_pyarrow().to_pylist()[0]  # fmt: skip
        return row["rows"], row["first"], row["last"]

    def _contract(self, table: ibis.Table) -> None:
        """What every later step relies on, checked once more on the cleaned rows (pandera)."""
        import pandera.ibis as pandera
        from pandera.errors import SchemaErrors

        columns = {name: pandera.Column(nullable=False) for name in self.spec.required}
        try:
            pandera.DataFrameSchema(columns).validate(table, lazy=True)
        except SchemaErrors as error:
            raise DataError(f"{self.spec.name}: {self.location}: {error}") from None


def with_examples(report: TableReport, count: int) -> TableReport:
    """The report with at most ``count`` examples a finding."""
    kept = tuple(replace(f, examples=f.examples[:count]) for f in report.findings)
    return replace(report, findings=kept)
