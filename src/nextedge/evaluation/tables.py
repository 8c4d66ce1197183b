"""The tables of a report as header and rows of text, for a terminal or a document to draw."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from nextedge.evaluation.bootstrap import Interval
from nextedge.evaluation.off_policy import OffPolicyValue
from nextedge.evaluation.report import EvaluationReport, SystemReport

BEST_MARK = "*"
MISSING = "-"
TERMINAL_WIDTH = 100
BETWEEN_COLUMNS = 3
"""Characters that a drawn table puts between two columns: a line and a space at each side."""


@dataclass(frozen=True, slots=True)
class TableRows:
    """A title, a header, and rows as wide as the header; ``best`` is the row that leads.

    The first ``keys`` columns say what a row is about.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    best: int | None = None
    keys: int = 1

    @property
    def width(self) -> int:
        """Characters across, when drawn with lines."""
        return _drawn(_column_widths(self))


def fit(table: TableRows, width: int = TERMINAL_WIDTH) -> tuple[TableRows, ...]:
    """Return the table cut by columns into tables that are at most ``width`` characters.

    Each repeats the key columns and keeps the order of the rest. A column that is too wide
    beside the keys stands alone.
    """
    widths = _column_widths(table)
    keys = list(range(table.keys))
    parts = [list(keys)]
    for column in range(table.keys, len(table.header)):
        taken = [widths[place] for place in (*parts[-1], column)]
        # A cut before any column would leave a table of keys alone.
        if len(parts[-1]) > len(keys) and _drawn(taken) > width:
            parts.append(list(keys))
        parts[-1].append(column)
    return tuple(
        replace(
            table,
            header=tuple(table.header[column] for column in part),
            rows=tuple(tuple(row[column] for column in part) for row in table.rows),
        )
        for part in parts
    )


def report_rows(report: EvaluationReport, width: int = TERMINAL_WIDTH) -> TableRows:
    """Return every system with as many metrics as fit ``width`` characters, main ones first.

    The best system is marked as :func:`system_rows` says; ``fit(system_rows(report))`` gives
    this table and those of the metrics that did not fit.
    """
    return fit(system_rows(report), width)[0]


def system_rows(report: EvaluationReport) -> TableRows:
    """Return every system and metric, main metrics first, as given by the first system.

    The system with the highest first metric bears a ``*`` after its name and is ``best``.
    Columns that no system measured are left out. A column other than the first shows the
    mean alone; the first shows its interval.
    """
    # A dict keeps the order of the first system, a set would not.
    metrics = list(dict.fromkeys(name for each in report.systems for name in each.metrics))
    best = _best(report.systems, metrics[0]) if metrics else None
    extra = {name: column for name, column in _extra(report.systems).items() if any(column)}
    rows = []
    for place, system in enumerate(report.systems):
        name = system.name + (f" {BEST_MARK}" if place == best else "")
        cells = (
            [_interval(system.metrics[metrics[0]])] if metrics[0] in system.metrics else [MISSING]
        )
        cells += [_mean(system.metrics.get(metric)) for metric in metrics[1:]]
        cells += [column[place] or MISSING for column in extra.values()]
        rows.append((name, system.kind, *cells))
    return TableRows(_title(report), ("system", "kind", *metrics, *extra), tuple(rows), best, 2)


def slice_rows(report: EvaluationReport) -> TableRows:
    """Return the slices of every system: the number of queries and each metric's interval.

    Wider than a terminal with many metrics: draw what :func:`fit` makes of it.
    """
    slices = [(s.name, name, part) for s in report.systems for name, part in s.slices.items()]
    metrics = list(dict.fromkeys(metric for *_, part in slices for metric in part.metrics))
    rows = tuple(
        (system, name, str(part.queries), *(_interval(part.metrics.get(m)) for m in metrics))
        for system, name, part in slices
    )
    header = ("system", "slice", "queries", *metrics)
    return TableRows(f"{report.surface}: slices", header, rows, keys=3)


def candidate_recall_rows(report: EvaluationReport) -> TableRows:
    """Return the recall of every source by slice of the positives.

    Wider than a terminal with many sources: draw what :func:`fit` makes of it.
    """
    title = f"{report.surface}: candidate recall"
    found = report.candidate_recall
    if found is None:
        return TableRows(title, ("slice", "positives"), (), keys=2)
    sources = list(found.rows[0].recall)
    rows = [
        (
            "all" if row.breakdown == "all" else f"{row.breakdown} {row.bucket}",
            str(row.positives),
            *(_interval(row.recall[source]) for source in sources),
        )
        for row in found.rows
    ]
    only = (_number(found.only.get(source, math.nan)) for source in sources)
    cost = (_number(found.candidates_per_query.get(source, math.nan), 1) for source in sources)
    rows += [("caught by it only", "", *only), ("candidates a query", "", *cost)]
    return TableRows(title, ("slice", "positives", *sources), tuple(rows), keys=2)


def impression_rows(report: EvaluationReport) -> TableRows:
    """Return how well each system tells what was taken from what was refused."""
    shown = report.shown
    if shown is None:
        return TableRows(f"{report.surface}: impressions", ("system",), (), keys=1)
    values = any(system.value for system in shown.systems)
    header: tuple[str, ...] = ("system", "AUC", "log loss", "loss saved")
    header += ("value (SNIPS)", "value (IPS)", "effective rows") if values else ()
    rows = tuple(
        (
            system.name,
            _interval(system.auc),
            _interval(system.log_loss),
            f"{system.log_loss_saved:.2%}",
            *(_value_cells(system.value) if values else ()),
        )
        for system in shown.systems
    )
    title = (
        f"{report.surface}: {shown.rows:,} impressions of {shown.queries:,} queries, "
        f"{shown.taken:,} taken"
    )
    logged = next((s.value.logged for s in shown.systems if s.value), None)
    if logged is not None:
        title += f"; earned {_interval(logged)} a place"
    return TableRows(title, header, rows, keys=1)


def _value_cells(value: OffPolicyValue | None) -> tuple[str, str, str]:
    if value is None:
        return MISSING, MISSING, MISSING
    return _interval(value.snips), _interval(value.ips), f"{value.effective_rows:,.0f}"


def comparison_rows(report: EvaluationReport) -> TableRows:
    """Return every paired comparison: the difference and the ratio of means."""
    rows = tuple(
        (
            f"{each.system} / {each.against}",
            each.metric,
            _interval(each.paired.difference),
            _interval(each.paired.ratio, 3),
        )
        for each in report.comparisons
    )
    header = ("systems", "metric", "difference", "ratio")
    return TableRows(f"{report.surface}: comparisons", header, rows, keys=2)


def _extra(systems: tuple[SystemReport, ...]) -> dict[str, list[str]]:
    """Return the columns beyond rank metrics, each with "" where a system has no figure."""
    columns: dict[str, list[str]] = {}
    for heading, part, attribute in (
        ("AUC", "classification", "auc"),
        ("log loss", "classification", "log_loss"),
        ("ECE", "classification", "calibration_error"),
        ("Brier", "classification", "brier"),
        ("coverage", "beyond_accuracy", "catalogue_coverage"),
        ("novelty", "beyond_accuracy", "novelty"),
        ("diversity", "beyond_accuracy", "intra_list_diversity"),
        ("pop. bias", "beyond_accuracy", "popularity_bias"),
        ("Gini", "beyond_accuracy", "exposure_gini"),
        ("fairness to new", "beyond_accuracy", "fairness_new"),
    ):
        values = [getattr(getattr(system, part), attribute, None) for system in systems]
        columns[heading] = [
            _number(value.mean if isinstance(value, Interval) else value) for value in values
        ]
    return columns


def _column_widths(table: TableRows) -> list[int]:
    return [max(map(len, column)) for column in zip(table.header, *table.rows, strict=True)]


def _drawn(widths: list[int]) -> int:
    return sum(widths) + BETWEEN_COLUMNS * len(widths) + 1


def _best(systems: tuple[SystemReport, ...], metric: str) -> int | None:
    known = [
        (system.metrics[metric].mean, -place)  # ties to the first
        for place, system in enumerate(systems)
        if metric in system.metrics and not math.isnan(system.metrics[metric].mean)
    ]
    return -max(known)[1] if known else None


def _title(report: EvaluationReport) -> str:
    protocol = report.protocol
    return (
        f"{report.surface}: {protocol.split}, k = {protocol.k}, {protocol.queries} queries, "
        f"recall over {protocol.recall_denominator}, {protocol.bootstrap.level:.0%} intervals "
        f"of {protocol.bootstrap.resamples} resamples, seed {protocol.bootstrap.seed}"
    )


def _number(value: float | None, digits: int = 4) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def _mean(interval: Interval | None) -> str:
    return (_number(interval.mean) if interval else "") or MISSING


def _interval(interval: Interval | None, digits: int = 4) -> str:
    if interval is None or math.isnan(interval.mean):
        return MISSING
    low, high = (_number(end, digits) or "?" for end in (interval.low, interval.high))
    return f"{interval.mean:.{digits}f} [{low}, {high}]"
