"""Fits the laws of ``nextedge plan`` to the measurements, and checks them on the largest build.

    python bench/plan/check.py [--results DIR] [--ship]

Laws fitted without the largest build predict it, step by step: each step of 5 % of the time or
more, and the whole, must be met within 25 %. ``--ship`` writes the laws of all sizes into the
package. Exit 1 where a prediction misses.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from fit import fit_law

from nextedge.config import SurfaceConfig
from nextedge.planning import coefficients as shipped
from nextedge.planning.coefficients import Coefficients
from nextedge.planning.degrees import Degrees
from nextedge.planning.steps import steps_of, surface_drivers
from nextedge.planning.workload import Size, Workload

RESULTS = Path(__file__).parent / "results"
WITHIN, MATTERS = 0.25, 0.05
SURFACES = {kind: SurfaceConfig(kind=kind) for kind in ("people", "items")}
TENANTS = ("build", "graph", "degree")
TELLING = 0.1
"""Seconds below which a part is too short to tell its exponent: it is 1."""
NEGLIGIBLE = 0.01
"""Share of the time of all fits of a surface below which a source has no law."""
DRIVERS = {
    "tables": "rows",
    "entities": "rows",
    "snapshot": "records",
    "graphs": "records",
    "network": "records",
    "sources": "nodes",
    "fit": "nodes",
    "fit items ease": "items",
    "fit items slist": "items",
    "fit items item_cooccurrence": "interactions",
    "fit items item_knn": "interactions",
    "fit items graph_filter": "interactions",
    "labels": "labelled candidates",
    "training": "training rows",
    "queries": "evaluated candidates",
    "impressions": "evaluated impressions",
    "publish": "listed candidates",
    "release": "release MiB",
    "request": "looked at",
    "labelled": "users",
    "evaluated": "users",
    "bytes": "candidates",
}
"""What each part grows with, by its algorithm; by the part's first word unless named in full."""
RENAMED = {
    "cpu evaluate ": "cpu impressions ",
    "count labelled ": "labelled ",
    "count evaluated ": "evaluated ",
}
ADDED = {"cpu fusion ": "cpu labels ", "cpu rank ": "cpu labels "}
"""Short parts, which count as one of those that grow alike."""
UNUSED = ("bytes list", "cpu sources people", "cpu sources items")
QUANTITIES = ("cpu", "output", "bytes", "labelled", "evaluated")
Rows = list[dict[str, Any]]


def load(folder: Path) -> Rows:
    """Every size that was measured."""
    rows = [json.loads(path.read_text()) for path in sorted(folder.glob("*-*.json"))]
    if not rows:
        raise SystemExit(f"{folder}: nothing measured yet; run: python bench/plan/measure.py")
    return rows


def values_of(row: Mapping[str, Any]) -> dict[str, float]:
    """The measurements by the names of their laws."""
    values: dict[str, float] = {}
    for name, value in row["values"].items():
        for old, new in (RENAMED | (ADDED if row["kind"] == "build" else {})).items():
            if name.startswith(old):
                name = new + name.removeprefix(old)
        values[name] = values.get(name, 0.0) + value
    return values


def drivers(row: Mapping[str, Any], kind: str) -> dict[str, float]:
    """What the laws of a surface grow with, in a measured tenant."""
    size, values = Size(**row["size"]), row["values"]
    counts = (values.get(f"count {of} {kind}", 0.0) for of in ("labelled", "evaluated"))
    written = ("entities", "snapshot", "sources people", "sources items")
    return surface_drivers(size, SURFACES[kind], *counts) | {
        "release MiB": sum(values.get(f"output {step}", 0.0) for step in written),
        "looked at": (size.wedges / size.entries)
        if kind == "people"
        else size.interactions / size.users,
        "candidates": values.get(f"count candidates {kind}", 0.0),
    }


def observations(rows: Rows) -> dict[str, tuple[str, list[float], list[float]]]:
    """Of every law: the name of its driver, the drivers, and the values."""
    found: dict[str, tuple[str, list[float], list[float]]] = {}
    for row in rows:
        for law, value in values_of(row).items():
            quantity, _, part = law.partition(" ")
            if row["kind"] not in TENANTS:
                name, driver = next(iter(row["drivers"].items()))
                driver = driver if quantity in ("cpu", "bytes") else 0.0
            else:
                part = part if quantity in ("cpu", "output", "memory") else law
                name = DRIVERS.get(part, DRIVERS.get(part.split()[0], ""))
                kind = "items" if " items" in law else "people"
                used = law not in UNUSED and (quantity in QUANTITIES or law == "memory tables")
                driver = drivers(row, kind).get(name, 0.0) if used else 0.0
            if driver > 0:
                seen = found.setdefault(law, (name, [], []))
                seen[1].append(driver)
                seen[2].append(float(value))
    return found


def fit(rows: Rows) -> Coefficients:
    """Laws of everything that was measured at two sizes or more."""
    machine = max((row["machine"] for row in rows), key=lambda machine: machine["load"])
    cores = machine["cores"]
    laws = {}
    seen = observations(rows)
    walls = observations([{**row, "values": _walls(row)} for row in rows])
    for law, (name, driver, value) in seen.items():
        if len(set(driver)) < 2 or (law.startswith("cpu fit") and _negligible(law, seen)):
            continue
        timed = law.startswith("cpu ") and max(value) >= TELLING
        # the cells that a search looks into grow with the root of the vectors
        lowest = 0.5 if law == "cpu search" else 0.8
        found = fit_law(driver, value, None if timed else 1.0, lowest, name)
        if timed and law in walls:
            # other jobs on the machine only lower it, so the best size tells most
            rates = (cpu / max(wall, 1e-9) for cpu, wall in zip(value, walls[law][2], strict=True))
            busy = min(max(1.0, *rates), cores)
            parallel = 0.0 if cores <= 1 else 1 - (cores / busy - 1) / (cores - 1)
            found = replace(found, parallel=round(parallel, 3))
        laws[law] = found
    sizes: dict[str, list[int]] = {}
    for row in rows:
        sizes.setdefault(row["kind"], []).append(row["at"])
    about = {**machine, "sizes": sizes, "command": "python bench/plan/measure.py"}
    return Coefficients(laws, about)


def _walls(row: Mapping[str, Any]) -> dict[str, float]:
    """The wall seconds of each part, under the name of its CPU seconds."""
    values = row["values"]
    counts = {name: value for name, value in values.items() if name.startswith(("count", "output"))}
    return counts | {
        name.replace("wall", "cpu", 1): value
        for name, value in values.items()
        if name.startswith("wall ")
    }


def _negligible(law: str, seen: Mapping[str, tuple[str, list[float], list[float]]]) -> bool:
    kind = law.rsplit(" ", 1)[0]
    return max(seen[law][2]) < NEGLIGIBLE * sum(
        max(values) for name, (_, _, values) in seen.items() if name.startswith(kind)
    )


def predicted(row: Mapping[str, Any], laws: Coefficients) -> dict[str, float]:
    """CPU seconds of every step of a build of that size, by the laws."""
    size = Size(**row["size"])
    second = size.wedges / size.users
    degrees = Degrees(size.entries / size.users, second, second, 0.0, "counted")
    steps = steps_of(Workload(size, degrees, surfaces=SURFACES), laws)
    return {step.name: step.cpu_seconds for step in steps if not step.name.startswith("candidates")}


def measured(row: Mapping[str, Any]) -> dict[str, float]:
    """CPU seconds of every step, as measured."""
    prefix = "step cpu "
    steps = {n.removeprefix(prefix): v for n, v in row["values"].items() if n.startswith(prefix)}
    return {**steps, "release": row["values"]["cpu release"]}


def check(rows: Rows) -> dict[str, Any]:
    """The largest build, predicted from the others."""
    builds = sorted((row for row in rows if row["kind"] == "build"), key=lambda row: row["at"])
    if len(builds) < 3:
        raise SystemExit(f"{len(builds)} builds measured; the check needs three or more")
    largest = builds[-1]
    laws = fit([row for row in rows if row is not largest])
    said, was = predicted(largest, laws), measured(largest)
    said["total"], was["total"] = sum(said[name] for name in was), sum(was.values())
    steps = {
        name: {
            "predicted": round(said[name], 2),
            "measured": round(seconds, 2),
            "ratio": round(said[name] / max(seconds, 1e-9), 3),
            "share": round(seconds / was["total"], 3),
        }
        for name, seconds in was.items()
    }
    return {"users": largest["at"], "from": [row["at"] for row in builds[:-1]], "steps": steps}


def missed(found: Mapping[str, Any]) -> list[str]:
    """Steps that matter and that the laws did not meet."""
    return [
        name
        for name, step in found["steps"].items()
        if step["share"] >= MATTERS and not 1 - WITHIN <= step["ratio"] <= 1 + WITHIN
    ]


def lines(found: Mapping[str, Any]) -> list[str]:
    """The table of the check, in Markdown."""
    text = [
        f"{found['users']:,} users, predicted from {' and '.join(f'{n:,}' for n in found['from'])}:",
        "",
        "| step | predicted CPU s | measured | ratio | share |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, step in sorted(found["steps"].items(), key=lambda item: -item[1]["share"]):
        if step["share"] >= 0.01:
            text.append(
                f"| {name} | {step['predicted']:.1f} | {step['measured']:.1f} | "
                f"{step['ratio']:.2f} | {step['share']:.0%} |"
            )
    return text


def save(laws: Coefficients, path: Path) -> None:
    """Write the file that ``nextedge plan`` reads, one law a line."""
    rows = (
        f" {json.dumps(name)}: "
        + json.dumps(
            {
                k: float(f"{v:.6g}") if isinstance(v, float) else v
                for k, v in asdict(law).items()
                if v != 0.0 or k in "ab"
            }
        )
        for name, law in sorted(laws.laws.items())
    )
    head = f'{{"format": {shipped.FORMAT},\n"measured": {json.dumps(dict(laws.measured))},\n'
    path.write_text(head + '"laws": {\n' + ",\n".join(rows) + "\n}}\n", encoding="utf-8")


def main() -> None:
    """Fit and check; ship where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--ship", action="store_true", help="write the laws to the package")
    options = parser.parse_args()
    rows = load(options.results)
    found, laws = check(rows), fit(rows)
    print("\n".join(lines(found)))
    if options.ship:
        save(laws, Path(shipped.__file__).parent / shipped.FILE)
        print(f"written: {len(laws.laws)} laws")
    if missed(found):
        print(f"not within {WITHIN:.0%}: {', '.join(missed(found))}")
        sys.exit(1)


if __name__ == "__main__":
    main()
