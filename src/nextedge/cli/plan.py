"""``nextedge plan``: capacity and cost of a tenant from its size."""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from nextedge.cli import render
from nextedge.errors import InputError, NoReleaseError

if TYPE_CHECKING:
    from nextedge.config import Config
    from nextedge.planning.degrees import Degrees
    from nextedge.planning.plan import Plan, Row
    from nextedge.planning.workload import Workload


@dataclass(frozen=True)
class PlanOptions:
    """The options of ``nextedge plan``; numbers are text such as 20000, 2.5k, 10M or 1B."""

    users: Annotated[str | None, Option(help="such as 20000, 10M or 1B")] = None
    degree: Annotated[
        str | None, Option(help="connections of a user, on average; both ends count")
    ] = None
    degree_exponent: Annotated[
        float | None, Option(help="of a power law; left out, degrees are log-normal")
    ] = None
    degrees: Annotated[Path | None, Option(help="Parquet with a column degree, one row a user")] = (
        None
    )
    hub_cap: Annotated[
        int | None, Option(min=0, help="degree that two-hop walks do not pass; 0 = none")
    ] = None
    items: Annotated[str, Option(help="items of the catalogue")] = "0"
    interactions_per_user: Annotated[str, Option(help="items of a user")] = "0"
    impressions_per_user: Annotated[str, Option(help="rows of the log that labels read")] = "30"
    qps: Annotated[str, Option(help="requests a second at the peak")] = "100"
    p99_ms: Annotated[str, Option(help="answer 99 of 100 requests within")] = "100"
    refresh_hours: Annotated[str, Option(help="from release to release")] = "24"
    events_per_second: Annotated[
        str | None, Option(help="recorded events; left out, a tenth of the requests")
    ] = None
    candidates: Annotated[
        int | None, Option(min=1, help="of a request; left out, as configured")
    ] = None
    keep_features: Annotated[
        bool, Option("--keep-features", help="published candidates hold their features")
    ] = False
    machine_memory_gib: Annotated[str, Option(help="of each machine")] = "64"
    machine_cores: Annotated[str, Option(help="of each machine")] = "16"
    core_hour_price: Annotated[str, Option(help="of a core for an hour")] = "0.04"
    gib_hour_price: Annotated[str, Option(help="of a GiB of memory for an hour")] = "0.005"
    redis_gib_hour_price: Annotated[str, Option(help="of a GiB of Redis for an hour")] = "0.02"
    stored_gib_month_price: Annotated[str, Option(help="of a GiB of files for a month")] = "0.023"
    coefficients: Annotated[Path | None, Option(help="measured laws of your own (bench/plan)")] = (
        None
    )
    config: Annotated[
        Path | None,
        Option("-c", "--config", help="settings, and the degrees of its served release"),
    ] = None
    as_json: Annotated[bool, Option("--json", help="JSON on stdout, for machines")] = False

    def number(self, name: str, least: float = 0.0) -> float:
        """The value of a numeric option."""
        from nextedge.planning.workload import number

        return number(getattr(self, name), f"--{name.replace('_', '-')}", least)


def plan(**values: Any) -> None:
    """Plan cores, hours, memory, machines, storage and cost of a tenant of some size."""
    from nextedge.config import Config, load_config
    from nextedge.planning.coefficients import load_coefficients
    from nextedge.planning.plan import make_plan

    options = PlanOptions(**values)
    settings = Config() if options.config is None else load_config(options.config)
    made = make_plan(workload_of(options, settings), load_coefficients(options.coefficients))
    if options.as_json:
        render.print_json(made.to_json())
    else:
        print_plan(made)


# typer reads its options from the signature: they are declared once, in the dataclass.
plan.__signature__ = inspect.signature(PlanOptions, eval_str=True)  # type: ignore[attr-defined]


def workload_of(options: PlanOptions, settings: Config) -> Workload:
    """The workload that the options and settings describe.

    Raises:
        InputError: an option is out of bounds, or options contradict each other.
    """
    from nextedge.planning.workload import (
        ABOVE_ZERO,
        Machine,
        Size,
        Traffic,
        Workload,
        surfaces_for,
    )

    number = options.number
    two_hop = [s.sources.get("two_hop") for s in settings.surfaces.values() if s.kind == "people"]
    cap = float(two_hop[0].options.get("hub_cap", 0)) if two_hop and two_hop[0] else 0.0
    degrees, users = _degrees(options, cap if options.hub_cap is None else float(options.hub_cap))
    size = Size(
        users=users,
        entries=users * degrees.mean,
        wedges=users * degrees.walked,
        items=number("items"),
        interactions=users * number("interactions_per_user"),
        impressions=users * number("impressions_per_user"),
    )
    qps = number("qps")
    surfaces = surfaces_for(settings, size)
    left_out = tuple(name for name in settings.surfaces if name not in surfaces)
    if options.candidates is not None:
        update = {"candidates": options.candidates}
        surfaces = {name: surface.model_copy(update=update) for name, surface in surfaces.items()}
    return Workload(
        size,
        degrees,
        Traffic(
            qps,
            number("p99_ms", ABOVE_ZERO),
            number("refresh_hours", 0.01),
            qps / 10 if options.events_per_second is None else number("events_per_second"),
        ),
        Machine(
            number("machine_memory_gib", ABOVE_ZERO),
            number("machine_cores", 1.0),
            number("core_hour_price"),
            number("gib_hour_price"),
            number("redis_gib_hour_price"),
            number("stored_gib_month_price"),
        ),
        surfaces,
        options.keep_features or settings.serving.candidates_features,
        settings.serving.cache_seconds,
        left_out,
    )


def _degrees(options: PlanOptions, cap: float) -> tuple[Degrees, float]:
    """The distribution of degrees, and the number of users."""
    from nextedge.planning.degrees import counted, lognormal, power_law, read_degrees

    exponent, file = options.degree_exponent, options.degrees
    if file is not None and exponent is not None:
        raise InputError("give either --degrees FILE or --degree-exponent, not both")
    mean = None if options.degree is None else options.number("degree")
    known, said = (None, "") if file is None else (read_degrees(file), f"of {file}")
    if file is None and options.config is not None:
        known, said = _released(options.config), "of the served release"
    if options.users is not None:
        users = options.number("users", 2)
    elif known is not None:
        users = float(len(known))
    else:
        raise InputError("--users is missing: give a number, --degrees FILE, or -c with a release")
    if known is not None and exponent is None:
        return counted(known, cap, said, mean), users
    if mean is None:
        mean = 0.0 if known is None else float(known.mean())
    return (
        lognormal(mean, users, cap) if exponent is None else power_law(mean, users, exponent, cap)
    ), users


def _released(config: Path) -> Any:
    """int64[N] degrees of the served release, or None without one."""
    from nextedge.recommender import Recommender

    try:
        return Recommender(config).release.snapshot.connections.degree
    except NoReleaseError:  # the settings alone are enough for a plan
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


def cells(row: Row) -> tuple[str, ...]:
    """The table's cells of a row."""
    hours = "" if row.hours is None else short(row.hours)
    numbers = (row.machines, row.memory_gib, row.store_gib, row.money)
    return (
        row.stage,
        short(row.beyond),
        short(row.core_hours),
        hours,
        *map(short, numbers),
        row.runs,
    )


def print_plan(made: Plan) -> None:
    """Print the table, the totals, the warnings, and the assumptions."""
    from rich.table import Table

    size, traffic = made.workload.size, made.workload.traffic
    render.say(
        f"{size.users:,.0f} users, {size.entries:,.0f} entries of connections, {size.items:,.0f} items, "
        f"{size.interactions:,.0f} interactions; {traffic.qps:,.0f} requests a second in "
        f"{traffic.p99_ms:g} ms, a release every {traffic.refresh_hours:g} h"
    )
    table = Table(box=None, pad_edge=False)
    for name in HEADER:
        text = name in ("stage", "runs on")
        table.add_column(name, justify="left" if text else "right", no_wrap=name != "runs on")
    for row in made.rows:
        table.add_row(*cells(row))
    render.console().print(table)
    render.say(
        f"A refresh: {short(made.core_hours)} core-hours in {short(made.hours)} h. A month: {short(made.money)}."
    )
    render.say(f"Tightest: {made.tightest}.")
    if impossible := [row.stage for row in made.rows if not row.possible]:
        render.say(f"Not by this code at that size: {', '.join(impossible)}.")
    for title, lines in (
        ("Warnings", made.warnings),
        (
            "Grows with",
            [
                f"{row.stage}: {row.grows_with}"
                + (f"; memory: {row.bounded_by}" if row.bounded_by else "")
                for row in made.rows
            ],
        ),
        ("Assumed", made.assumptions()),
    ):
        if lines:
            render.say(f"{title}:")
        for line in lines:
            render.say(f"  {line}")


def short(value: float) -> str:
    """A number of three digits or more."""
    if not math.isfinite(value):
        return "∞"
    return f"{value:,.0f}" if value >= 100 or value == 0 else f"{value:.3g}"
