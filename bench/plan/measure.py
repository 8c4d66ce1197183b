"""What each stage costs at three sizes, for ``nextedge plan``: each size in a process of its own.

    python bench/plan/measure.py [--build 600 1200 2400] [--graph …] [--fresh]

Results are kept, one file a size; a size that is there is not measured again, so a stopped run
goes on where it was. ``python bench/plan/check.py`` then fits the laws and checks them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS = HERE / "results"
SIZES = {
    "build": [600, 1200, 2400],
    "graph": [2000, 6000, 18000],
    "degree": [15, 30, 60],
    "two_hop": [25000, 50000, 100000],
    "vectors": [60000, 120000, 240000],
    "events": [20000, 40000, 80000],
}
TENANTS = ("build", "graph", "degree")


def main() -> None:
    """Measure every size that has no file yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    for kind, sizes in SIZES.items():
        parser.add_argument(f"--{kind}", type=int, nargs="*", default=sizes)
    parser.add_argument("--fresh", action="store_true", help="measure all of them again")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    if not all((given.out / f"build-{size}.json").exists() for size in given.build) or given.fresh:
        run("build", 150)  # compiles the kernels
    for kind in SIZES:
        for size in getattr(given, kind):
            path = given.out / f"{kind}-{size}.json"
            if path.exists() and not given.fresh:
                print(f"{kind} {size}: there already")
                continue
            began = time.perf_counter()
            row = {"kind": kind, "at": size, **run(kind, size), "machine": machine()}
            path.write_text(json.dumps(row, indent=1) + "\n")
            print(f"{kind} {size}: {time.perf_counter() - began:.0f} s")


def run(kind: str, size: int) -> dict[str, Any]:
    """One measurement, in its own process."""
    script = "tenant.py" if kind in TENANTS else "kernels.py"
    environment = {
        **os.environ,
        "OMP_WAIT_POLICY": "passive",
    }  # waiting threads do not count as work
    command = [sys.executable, str(HERE / script), kind, str(size)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-4000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def machine() -> dict[str, Any]:
    """Where and when it was measured."""
    return {
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "date": time.strftime("%Y-%m-%d"),
        "load": round(os.getloadavg()[1], 1),
        "python": platform.python_version(),
    }


def processor() -> str:
    """The processor's name, as the system tells it."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


if __name__ == "__main__":
    main()
