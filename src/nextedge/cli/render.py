"""Tables and progress for a terminal, JSON for machines. Progress goes to stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from nextedge.data.report import CheckReport
from nextedge.evaluation.parity import Mismatch, ParityReport
from nextedge.evaluation.tables import TableRows, fit
from nextedge.progress import Progress as Listener
from nextedge.serving.messages import RecommendationResponse
from nextedge.serving.replay import ReplayReport
from nextedge.serving.why_not import WhyNot

out = Console(highlight=False, emoji=False, markup=False)  # ids and paths are shown as they are
if not out.is_terminal:  # a file or a pipe has no edge at which figures would be cut off
    out.width = max(out.width, 200)
err = Console(stderr=True, highlight=False, emoji=False, markup=False)


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, default=str) + "\n")


@contextmanager
def progress_bar() -> Iterator[Listener]:
    """A listener that shows steps on stderr: a bar on a terminal, plain lines elsewhere."""
    if not err.is_terminal:
        last = ""

        def lines(text: str, done: int, total: int) -> None:
            nonlocal last
            if text != last:
                last = text
                err.print(text)

        yield lines
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task("starting", total=None)

        def show(text: str, done: int, total: int) -> None:
            bar.update(task, description=text, completed=done, total=total)

        yield show


def table(
    title: str, header: Sequence[str], rows: Sequence[Sequence[str]], bold: int | None = None
) -> None:
    """A table that fits a terminal."""
    drawn = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for place, name in enumerate(header):
        drawn.add_column(name, justify="left" if place == 0 else "right", no_wrap=True)
    for place, row in enumerate(rows):
        drawn.add_row(*row, style="bold" if place == bold else None)
    out.print(drawn)


def print_rows(rows: TableRows) -> None:
    """A table of the evaluation, cut by columns into tables that fit the terminal."""
    for part in fit(rows, max(out.width, 60)):
        table(part.title, part.header, part.rows, part.best)
        out.print()


def print_check(report: CheckReport) -> None:
    """What is used and what is dropped, table by table."""
    for each in report.tables:
        span = f", {each.first} to {each.last}" if each.first else ""
        out.print(
            Text(each.table, style="bold"),
            f" {each.location}: {each.rows_used:,} of {each.rows_read:,} rows used{span}",
            soft_wrap=True,
        )
        for finding in each.findings:
            rows = f"{finding.rows:,} rows " if finding.rows else ""
            out.print(
                f"  {rows}{finding.action}: {finding.text} ({finding.code})",
                markup=False,
                soft_wrap=True,
            )
            for example in finding.examples:
                out.print(f"    such as {example}", markup=False, soft_wrap=True)


def answer_json(answer: RecommendationResponse) -> dict[str, Any]:
    """One answer as JSON values."""
    key = "item_id" if _is_items(answer) else "candidate_id"
    found = []
    for each in answer.recommendations:
        value = {
            key: each.id,
            "score": each.score,
            "rank": each.rank,
            "reason": asdict(each.reason),
            "sources": list(each.sources),
            "display": each.display,
        }
        if each.contributions:
            value["contributions"] = each.contributions
        found.append(value)
    return {
        "user_id": answer.user_id,
        "surface": answer.surface,
        "release": answer.release,
        "known_user": answer.known_user,
        "degraded": list(answer.degraded),
        "latency_ms": round(answer.latency_ms, 3),
        "recommendations": found,
    }


def _is_items(answer: RecommendationResponse) -> bool:
    return answer.kind == "items"


def print_answer(answer: RecommendationResponse, *, explain: bool) -> None:
    """The recommendations of one user."""
    known = "" if answer.known_user else "  (unknown user: popular)"
    header = ["#", "id", "", "score", "why", "sources"]
    rows: list[list[str | Text]] = []
    for each in answer.recommendations:
        shown = each.display if each.display != str(each.id) else ""
        rows.append(
            [
                str(each.rank),
                str(each.id),
                shown,
                f"{each.score:.4f}",
                each.reason.text,
                " ".join(each.sources[:2]),
            ]
        )
        if explain and each.contributions:
            moved = ", ".join(
                f"{name} {value:+.2f}" for name, value in list(each.contributions.items())[:4]
            )
            rows.append(["", "", "", "", Text(moved, style="dim"), ""])
    drawn = Table(
        title=f"{answer.surface} for {answer.user_id}{known}",
        title_justify="left",
        box=None,
        pad_edge=False,
    )
    for name in header:
        drawn.add_column(
            name, justify="right" if name in ("#", "score") else "left", overflow="fold"
        )
    for row in rows:
        drawn.add_row(*row)
    out.print(drawn)
    out.print()


def print_why_not(found: WhyNot) -> None:
    """The stage that dropped a candidate, and where its sources had it."""
    out.print(
        f"{found.surface}: {found.candidate_id} for {found.user_id}:",
        Text.assemble((found.stage, "bold"), f": {found.explanation}"),
        soft_wrap=True,
    )
    if found.sources:
        ranks = [
            (name, "not found" if rank is None else f"{rank:,}")
            for name, rank in found.sources.items()
        ]
        table("", ["source", "rank there"], ranks)


def print_parity(found: ParityReport) -> None:
    """What was compared, and every column that differed."""
    out.print(
        f"{found.surface}: {found.queries:,} users, {found.rows:,} candidates × {found.features} "
        f"features: {'equal bit for bit' if found.equal else 'NOT equal'}",
        soft_wrap=True,
    )
    _print_mismatches(found.mismatches)


def print_replay(found: ReplayReport) -> None:
    """Whether the features that a server logged are computed again."""
    if found.requests:
        verdict = "equal bit for bit" if found.equal else "NOT equal"
        text = f"{found.requests:,} logged requests, {found.rows:,} candidates: {verdict}"
    else:
        text = "no logged request of this release kept its features (serving.log_features_share)"
    if found.other_edges:
        text += f"; {found.other_edges:,} followed from other live edges and are left out"
    out.print(f"{found.surface}: {text}", soft_wrap=True)
    _print_mismatches(found.mismatches)


def _print_mismatches(mismatches: Mapping[str, Mismatch]) -> None:
    rows = [
        (each.column, f"{each.rows:,}", f"{each.largest:.3g}", str(each.query))
        for each in mismatches.values()
    ]
    if rows:
        table("", ["column", "rows", "largest difference", "first query (position)"], rows)
