"""GraphSAGE by 1, 2 and 4 processes: epochs a second, quality, memory and bytes between them.

    python bench/models/distributed.py [--nodes 200000 --edges 2000000 --epochs 3]

A seeded graph of communities with 32 features a node. Epochs are timed from the end of the first
to the end of the last, without start and inference. ``ratio`` is the speed over that of one
process; on one machine all share its cores, so that it tells what sharing costs, not what more
machines bring. ``held_bytes`` is what a process holds of the graph and its inputs.
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
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from nextedge.config import TrainingConfig
from nextedge.cores import thread_count
from nextedge.graph.csr import build_graph, mirrored
from nextedge.models.artifact import Artifact
from nextedge.models.distributed.job import ARTIFACT, PROGRESS, write_job
from nextedge.models.distributed.launcher import ProgressOfRanks, launcher_of, threads_of
from nextedge.models.model import TrainingData
from nextedge.models.neural.graphsage import GraphSage
from nextedge.models.neural.node_inputs import GraphSageConfig
from nextedge.types import CONNECTS

WIDTH = 32
COMMUNITY = 100


def planted(nodes: int, edges: int) -> TrainingData:
    """Communities of neighbouring numbers; three edges in four lie within one."""
    random = np.random.default_rng(0)
    source = random.integers(0, nodes, edges // 2).astype(np.int32)
    near = np.minimum(
        source // COMMUNITY * COMMUNITY + random.integers(0, COMMUNITY, len(source)), nodes - 1
    )
    far = random.integers(0, nodes, len(source))
    target = np.where(random.random(len(source)) < 0.75, near, far).astype(np.int32)
    kept = source != target
    graph = build_graph(*mirrored(source[kept], target[kept]), nodes, nodes)
    x = random.standard_normal((nodes, WIDTH)).astype(np.float32)
    return TrainingData(CONNECTS, graph, x, x)


def measured(
    data: TrainingData, config: GraphSageConfig, processes: int, graph: str
) -> dict[str, Any]:
    """One training, in processes of its own."""
    ends: list[float] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_job(folder, GraphSage(), replace(data, partitioned=graph == "partitioned"), config)
        progress = ProgressOfRanks(
            folder / PROGRESS, "graphsage", lambda *_: ends.append(time.perf_counter())
        )
        launcher = launcher_of(TrainingConfig(processes=processes))
        if launcher is None:
            command = [sys.executable, "-m", "nextedge.models.distributed.worker", name]
            process = subprocess.Popen(command, env={**os.environ, **threads_of(1)})
            while process.poll() is None:
                time.sleep(0.05)
                progress.read()
        else:
            launcher.run(folder, progress)
        progress.read()
        fitted = Artifact.load(folder / ARTIFACT)
        about = dict(fitted.about.get("processes", {}))
    if launcher is None:  # the first that runs, so that no other child was larger
        about["peak_memory_bytes"] = [resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024]
    return {
        "processes": processes,
        "graph": graph,
        "epochs_per_s": round((len(ends) - 1) / max(ends[-1] - ends[0], 1e-9), 4),
        "ndcg": round(max(fitted.about["log"]["validation"]), 4),
        "peak_memory_mb": [round(peak / 1e6) for peak in about["peak_memory_bytes"]],
        "held_mb": [round(held / 1e6, 1) for held in about.get("held_bytes", [])],
        "sent_mb_a_step": [round(sent / 1e6, 2) for sent in about.get("sent_bytes_a_step", [])],
    }


def main() -> None:
    """Measure all ways and write them down."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--nodes", type=int, default=200_000)
    parser.add_argument("--edges", type=int, default=2_000_000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--dry", action="store_true", help="print, and write nothing")
    options = parser.parse_args()
    data = planted(options.nodes, options.edges)
    trainer = {"epochs": options.epochs, "patience": options.epochs}
    config = GraphSageConfig.model_validate({"trainer": trainer})
    rows: list[dict[str, Any]] = []
    ways = [(1, "replicated")] + [(n, way) for n in (2, 4) for way in ("replicated", "partitioned")]
    for processes, graph in ways:
        row = measured(data, config, processes, graph)
        first = rows[0] if rows else row
        row["ratio"] = round(row["epochs_per_s"] / first["epochs_per_s"], 2)
        rows.append(row)
        print(json.dumps(row), flush=True)
    if not options.dry:
        facts = {**vars(options), "cores": thread_count(), "date": f"{date.today()}", "rows": rows}
        path = Path(__file__).parent / "results" / "distributed.json"
        path.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
