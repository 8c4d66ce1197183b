"""The tables of docs/scale.md: laws, their check, and two worked cases of ``nextedge plan``.

``docs/generate.py`` puts them between the marks of the page.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from nextedge.cli.main import app
from nextedge.cli.plan import short
from nextedge.planning.coefficients import Coefficients, load_coefficients

sys.path.insert(0, str(Path(__file__).parents[1] / "bench" / "plan"))
import check as checking

CASES = {
    "people": (
        "plan --users 1B --degree 500 --qps 25k --p99-ms 100 --candidates 1000 "
        "--machine-memory-gib 512 --machine-cores 64"
    ),
    "items": (
        "plan --users 10M --items 10M --interactions-per-user 50 --qps 10k --p99-ms 57 "
        "--candidates 500 --machine-memory-gib 128 --machine-cores 32"
    ),
}


def tables() -> dict[str, list[str]]:
    """Lines of each marked place of the page."""
    laws = load_coefficients()
    check = checking.check(checking.load(checking.RESULTS))
    cases = {name: _case(command) for name, command in CASES.items()}
    return {"laws": _laws(laws), "check": checking.lines(check), **cases}


def _laws(table: Coefficients) -> list[str]:
    about = table.measured
    lines = [
        f"{about['processor']}, {about['cores']} cores, {about['date']}:",
        "",
        "| part | grows with | cost | largest size |",
        "| --- | --- | --- | ---: |",
    ]
    for name, law in table.laws.items():
        if name.startswith("cpu "):
            power = "" if law.p == 1 else f"^{law.p:g}"
            cost = f"{law.a:.3g} + {law.b:.3g} · driver{power}"
            lines.append(f"| {name[4:]} | {law.driver} | {cost} | {law.largest:,.0f} |")
    return lines


def _case(command: str) -> list[str]:
    done = CliRunner().invoke(app, [*command.split(), "--json"])
    if done.exception is not None:
        raise done.exception
    made: dict[str, Any] = json.loads(done.stdout)
    totals = made["totals"]
    lines = [
        "```",
        f"nextedge {command}",
        "```",
        "",
        "| step | × measured | core-h | hours | machines | GiB each | money a month | runs |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for row in made["stages"]:
        figures = (
            row["core_hours"],
            row["hours"],
            row["machines"],
            row["memory_gib"],
            row["money"],
        )
        cells = " | ".join("" if n is None else short(n) for n in (row["beyond"], *figures))
        lines.append(f"| {row['stage']} | {cells} | {row['runs']} |")
    hours = totals["hours_a_refresh"]
    return [
        *lines,
        "",
        f"A refresh takes {short(totals['core_hours_a_refresh'])} core-hours in {short(hours)} h. "
        f"A month costs {short(totals['money_a_month'] or math.inf)}. "
        f"Tightest: {totals['tightest']}. {len(made['warnings'])} of {len(made['stages'])} rows are "
        "extrapolations.",
    ]
