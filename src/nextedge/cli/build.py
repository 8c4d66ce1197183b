"""``nextedge init``, ``check`` and ``build``: from a folder of tables to a release."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nextedge.cli import render
from nextedge.cli.options import (
    DEFAULT_CONFIG,
    AsJson,
    ConfigFile,
    EngineName,
    Where,
    open_recommender,
)
from nextedge.errors import DataError

if TYPE_CHECKING:
    from nextedge.data.report import CheckReport
    from nextedge.releases.manifest import Release


def init(directory: Annotated[Path, typer.Argument(help="folder of your tables")]) -> None:
    """Write a nextedge.toml that explains every setting."""
    from nextedge.cli.template import write_template

    render.say(f"wrote {write_template(directory)}")


def check(
    where: Where = None, config: ConfigFile = DEFAULT_CONFIG, as_json: AsJson = False
) -> None:
    """Validate the configuration and the data.

    The report lists the rows that a build would drop, and why.
    """
    report = open_recommender(where or config).check()
    if as_json:
        render.print_json(report.to_json())
    else:
        _print_check(report)
    if report.fatal:  # after the report, which has the rows at fault
        raise DataError("\n".join(report.fatal))


def _print_check(report: CheckReport) -> None:
    """Print what is used and what is dropped, table by table."""
    for table in report.tables:
        span = f", {table.first} to {table.last}" if table.first else ""
        render.say(
            f"{render.bold(table.table)} {table.location}: "
            f"{table.rows_used:,} of {table.rows_read:,} rows used{span}"
        )
        for finding in table.findings:
            rows = f"{finding.rows:,} rows " if finding.rows else ""
            render.say(f"  {rows}{finding.action}: {finding.text} ({finding.code})")
            for example in finding.examples:
                render.say(f"    such as {example}")


def build(
    where: Where = None,
    config: ConfigFile = DEFAULT_CONFIG,
    surface: Annotated[
        list[str] | None, typer.Option(help="build only this surface; repeatable")
    ] = None,
    engine: EngineName = "local",
    no_promote: Annotated[
        bool, typer.Option("--no-promote", help="publish the release, but do not serve it")
    ] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="run every step again")] = False,
    until: Annotated[
        str | None, typer.Option(metavar="STEP", help="stop after this step; no release")
    ] = None,
    run: Annotated[
        str | None, typer.Option(help="name of a run; its calls share the first call's inputs")
    ] = None,
    wait: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="wait for another build to end")
    ] = 0.0,
    as_json: AsJson = False,
) -> None:
    """Run the offline line and publish a release.

    A build that was stopped resumes where it stopped.

    Steps: tables, entities, snapshot, then of each surface windows, embed, sources,
    index, rank, evaluate.
    """
    from nextedge.build.run import BuildOptions

    recommender = open_recommender(where or config)
    options = BuildOptions(tuple(surface or ()), fresh, not no_promote, until, run, wait)
    with render.progress_bar() as progress:
        release = recommender.run_steps(options, engine, progress)
    if release is None:
        if as_json:
            render.print_json({"until": until, "release": None})
        return
    built = recommender.releases.get(release)
    if as_json:
        metrics = built.manifest["metrics"]
        render.print_json({"release": release, "path": str(built.path), "metrics": metrics})
    else:
        _print_release(built, promoted=not no_promote)


def _print_release(release: Release, *, promoted: bool) -> None:
    render.say(f"release {release.id}{'' if promoted else ' (not promoted)'}")
    for name, metrics in release.manifest["metrics"].items():
        figures = "  ".join(
            f"{key} {value:.4f}" for key, value in metrics.items() if isinstance(value, float)
        )
        render.say(f"  {name}: ranker {metrics['ranker']}, {metrics['split']} split  {figures}")
