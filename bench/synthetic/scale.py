"""Time and memory of generating tenants of growing size, each in a process of its own.

    python bench/synthetic/scale.py [--users 10000 100000 1000000] [--mean-degree 40]

Writes bench/synthetic/results/DATE-scale.json. The largest needs about 1 GB of scratch disk.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nextedge.data.synthetic import SyntheticConfig, generate_tenant

ROOT = Path(__file__).resolve().parents[2]


def one_run(users: int, mean_degree: float) -> dict[str, Any]:
    """Generate one tenant in this process; seconds of wall and CPU, by table, rows and peak memory."""
    with tempfile.TemporaryDirectory() as scratch:
        # Kernels compile once a machine: that is no part of the cost of a size.
        generate_tenant(Path(scratch) / "warm", SyntheticConfig(users=100))
        ends: dict[str, float] = {}
        start, busy = time.perf_counter(), time.process_time()

        def note(table: str, done: int, total: int) -> None:
            ends[table] = time.perf_counter()

        config = SyntheticConfig(users=users, mean_degree=mean_degree)
        rows = generate_tenant(Path(scratch) / "tenant", config, note)
        wall, busy = time.perf_counter() - start, time.process_time() - busy
        written = sum(path.stat().st_size for path in (Path(scratch) / "tenant").iterdir())
    seconds, previous = {}, start
    for table, end in ends.items():
        seconds[table] = round(end - previous, 2)
        previous = end
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    return {
        "users": users,
        "seconds": round(wall, 1),
        "cpu_seconds": round(busy, 1),
        "seconds_by_table": seconds,
        "rows": rows,
        "peak_resident_gib": round(peak, 2),
        "written_mib": round(written / 1024**2),
    }


def main() -> None:
    """Run every size and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--mean-degree", type=float, default=40.0)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(one_run(given.users[0], given.mean_degree)))
        return
    load = os.getloadavg()[1]
    runs = []
    for users in given.users:
        command = [sys.executable, __file__, "--one", "--users", str(users)]
        command += ["--mean-degree", str(given.mean_degree)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        runs.append(json.loads(done.stdout))
        print(json.dumps(runs[-1]))
    sizes = " ".join(map(str, given.users))
    result = {
        "command": f"python bench/synthetic/scale.py --users {sizes} --mean-degree {given.mean_degree}",
        "cores": os.cpu_count(),
        "load_average_before": round(load, 2),
        "runs": runs,
    }
    today = datetime.now(UTC).date().isoformat()
    target = ROOT / "bench" / "synthetic" / "results" / f"{today}-scale.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
