"""``nextedge plan``: what a tenant of some size would take."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nextedge.cli import render
from nextedge.errors import InputError, NoReleaseError

if TYPE_CHECKING:
    from nextedge.planning.degrees import Degrees
    from nextedge.planning.plan import Plan
    from nextedge.planning.rows import Row
    from nextedge.planning.workload import Workload


def plan(
    users: Annotated[str | None, typer.Option(help="such as 20000, 10M or 1B")] = None,
    degree: Annotated[
        str | None, typer.Option(help="connections of a user, on average; both ends count")
    ] = None,
    degree_exponent: Annotated[
        float | None, typer.Option(help="of a power law; left out, degrees are log-normal")
    ] = None,
    degrees: Annotated[
        Path | None, typer.Option(help="Parquet with a column degree, one row a user")
    ] = None,
    hub_cap: Annotated[
        int | None, typer.Option(min=0, help="degree that two-hop walks do not pass; 0 = none")
    ] = None,
    items: Annotated[str, typer.Option(help="items of the catalogue")] = "0",
    interactions_per_user: Annotated[str, typer.Option(help="items of a user")] = "0",
    impressions_per_user: Annotated[
        str, typer.Option(help="rows of the log that labels read")
    ] = "30",
    qps: Annotated[str, typer.Option(help="requests a second at the peak")] = "100",
    p99_ms: Annotated[float, typer.Option(help="99 of 100 are answered within")] = 100.0,
    refresh_hours: Annotated[float, typer.Option(help="from release to release")] = 24.0,
    events_per_second: Annotated[
        str | None, typer.Option(help="recorded facts; left out, a tenth of the requests")
    ] = None,
    candidates: Annotated[
        int | None, typer.Option(min=1, help="of a request; left out, as configured")
    ] = None,
    keep_features: Annotated[
        bool, typer.Option("--keep-features", help="published candidates hold their features")
    ] = False,
    machine_memory_gib: Annotated[float, typer.Option(help="of each machine")] = 64.0,
    machine_cores: Annotated[float, typer.Option(help="of each machine")] = 16.0,
    core_hour_price: Annotated[float, typer.Option(help="of a core for an hour")] = 0.04,
    gib_hour_price: Annotated[float, typer.Option(help="of a GiB of memory for an hour")] = 0.005,
    redis_gib_hour_price: Annotated[
        float, typer.Option(help="of a GiB of memory for an hour")
    ] = 0.02,
    stored_gib_month_price: Annotated[
        float, typer.Option(help="of a GiB of files for a month")
    ] = 0.023,
    coefficients: Annotated[
        Path | None, typer.Option(help="measured laws of your own (bench/plan)")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("-c", "--config", help="settings, and the degrees of its served release"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on stdout, for machines")] = False,
) -> None:
    """Memory, cores, hours, store and money of a tenant of some size, from measured coefficients."""
    from nextedge.config import Config, load_config
    from nextedge.planning.coefficients import load_coefficients
    from nextedge.planning.plan import make_plan
    from nextedge.planning.workload import Machine, Traffic, Workload, number, size_of, surfaces_for
    from nextedge.planning.workload import hub_cap as configured_cap

    settings = Config() if config is None else load_config(config)
    people = next((s for s in settings.surfaces.values() if s.kind == "people"), None)
    cap = configured_cap(people) if hub_cap is None else float(hub_cap)
    spread, known = _degrees(users, degree, degree_exponent, degrees, config, cap)
    size = size_of(
        known,
        spread,
        number(items, "--items"),
        number(interactions_per_user, "--interactions-per-user"),
        number(impressions_per_user, "--impressions-per-user"),
    )
    asked = number(qps, "--qps")
    recorded = (
        asked / 10
        if events_per_second is None
        else number(events_per_second, "--events-per-second")
    )
    surfaces = surfaces_for(settings, size)
    if candidates is not None:
        surfaces = {
            name: surface.model_copy(update={"candidates": candidates})
            for name, surface in surfaces.items()
        }
    workload = Workload(
        size,
        spread,
        Traffic(asked, p99_ms, refresh_hours, recorded),
        Machine(
            machine_memory_gib,
            machine_cores,
            core_hour_price,
            gib_hour_price,
            redis_gib_hour_price,
            stored_gib_month_price,
        ),
        surfaces,
        keep_features or settings.serving.candidates_features,
        settings.serving.cache_seconds,
        tuple(name for name in settings.surfaces if name not in surfaces),
    )
    made = make_plan(workload, load_coefficients(coefficients))
    if as_json:
        render.print_json(made.to_json())
    else:
        print_plan(made, workload)


def _degrees(
    users: str | None,
    degree: str | None,
    exponent: float | None,
    file: Path | None,
    config: Path | None,
    cap: float,
) -> tuple[Degrees, float]:
    """The distribution of degrees, and the number of users."""
    from nextedge.planning.degrees import counted, lognormal, power_law, read_degrees, scaled
    from nextedge.planning.workload import number

    if file is not None and exponent is not None:
        raise InputError("give either --degrees FILE or --degree-exponent, not both")
    wanted = None if degree is None else number(degree, "--degree")
    if wanted is not None and wanted < 0:
        raise InputError(f"--degree {degree}: expected 0 or more")
    released = None if config is None or file is not None else _released(config)
    found = read_degrees(file) if file is not None else released
    if users is None and found is None:
        raise InputError(
            "--users is missing: give a number, or --degrees FILE.parquet, or -c CONFIG with a release"
        )
    many = (
        float(len(found)) if users is None and found is not None else number(users or "", "--users")
    )
    if many < 2:
        raise InputError(f"--users {many:g}: expected 2 or more")
    if found is not None and exponent is None:
        said = f"of {file}" if file is not None else "of the served release"
        own = counted(found, cap, said)
        return (own if wanted is None else scaled(found, wanted, cap, said)), many
    mean = wanted if wanted is not None else 0.0 if found is None else float(found.mean())
    if exponent is not None:
        return power_law(mean, many, exponent, cap), many
    return lognormal(mean, many, cap), many


def _released(config: Path):  # type: ignore[no-untyped-def]
    """int64[N] degrees of the served release, or None where nothing was built."""
    from nextedge.recommender import Recommender

    try:
        return Recommender(config).release.snapshot.connections.degree
    except NoReleaseError:
        return None


HEADER = (
    "stage",
    "×",
    "core-h",
    "hours",
    "machines",
    "GiB each",
    "store GiB",
    "money/month",
    "runs on",
)


def rows_of(made: Plan) -> list[tuple[str, ...]]:
    """The table's cells."""
    return [_cells(row) for row in made.rows]


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.stage,
        f"{row.beyond:,.3g}" if row.beyond < 1000 else f"{row.beyond:,.0f}",
        _short(row.core_hours),
        "" if row.hours is None else _short(row.hours),
        _short(row.machines),
        _short(row.memory_gib),
        _short(row.store_gib),
        _short(row.money),
        row.runs,
    )


def print_plan(made: Plan, workload: Workload) -> None:
    """The table, totals, what is tightest, what each stage grows with, and the assumptions."""
    from rich.table import Table

    size, traffic = workload.size, workload.traffic
    render.say(
        f"{size.users:,.0f} users, {size.entries:,.0f} entries of connections, {size.items:,.0f} items, "
        f"{size.interactions:,.0f} interactions; {traffic.qps:,.0f} requests a second in "
        f"{traffic.p99_ms:g} ms, a release every {traffic.refresh_hours:g} h"
    )
    table = Table(box=None, pad_edge=False)
    for place, name in enumerate(HEADER):
        last = place in (0, len(HEADER) - 1)
        table.add_column(
            name, justify="left" if last else "right", no_wrap=place != len(HEADER) - 1
        )
    for cells in rows_of(made):
        table.add_row(*cells)
    render.console().print(table)
    for line in totals(made):
        render.say(line)
    render.say("Grows with:")
    for row in made.rows:
        bound = f"; memory: {row.bounded_by}" if row.bounded_by else ""
        render.say(f"  {row.stage}: {row.grows_with}{bound}")
    render.say("Assumed:")
    for line in made.assumptions:
        render.say(f"  {line}")


def totals(made: Plan) -> list[str]:
    """What it adds up to, in lines."""
    impossible = [row.stage for row in made.rows if not row.possible]
    lines = [
        f"A refresh: {_short(made.core_hours)} core-hours in {_short(made.hours)} h. "
        f"A month: {_short(made.money)}.",
        f"Tightest: {made.tightest}.",
    ]
    if impossible:
        lines.append(f"Not by this code at that size: {', '.join(impossible)}.")
    return lines


def _short(value: float) -> str:
    if not math.isfinite(value):
        return "∞"
    if value == 0:
        return "0"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
