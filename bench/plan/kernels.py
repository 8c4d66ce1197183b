"""Measures single kernels at sizes that no build on two cores would reach.

    python bench/plan/kernels.py two_hop NODES | vectors COUNT | events COUNT

Wedges walked, vectors indexed and searched, events folded in. Prints one JSON line.
"""

from __future__ import annotations

import importlib
import json
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

BENCH = Path(__file__).parents[1]
MEAN_DEGREE = 50
DIMENSIONS = 128
SEARCHES = 200
EVENT_USERS = 5000


def beside(folder: str, module: str) -> ModuleType:
    """A module of another bench; one folder a process, as several have a ``run``."""
    sys.path.insert(0, str(BENCH / folder))
    return importlib.import_module(module)


def two_hop(nodes: int) -> dict[str, Any]:
    """CPU seconds of the 1,000 best of everybody in a Chung-Lu graph."""
    from nextedge.graph.two_hop import top_two_hop

    rows = beside("two_hop", "graphs").chung_lu(nodes, nodes * MEAN_DEGREE // 2)
    degree = np.diff(rows[0]).astype(float)
    order = np.random.default_rng(0).permutation(nodes).astype(np.int32)
    top_two_hop(*rows, order[:64], n=1000)
    cpu, wall = time.process_time(), time.perf_counter()
    for start in range(0, nodes, 2048):
        top_two_hop(*rows, order[start : start + 2048], n=1000)
    values = {"cpu two_hop": time.process_time() - cpu, "wall two_hop": time.perf_counter() - wall}
    return {"drivers": {"wedges": float((degree**2).sum())}, "values": values}


def vectors(count: int) -> dict[str, Any]:
    """An index as the build makes it, a search of one core, and what it takes on disk."""
    import faiss

    from nextedge.index.vector_index import VectorIndex

    embeddings = beside("index", "run").embeddings
    vector, query = embeddings(count, DIMENSIONS, 1), embeddings(SEARCHES, DIMENSIONS, 2)
    cpu, wall = time.process_time(), time.perf_counter()
    index = VectorIndex.build(vector, query, k=500)
    built = time.process_time() - cpu, time.perf_counter() - wall
    faiss.omp_set_num_threads(1)
    cpu = time.process_time()
    for each in query:
        index.search(each[None], 500)
    searched = (time.process_time() - cpu) / len(query)
    size_mib = vector.nbytes / 2**20
    values = {
        "cpu index": built[0],
        "wall index": built[1],
        "cpu search": searched,
        "wall search": searched,
        "memory vectors": 2 * size_mib,
        "output vectors": size_mib,
    }
    return {"drivers": {"components": float(count * DIMENSIONS)}, "values": values}


def events(count: int) -> dict[str, Any]:
    """Events folded into live state by one core, what they take there and in the log."""
    from nextedge.events.logs.sqlite.log import LocalLog

    applying = beside("events", "applying")
    found = applying.measure(count, EVENT_USERS)
    with tempfile.TemporaryDirectory() as folder:
        log = LocalLog(Path(folder))
        made = applying.mixed(count, EVENT_USERS)
        for start in range(0, count, 5000):
            log.append(made[start : start + 5000])
        log.close()
        logged = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    cpu = count / found["events_a_second"]
    values = {
        "cpu event": cpu,
        "wall event": cpu,
        "bytes logged": float(logged),
        "bytes event": float(found["bytes_an_event"]) * count,
    }
    return {"drivers": {"events": float(count)}, "values": values}


if __name__ == "__main__":
    measured = {"two_hop": two_hop, "vectors": vectors, "events": events}[sys.argv[1]]
    print(json.dumps(measured(int(sys.argv[2]))))
