"""Alternating least squares: seconds a sweep beside the ``implicit`` library, in one run.

    pip install 'nextedge[bench]'
    python bench/models/als.py [--users 50000 --items 20000 --edges 2000000]

A sweep solves both sides once. Both take as many threads as there are cores and conjugate
gradient steps from the sweep before: three in ``implicit``, four here. Popularity is Zipfian.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as implicit asks for

import implicit
import numpy as np
from scipy import sparse

from nextedge.cores import thread_count
from nextedge.graph.csr import build_graph
from nextedge.models.als import Als, AlsConfig
from nextedge.models.model import TrainingData
from nextedge.types import ENGAGES


def quiet(*_: object) -> None:
    """Progress that nobody reads."""


def ours(data: TrainingData, factors: int, sweeps: int) -> float:
    """Seconds of a fit."""
    started = time.perf_counter()
    Als().fit(data, AlsConfig(dimensions=factors, sweeps=sweeps), quiet)
    return time.perf_counter() - started


def theirs(matrix: sparse.csr_matrix, factors: int, sweeps: int) -> float:
    """Seconds of a fit by ``implicit``."""
    model = implicit.als.AlternatingLeastSquares(
        factors=factors, iterations=sweeps, use_gpu=False, num_threads=thread_count()
    )
    started = time.perf_counter()
    model.fit(matrix, show_progress=False)
    return time.perf_counter() - started


def main() -> None:
    """Measure three widths and print ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=50_000)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--edges", type=int, default=2_000_000)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    random = np.random.default_rng(0)
    weight = 1.0 / np.arange(10, given.items + 10)
    user = random.integers(0, given.users, given.edges).astype(np.int32)
    item = random.choice(given.items, given.edges, p=weight / weight.sum()).astype(np.int32)
    graph = build_graph(user, item, given.users, given.items)
    data = TrainingData(ENGAGES, graph)
    values = np.ones(graph.edges, np.float32)
    matrix = sparse.csr_matrix((values, graph.indices, graph.indptr), (given.users, given.items))
    ours(data, 16, 1)  # compiles
    rows = []
    for factors in (64, 128, 256):
        mine = (ours(data, factors, 4) - ours(data, factors, 1)) / 3
        peer = (theirs(matrix, factors, 4) - theirs(matrix, factors, 1)) / 3
        rows.append(
            {
                "factors": factors,
                "edges": graph.edges,
                "nextedge_s": round(mine, 3),
                "implicit_s": round(peer, 3),
                "implicit / nextedge": round(peer / mine, 2),
            }
        )
        print(rows[-1], flush=True)
    if given.out:
        given.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
