"""Fits the laws of ``nextedge plan`` to what was measured, and checks them on the largest size.

    python bench/plan/check.py [--results DIR] [--ship]

Laws fitted without the largest build predict it, step by step: each step of 5 % of the time or
more, and the whole, must be met within 25 %. The laws of all sizes are then drawn, with their
exponents, and with ``--ship`` written to the package. Exit 1 where a prediction misses.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nextedge.build.cache.memory_budget import NEEDS
from nextedge.config import SurfaceConfig
from nextedge.errors import InputError
from nextedge.planning import coefficients as shipped
from nextedge.planning.coefficients import Coefficients
from nextedge.planning.degrees import Degrees
from nextedge.planning.drivers import bounded_labels, driver_of, drivers, reach
from nextedge.planning.laws import Law, fit_law, slope
from nextedge.planning.offline import need_gib, stages_of
from nextedge.planning.workload import Size, Workload

HOME = Path(__file__).parents[2]
RESULTS = Path(__file__).parent / "results"
WITHIN = 0.25
MATTERS = 0.05
SURFACES = {kind: SurfaceConfig(kind=kind) for kind in ("people", "items")}
FREE = {"cpu search", "wall search"}
"""Laws whose exponent theory does not fix: cells looked into grow with the root of the vectors."""
CONSTANT = {
    "bytes list",
    "memory worker",
    "memory publish people",
    "memory publish items",
    *(f"memory {step} {kind}" for step in ("embed", "index") for kind in SURFACES),
}
"""What does not grow with a tenant, beyond what the plan adds by itself (vectors, live state)."""
TELLING = 0.1
"""Seconds below which a part is too short to tell its exponent: it is taken to be 1."""
Rows = list[dict[str, Any]]


def load(folder: Path) -> Rows:
    """Every size that was measured."""
    rows = [json.loads(path.read_text()) for path in sorted(folder.glob("*-*.json"))]
    if not rows:
        raise SystemExit(f"{folder}: nothing measured yet; run: python bench/plan/measure.py")
    return rows


def observations(rows: Rows) -> dict[str, list[tuple[float, float]]]:
    """(driver, value) of every law."""
    found: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        at = dict(row.get("drivers", {}))
        if "size" in row:
            at = build_drivers(row)
        for law, value in row["values"].items():
            driver = _driver(law, row["kind"], at)
            if driver is not None and driver > 0:
                found.setdefault(law, []).append((driver, float(value)))
    return found


def build_drivers(row: Mapping[str, Any]) -> dict[str, float]:
    """Drivers of a tenant's measurement."""
    size, values = Size(**row["size"]), row["values"]
    labels = {
        kind: bounded_labels(
            size.users, values[f"count labelled {kind}"], values[f"count evaluated {kind}"], surface
        )
        for kind, surface in SURFACES.items()
        if f"count labelled {kind}" in values
    }
    reached = {kind: reach(size, surface) for kind, surface in SURFACES.items()}
    found = drivers(size, labels, reached)
    written = ("entities", "snapshot", *(f"sources {kind}" for kind in SURFACES))
    found["release"] = sum(values.get(f"output {step}", 0.0) for step in written)
    for kind, looked_at in (("people", size.neighbor_degree), ("items", size.history)):
        found[f"looked at by {kind}"] = looked_at
        found[f"candidates of {kind}"] = values.get(f"count candidates {kind}", 0.0)
    return found


def _driver(law: str, kind: str, at: Mapping[str, float]) -> float | None:
    """The driver of a law in a measurement; None where it is no law."""
    quantity, _, rest = law.partition(" ")
    part = rest.split()[0] if rest else ""
    if kind not in ("build", "graph", "degree"):
        return next(iter(at.values()))
    if law in CONSTANT:
        return at["nodes"]
    if rest == "release":
        return at["release"]
    if quantity == "bytes":
        return at[f"candidates of {part}"]
    if part == "request" or quantity == "tail":
        return at[f"looked at by {rest.split()[1] if part == 'request' else part}"]
    if quantity == "step" or part == "all" or rest.startswith("candidates"):
        return None
    try:
        return at[driver_of(law)]
    except KeyError:
        return None


def fit(rows: Rows) -> Coefficients:
    """Laws of everything that was measured at two sizes or more."""
    laws: dict[str, Law] = {}
    for name, seen in observations(rows).items():
        drivers_of, values = [x for x, _ in seen], [y for _, y in seen]
        if name in CONSTANT:
            laws[name] = constant(seen)
            continue
        timed = name.startswith(("cpu ", "wall ")) and max(values) >= TELLING
        try:
            laws[name] = fit_law(
                drivers_of,
                values,
                None if timed else 1.0,
                **({"lowest": 0.5} if name in FREE else {}),
            )
        except InputError:
            continue  # one size alone
    sizes: dict[str, list[int]] = {}
    for row in rows:
        sizes.setdefault(row["kind"], []).append(row["at"])
    where = max((row["machine"] for row in rows), key=lambda machine: machine["load"])
    about = {
        **where,
        "sizes": {kind: sorted(found) for kind, found in sizes.items()},
        "command": "python bench/plan/measure.py",
    }
    return Coefficients(laws, about)


def constant(seen: list[tuple[float, float]]) -> Law:
    """The largest value that was seen, at any driver."""
    drivers_of, values = [x for x, _ in seen], [y for _, y in seen]
    return Law(
        max(values),
        0.0,
        1.0,
        min(drivers_of),
        max(drivers_of),
        len(seen),
        slope(drivers_of, values),
        1 - min(values) / max(max(values), 1e-12),
    )


def predicted(row: Mapping[str, Any], laws: Coefficients) -> dict[str, float]:
    """Seconds of every step of a build of that size, by the laws."""
    size = Size(**row["size"])
    degrees = Degrees(
        size.degree, size.wedges / size.users, size.wedges / size.users, 0.0, "counted"
    )
    stages = stages_of(Workload(size, degrees, surfaces=SURFACES), laws)
    return {
        stage.name: stage.cpu_seconds(laws)
        for stage in stages
        if not stage.name.startswith("candidates")
    }


def measured(row: Mapping[str, Any], quantity: str = "cpu") -> dict[str, float]:
    """Seconds of every step, as they were."""
    values, prefix = row["values"], f"step {quantity} "
    found = {
        name.removeprefix(prefix): value
        for name, value in values.items()
        if name.startswith(prefix)
    }
    return {**found, "release": values[f"{quantity} release"]}


def check(rows: Rows) -> dict[str, Any]:
    """The largest build, predicted from the others."""
    builds = sorted((row for row in rows if row["kind"] == "build"), key=lambda row: row["at"])
    if len(builds) < 3:
        raise SystemExit(f"{len(builds)} builds measured; the check needs three or more")
    largest = builds[-1]
    laws = fit([row for row in rows if row["kind"] not in ("build",) or row is not largest])
    said, was = predicted(largest, laws), measured(largest)
    total = sum(was.values())
    steps = {
        name: {
            "predicted": round(said[name], 2),
            "measured": round(was[name], 2),
            "ratio": round(said[name] / max(was[name], 1e-9), 3),
            "share": round(was[name] / total, 3),
        }
        for name in was
    }
    steps["total"] = {
        "predicted": round(sum(said[name] for name in was), 2),
        "measured": round(total, 2),
        "ratio": round(sum(said[name] for name in was) / total, 3),
        "share": 1.0,
    }
    return {"users": largest["at"], "from": [row["at"] for row in builds[:-1]], "steps": steps}


def peaks(rows: Rows) -> dict[str, tuple[int, float, float]]:
    """Of each step: users of the largest build, its peak in MiB, and what it asks for before it
    starts (0 where it asks for nothing).
    """
    found: dict[str, tuple[int, float, float]] = {}
    for row in sorted(rows, key=lambda row: row["at"]):
        for name, value in row["values"].items():
            step = name.removeprefix("memory ")
            if name != step and "size" in row and not step.startswith(("publish", "worker", "all")):
                size = Size(**row["size"])
                known = step.split()[0] in NEEDS
                asked = need_gib(step.split()[0], size) * 1024 if known else 0.0
                found[step] = (round(size.users), round(value, 1), round(asked, 1))
    return found


def missed(found: Mapping[str, Any]) -> list[str]:
    """Steps that matter and were not met."""
    return [
        name
        for name, step in found["steps"].items()
        if step["share"] >= MATTERS and not 1 - WITHIN <= step["ratio"] <= 1 + WITHIN
    ]


def show(found: Mapping[str, Any]) -> None:
    """The table of the check."""
    sizes = ", ".join(f"{size:,}" for size in found["from"])
    print(f"{found['users']:,} users, predicted from {sizes}: CPU seconds")
    print(f"{'step':<20}{'predicted':>10}{'measured':>10}{'ratio':>7}{'share':>7}")
    for name, step in sorted(found["steps"].items(), key=lambda each: -each[1]["share"]):
        print(
            f"{name:<20}{step['predicted']:>10.1f}{step['measured']:>10.1f}{step['ratio']:>7.2f}{step['share']:>7.1%}"
        )


def plot(rows: Rows) -> list[Path]:
    """Steps' seconds and memory against users, kernels against their drivers, with exponents."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    pictures = {
        "cpu": (_of_steps(rows, "build", "step cpu "), "users", "CPU seconds"),
        "memory": (_of_steps(rows, "graph", "memory "), "users", "peak anonymous memory, MiB"),
        "parts": (_of_kernels(rows), "wedges, vectors × dimensions, events", "CPU seconds"),
    }
    drawn = []
    for name, (curves, across, up) in pictures.items():
        figure, axes = pyplot.subplots(figsize=(8, 5))
        colours = pyplot.get_cmap("tab20").colors  # type: ignore[attr-defined]
        axes.set_prop_cycle(color=colours)
        last = {part: points[-1][1] for part, points in curves.items()}
        for part in sorted(curves, key=lambda part: -last[part]):
            x, y = zip(*curves[part], strict=True)
            axes.loglog(x, y, "o-", markersize=4, label=f"{part}: {slope(x, y):.2f}")
        axes.set_xlabel(across)
        axes.set_ylabel(up)
        axes.legend(fontsize=7, title="exponent", loc="center left", bbox_to_anchor=(1.0, 0.5))
        axes.grid(alpha=0.3)
        figure.tight_layout()
        drawn.append(HOME / "docs" / "images" / f"scale_{name}.png")
        figure.savefig(drawn[-1], dpi=110)
        pyplot.close(figure)
    return drawn


Curves = dict[str, list[tuple[float, float]]]


def _of_steps(rows: Rows, kind: str, prefix: str) -> Curves:
    """Points of each step against users."""
    found: Curves = {}
    for row in rows:
        if row["kind"] == kind:
            if "cpu all" in row["values"] and prefix == "step cpu ":
                found.setdefault("whole build", []).append(
                    (row["size"]["users"], row["values"]["cpu all"])
                )
            for name, value in row["values"].items():
                step = name.removeprefix(prefix)
                if (
                    name.startswith(prefix)
                    and value > 0
                    and not step.startswith(("publish", "worker"))
                ):
                    found.setdefault(step, []).append((row["size"]["users"], value))
    return {name: sorted(points) for name, points in found.items()}


def _of_kernels(rows: Rows) -> Curves:
    seen = observations([row for row in rows if "drivers" in row])
    return {
        name.removeprefix("cpu "): sorted(points)
        for name, points in seen.items()
        if name.startswith("cpu ")
    }


def main() -> None:
    """Fit, check, draw; ship where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--ship", action="store_true", help="write the laws to the package")
    given = parser.parse_args()
    rows = load(given.results)
    found, laws = check(rows), fit(rows)
    show(found)
    for path in plot(rows):
        print(f"drawn: {path}")
    laws = Coefficients(laws.laws, {**laws.measured, "check": found, "memory": peaks(rows)})
    if given.ship:
        laws.save(Path(shipped.__file__).parent / shipped.FILE)
        print(f"written: {len(laws.laws)} laws")
    if missed(found):
        print(f"not within {WITHIN:.0%}: {', '.join(missed(found))}")
        sys.exit(1)


if __name__ == "__main__":
    main()
