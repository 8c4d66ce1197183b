"""``nextedge evaluate``: the metrics of a release, and the parity of its features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nextedge.cli import render
from nextedge.cli.options import DEFAULT_CONFIG, AsJson, ConfigFile, Where, open_recommender

if TYPE_CHECKING:
    from nextedge.evaluation.parity import Mismatch, ParityReport
    from nextedge.recommender import Recommender
    from nextedge.serving.replay import ReplayReport


def evaluate(
    release: Annotated[
        str | None, typer.Option(help="id of a release; default: the served release")
    ] = None,
    parity: Annotated[
        bool,
        typer.Option(
            "--parity",
            help="compare the features of single and of logged requests with those of the batch",
        ),
    ] = False,
    queries: Annotated[int, typer.Option(min=1, help="users that --parity compares")] = 200,
    where: Where = None,
    config: ConfigFile = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Print the metrics of sources, baselines and rankers.

    Each metric comes with its interval. --parity exits 1 where features differ.
    """
    recommender = open_recommender(where or config)
    if parity:
        _parity(recommender, queries, as_json=as_json)
        return
    reports = recommender.evaluation(release)
    if as_json:
        render.print_json(reports)
    else:
        print_evaluation(reports, brief=False)


def print_evaluation(reports: dict[str, Any], *, brief: bool) -> None:
    """Print the evaluation of each surface as tables; ``brief`` prints one table each."""
    from nextedge.evaluation import tables
    from nextedge.evaluation.report import EvaluationReport

    for plain in reports.values():
        report = EvaluationReport.from_json(plain)
        if brief or not report.systems:
            render.print_rows(tables.report_rows(report, render.console().width))
            continue
        render.print_rows(tables.system_rows(report))
        render.print_rows(tables.comparison_rows(report))
        if report.shown is not None:
            render.print_rows(tables.impression_rows(report))
        render.print_rows(tables.candidate_recall_rows(report))
        render.print_rows(tables.slice_rows(report))


def _parity(recommender: Recommender, queries: int, *, as_json: bool) -> None:
    """Print the differences between single requests and the batch; exit 1 if there are any."""
    reports, replays = recommender.parity(queries), recommender.replay()
    pairs = list(zip(reports, replays, strict=True))
    if as_json:
        render.print_json(
            {
                report.surface: {**report.to_json(), "logged": logged.to_json()}
                for report, logged in pairs
            }
        )
    else:
        for report, logged in pairs:
            _print_parity(report)
            _print_replay(logged)
    if not all(report.equal and logged.equal for report, logged in pairs):
        raise typer.Exit(1)


def _print_parity(report: ParityReport) -> None:
    """Print how much was compared, and every column that differs."""
    render.say(
        f"{report.surface}: {report.queries:,} users, {report.rows:,} candidates × "
        f"{report.features} features: {_verdict(report.equal)}"
    )
    _print_mismatches(report.mismatches)


def _print_replay(report: ReplayReport) -> None:
    """Print whether the features that a server logged are the same when computed again."""
    if report.requests:
        text = (
            f"{report.requests:,} logged requests, {report.rows:,} candidates: "
            f"{_verdict(report.equal)}"
        )
    else:
        text = "no logged request of this release has its features (serving.log_features_share)"
    if report.other_edges:
        text += f"; {report.other_edges:,} requests saw other live edges and are left out"
    render.say(f"{report.surface}: {text}")
    _print_mismatches(report.mismatches)


def _verdict(equal: bool) -> str:
    return "equal bit for bit" if equal else "NOT equal"


def _print_mismatches(mismatches: Mapping[str, Mismatch]) -> None:
    rows = [
        (mismatch.column, f"{mismatch.rows:,}", f"{mismatch.largest:.3g}", str(mismatch.query))
        for mismatch in mismatches.values()
    ]
    if rows:
        render.table("", ("column", "rows", "largest difference", "first query (position)"), rows)
