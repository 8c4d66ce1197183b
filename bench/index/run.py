"""Nearest-neighbour indexes: build time, recall, and a search's time on one core.

    python bench/index/run.py [--size 1000000] [--dimensions 128] [--k 500]

Vectors are drawn around centres of Zipf sizes, as embeddings of people and items lie; queries
are drawn alike. Brute force over the same vectors is timed in the same run.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import faiss
import numpy as np

from nextedge.index.vector_index import KINDS, VectorIndex

HOME = Path(__file__).parents[2]


def embeddings(size: int, dimensions: int, seed: int) -> np.ndarray:
    """float32[size, dimensions] unit vectors around 2,000 centres."""
    centers = np.random.default_rng(0).standard_normal((2000, dimensions), np.float32)
    weight = 1.0 / np.arange(1, 2001)
    random = np.random.default_rng(seed)
    chosen = random.choice(2000, size, p=weight / weight.sum())
    noise = random.standard_normal((size, dimensions), np.float32)
    vectors = centers[chosen] + np.float32(0.9) * noise
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def main() -> None:
    """Measure and print; one line a kind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=1_000_000)
    parser.add_argument("--dimensions", type=int, default=128)
    parser.add_argument("--k", type=int, default=500)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--kinds", nargs="*", choices=KINDS, default=["ivf_flat", "ivf_sq8"])
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    vectors = embeddings(given.size, given.dimensions, 1)
    queries = embeddings(given.queries, given.dimensions, 2)
    rows = []
    for kind in ["flat", *given.kinds]:
        started = time.perf_counter()
        index = VectorIndex.build(vectors, queries, k=given.k, kind=kind)
        build = time.perf_counter() - started
        faiss.omp_set_num_threads(1)
        times = []
        for query in queries[: 100 if kind == "flat" else len(queries)]:
            started = time.perf_counter()
            index.search(query[None], given.k)
            times.append(time.perf_counter() - started)
        faiss.omp_set_num_threads(faiss.omp_get_max_threads())
        times_ms = np.array(times) * 1e3
        rows.append(
            {
                "kind": kind,
                "size": given.size,
                "k": given.k,
                "recall": round(index.report.recall, 4),
                "probe": index.report.probe,
                "build_and_check_s": round(build, 1),
                "p50_ms": round(float(np.quantile(times_ms, 0.5)), 3),
                "p99_ms": round(float(np.quantile(times_ms, 0.99)), 3),
            }
        )
        brute = rows[0]["p50_ms"]
        print(rows[-1], f"brute force / this: {brute / rows[-1]['p50_ms']:.1f}×", flush=True)
    if given.out:
        given.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
