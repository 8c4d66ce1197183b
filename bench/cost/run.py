"""How a build's time and memory grow: three sizes of the synthetic tenant, exponent fitted.

    python bench/cost/run.py [--users 1000 2000 4000]

Wedges (Σ degree²) are the cost driver for people, interactions for items; an exponent near 1
against wedges + interactions means that cost does not grow with users².
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("agg")
from matplotlib import pyplot

HOME = Path(__file__).parents[2]
RESULTS = Path(__file__).parent / "results"
CODE = """
import json, resource, sys, time
from pathlib import Path
from nextedge import Recommender
from nextedge.data.synthetic import SyntheticConfig, generate_tenant
folder = Path(sys.argv[1])
rows = generate_tenant(folder, SyntheticConfig(users=int(sys.argv[2]), items=2000))
recommender, started = Recommender(folder), time.perf_counter()
recommender.build()
seconds = time.perf_counter() - started
degree = recommender.release.snapshot.connections.degree
print(json.dumps({"users": int(sys.argv[2]), "edges": rows["connections"],
    "interactions": rows["interactions"], "wedges": int((degree.astype(float) ** 2).sum()),
    "build_s": round(seconds, 1),
    "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)}))
"""


def plot(rows: list[dict[str, float]], exponent: float) -> None:
    """Seconds against wedges and interactions, beside what users² would cost."""
    work = np.array([row["wedges"] + row["interactions"] for row in rows], float)
    seconds = np.array([row["build_s"] for row in rows])
    squared = np.array([row["users"] for row in rows], float) ** 2
    figure, axes = pyplot.subplots(figsize=(6, 4))
    axes.loglog(work, seconds, "o-", label=f"measured, exponent {exponent:.2f}")
    axes.loglog(work, seconds[0] * work / work[0], ":", label="proportional to the work")
    axes.loglog(work, seconds[0] * squared / squared[0], "--", label="proportional to users²")
    for row, across, up in zip(rows, work, seconds, strict=True):
        axes.annotate(f"{row['users']:,} users", (across, up), (6, -10), textcoords="offset points")
    axes.set_xlabel("wedges + interactions")
    axes.set_ylabel("seconds of one build")
    axes.legend()
    figure.tight_layout()
    figure.savefig(HOME / "docs" / "images" / "cost.png", dpi=130)


def main() -> None:
    """Build each size in a process of its own; print, fit, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, nargs="+", default=[1000, 4000, 16000])
    given = parser.parse_args()
    rows = []
    for users in given.users:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-c", CODE, folder, str(users)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print(rows[-1])
    work = np.log([row["wedges"] + row["interactions"] for row in rows])
    exponent = float(np.polyfit(work, np.log([row["build_s"] for row in rows]), 1)[0])
    print(f"build seconds grow with (wedges + interactions)^{exponent:.2f}")
    RESULTS.mkdir(exist_ok=True)
    plot(rows, exponent)
    result = {"date": time.strftime("%Y-%m-%d"), "exponent": round(exponent, 3), "sizes": rows}
    (RESULTS / f"{result['date']}.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
