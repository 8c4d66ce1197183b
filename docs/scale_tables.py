"""The tables of docs/scale.md: worked cases by ``nextedge plan`` itself, laws and their check.

``docs/generate.py`` puts them between the marks of the page; every figure is the command's.
"""

from __future__ import annotations

import json
import math
from functools import cache
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from nextedge.cli.main import app
from nextedge.planning.coefficients import Coefficients, load_coefficients

RESULTS = Path(__file__).parents[1] / "bench" / "plan" / "results"
PEOPLE = (
    "plan --users 1B --degree 500 --qps 25k --p99-ms 100 --candidates 1000 "
    "--machine-memory-gib 512 --machine-cores 64"
)
ITEMS = (
    "plan --users 10M --items 10M --interactions-per-user 50 --qps 10k --p99-ms 57 "
    "--candidates 500 --machine-memory-gib 128 --machine-cores 32"
)


def tables() -> dict[str, list[str]]:
    """Lines of each marked place of the page."""
    laws = load_coefficients()
    return {
        "measured": [_measured(laws)],
        "check": _check(laws),
        "memory": _memory(laws),
        "people": _case(PEOPLE),
        "people compared": _people_compared(),
        "items": _case(ITEMS),
        "items compared": _items_compared(laws),
    }


@cache
def planned(command: str) -> dict[str, Any]:
    """What the command says, as JSON."""
    done = CliRunner().invoke(app, [*command.split(), "--json"])
    if done.exception is not None:
        raise done.exception
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _measured(laws: Coefficients) -> str:
    about = laws.measured
    sizes = "; ".join(
        f"{kind} {', '.join(f'{n:,}' for n in found)}" for kind, found in about["sizes"].items()
    )
    return (
        f"Shipped coefficients: {about['processor']}, {about['cores']} cores, {about['date']}, "
        f"load average {about['load']}. Sizes: {sizes}."
    )


def _check(laws: Coefficients) -> list[str]:
    found = laws.measured["check"]
    lines = [
        f"{found['users']:,} users, predicted from builds of {' and '.join(f'{n:,}' for n in found['from'])}:",
        "",
        "| step | predicted CPU s | measured | ratio | share |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, step in sorted(found["steps"].items(), key=lambda each: -each[1]["share"]):
        lines.append(
            f"| {name} | {step['predicted']:.1f} | {step['measured']:.1f} | {step['ratio']:.2f} | {step['share']:.0%} |"
        )
    return lines


def _memory(laws: Coefficients) -> list[str]:
    bounds = {row["stage"]: row["bounded_by"] for row in planned(ITEMS + " --degree 30")["stages"]}
    lines = [
        "| step | users measured | peak MiB | asked for before it starts, MiB | bounded by |",
        "| --- | ---: | ---: | ---: | --- |",
    ]
    for step, (users, mib, asked) in laws.measured["memory"].items():
        said = f"{asked:,.0f}" if asked else ""
        lines.append(f"| {step} | {users:,} | {mib:,.0f} | {said} | {bounds.get(step, '')} |")
    return lines


def _case(command: str) -> list[str]:
    found = planned(command)
    lines = [
        "```",
        f"nextedge {command}",
        "```",
        "",
        "| stage | × measured | core-h | hours | machines | GiB each | store GiB | money a month | runs |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for row in found["stages"]:
        lines.append(
            f"| {row['stage']} | {_short(row['beyond'])} | {_short(row['core_hours'])} | "
            f"{'' if row['hours'] is None else _short(row['hours'])} | {_short(row['machines'])} | "
            f"{_short(row['memory_gib'])} | {_short(row['store_gib'])} | {_short(row['money'])} | {row['runs']} |"
        )
    totals = found["totals"]
    lines += [
        "",
        f"A refresh: {_short(totals['core_hours_a_refresh'])} core-hours in {_short(totals['hours_a_refresh'])} h; "
        f"a month: {_short(totals['money_a_month'])}. Tightest: {totals['tightest']}. Assumed:",
        "",
        *(f"- {line}" for line in found["assumptions"]),
    ]
    return lines


def _people_compared() -> list[str]:
    found = planned(PEOPLE)
    rows = {row["stage"]: row for row in found["stages"]}
    serving, snapshot = rows["requests people"], rows["snapshot"]
    (request,) = found["online"]
    return [
        "| | published | planned | what stands between |",
        "| --- | --- | --- | --- |",
        f"| shards that hold the graph | 32 | {_short(snapshot['machines'])} of 512 GiB to build it, "
        f"{_short(math.ceil(serving['store_gib'] / (512 * 0.8)))} to map its release | 24 bytes an entry (weight and two times "
        "beside the neighbour); neighbours alone are 4 |",
        f"| p99 at 1,000 candidates | < 100 ms | {request['p99_ms']:.1f} ms of work, the queue's wait fills up to 100 | "
        "candidates are published: a request makes features, ranks and applies policy; no network in it |",
        f"| requests a second | 25,000 over 32 shards, 780 each | {_short(request['workers'])} workers of one core, "
        f"{_short(request['qps'] / request['workers']) if request['workers'] else '0'} each | {request['cpu_ms']:.1f} ms of CPU a request |",
        f"| two-hop candidates of everybody | | {_short(rows['candidates people']['core_hours'])} core-hours | "
        "Snap (GiGL, 900M nodes, 16.8B edges) reports under 12 h a day for its training and inference |",
    ]


def _items_compared(laws: Coefficients) -> list[str]:
    found = planned(ITEMS)
    (request,) = found["online"]
    search = laws.law("cpu search")
    driver = 10e6 * 256
    machine = request["busy"] / max(request["cpu_ms"], 1e-9) * 1e3 * 32
    return [
        "| | published | planned | what stands between |",
        "| --- | --- | --- | --- |",
        f"| top-500 ANN over 10M items | 20 ms | {search.at(driver) * 1e3:.1f} ms on one core | "
        f"256 dimensions, recall 0.95 or more; {search.beyond(driver):,.0f} times the largest index measured here |",
        f"| end to end | 57 ms | {request['p99_ms']:.1f} ms of work at p99 | published candidates, features made at the request |",
        f"| requests a second | 12,000 a replica | {_short(machine)} on a machine of 32 cores | "
        f"{request['cpu_ms']:.1f} ms of CPU a request, {request['busy']:.0%} busy |",
        f"| 10,000 requests a second | | {_short(request['workers'])} workers | |",
    ]


def _short(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "none"
    return f"{value:,.0f}" if value >= 100 or value == 0 else f"{value:.3g}"
