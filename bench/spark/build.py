"""One build by the local engine and one by Spark on this machine's cores: seconds of every step.

    python bench/spark/build.py [--users 50000] [--edges 1000000]

Both releases are compared file by file. The overhead is Spark's seconds over the local engine's.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

RESULTS = Path(__file__).parent / "results"
USUAL = ("manifest.json", "build.json")


def write_tenant(folder: Path, users: int, edges: int) -> None:
    """People of a few hundred groups whose numbers of connections follow a power law, over a year."""
    random = np.random.default_rng(0)
    group = random.integers(0, max(4, users // 200), users)
    order = np.argsort(group, kind="stable")
    start = np.searchsorted(group[order], np.arange(group.max() + 2))
    weight = random.pareto(2.0, users) + 1.0
    source = random.choice(users, int(edges * 1.2), p=weight / weight.sum())
    near = random.random(len(source)) < 0.7
    own = group[source]
    inside = start[own] + (random.random(len(source)) * (start[own + 1] - start[own])).astype(int)
    target = np.where(near, order[inside], random.integers(0, users, len(source)))
    pairs = np.unique(np.sort(np.stack([source, target], 1)[source != target], axis=1), axis=0)
    pairs = random.permutation(pairs)[:edges]
    seconds = np.sort(random.integers(0, 365 * 86_400, len(pairs))) + 1_700_000_000
    pl.DataFrame(
        {
            "src": pairs[:, 0],
            "dst": pairs[:, 1],
            "timestamp": pl.Series(seconds * 1_000_000).cast(pl.Datetime("us", "UTC")),
        }
    ).write_parquet(folder / "connections.parquet")
    pl.DataFrame(
        {"user_id": np.arange(users), "group": [f"g{one}" for one in group]}
    ).write_parquet(folder / "users.parquet")


def build(folder: Path, engine: str) -> dict[str, object]:
    """Build in a process of its own; seconds in all and of every step."""
    state = folder / f"state-{engine}"
    (folder / f"{engine}.toml").write_text(f'state = "{state}"\n')
    command = [
        sys.executable,
        "-m",
        "nextedge",
        "build",
        "-c",
        str(folder / f"{engine}.toml"),
        "--engine",
        engine,
        "--json",
    ]
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    release = Path(json.loads(done.stdout)["path"])
    steps = json.loads((release / "build.json").read_text())["steps"]
    return {"seconds": round(time.perf_counter() - started, 1), "steps": steps, "path": release}


def differing(left: Path, right: Path) -> list[str]:
    """Files that are not the same: whole numbers and texts equal, floats to a millionth."""
    names = [
        sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file())
        for root in (left, right)
    ]
    found = sorted(set(names[0]) ^ set(names[1]))
    for name in sorted(set(names[0]) & set(names[1]) - set(USUAL)):
        ours, theirs = left / name, right / name
        if ours.suffix == ".npy":
            a, b = np.load(ours), np.load(theirs)
            alike = a.shape == b.shape and (
                np.allclose(a, b, rtol=1e-6, atol=1e-6, equal_nan=True)
                if a.dtype.kind == "f"
                else bool((a == b).all())
            )
        elif ours.suffix == ".json":
            alike = _same(json.loads(ours.read_text()), json.loads(theirs.read_text()))
        else:
            alike = ours.read_bytes() == theirs.read_bytes()
        found += [] if alike else [name]
    return found


def _same(left: object, right: object) -> bool:
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_same(left[k], right[k]) for k in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_same, left, right))
    if isinstance(left, float) and isinstance(right, float):
        return math.isclose(left, right, rel_tol=1e-6, abs_tol=1e-6)
    return left == right


def main() -> None:
    """Build twice, compare, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=50_000)
    parser.add_argument("--edges", type=int, default=1_000_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as name:
        folder = Path(name)
        write_tenant(folder, given.users, given.edges)
        edges = pl.scan_parquet(folder / "connections.parquet").select(pl.len()).collect().item()
        local, spark = build(folder, "local"), build(folder, "spark")
        unlike = differing(local["path"], spark["path"])  # type: ignore[arg-type]
    print(f"{given.users:,} users, {edges:,} edges; files that differ: {unlike or 'none'}")
    print(
        f"{'step':22} {'local s':>9} {'spark s':>9} {'ratio':>6} {'tasks':>6} {'shuffle MiB':>12}"
    )
    for ours, theirs in zip(local["steps"], spark["steps"], strict=True):  # type: ignore[call-overload]
        name = f"{ours['step']} {ours.get('surface', '')}"
        print(
            f"{name:22} {ours['seconds']:9.1f} {theirs['seconds']:9.1f} "
            f"{theirs['seconds'] / max(ours['seconds'], 1e-3):6.2f} "
            f"{theirs.get('tasks', 0):6.0f} {theirs.get('shuffle_mib', 0):12.1f}"
        )
    overhead = spark["seconds"] / local["seconds"]  # type: ignore[operator]
    print(
        f"in all: local {local['seconds']} s, Spark {spark['seconds']} s, overhead {overhead:.2f}"
    )
    RESULTS.mkdir(exist_ok=True)
    result = {
        "date": time.strftime("%Y-%m-%d"),
        "users": given.users,
        "edges": edges,
        "cores": os.cpu_count(),
        "differing": unlike,
        "overhead": round(overhead, 3),
        "local": {k: v for k, v in local.items() if k != "path"},
        "spark": {k: v for k, v in spark.items() if k != "path"},
    }
    (RESULTS / f"build-{result['date']}.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
