"""Searches through processes with shards against one index in this process.

    python bench/serving/shards.py [--vectors 1000000] [--shards 1 2 4 8] [--kind ivf_flat]

Vectors lie around centres, as embeddings do; they are written to a file in pieces and mapped from
there, so that 10,000,000 of them need no memory of their own. Every number of shards has an index of its
own, built and checked as a build does, and as many processes of ``nextedge serve-shard`` over it;
the front is this process, by Unix sockets. Brute force over the same vectors is timed in the same
run. One search is of one query; searches a second are those of several threads at once.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from nextedge.config import Config
from nextedge.index.sharded import Searcher, ShardedIndex, shard_bounds
from nextedge.index.vector_index import VectorIndex, exact_search
from nextedge.serving.shards.client import RemoteIndex, ShardClient
from nextedge.storage.arrays import mapped
from nextedge.testing.shards import SOURCE, SURFACE, write_shards

RELEASE = "20260101-000000"
RESULTS = Path(__file__).parent / "results"
_PIECE = 250_000
_CENTRES = 2000


def write_vectors(path: Path, size: int, dimensions: int) -> np.ndarray:
    """float32[size, dimensions] unit vectors around centres of Zipf sizes, mapped."""
    whole = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(size, dimensions))
    for start in range(0, size, _PIECE):
        stop = min(start + _PIECE, size)
        whole[start:stop] = drawn(stop - start, dimensions, start + 1)
    whole.flush()
    return mapped(path)


def drawn(size: int, dimensions: int, seed: int) -> np.ndarray:
    """float32[size, dimensions] unit vectors; the centres are the same for every seed."""
    centers = np.random.default_rng(0).standard_normal((_CENTRES, dimensions), np.float32)
    weight = 1.0 / np.arange(1, _CENTRES + 1)
    random = np.random.default_rng(seed)
    chosen = random.choice(_CENTRES, size, p=weight / weight.sum())
    noise = random.standard_normal((size, dimensions), np.float32)
    vectors = centers[chosen] + np.float32(0.9) * noise
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


class Processes:
    """``nextedge serve-shard`` of every part, over one state folder."""

    def __init__(self, home: Path, shards: int) -> None:
        self.paths = [home / f"{place}.socket" for place in range(shards)]
        (home / "nextedge.toml").write_text('[data]\ninteractions = "none"\n')
        command = [sys.executable, "-m", "nextedge", "serve-shard"]
        self.started = [
            subprocess.Popen(
                [*command, f"{place}/{shards}", "-c", home / "nextedge.toml", "--socket", path],
                stderr=subprocess.DEVNULL,
            )
            for place, path in enumerate(self.paths)
        ]
        self.client = ShardClient(
            Config.model_validate({"serving": {"shards": [f"unix:{path}" for path in self.paths]}})
        )

    def wait(self) -> None:
        while not all(path.is_socket() for path in self.paths):
            assert all(each.poll() is None for each in self.started), "a process did not start"
            time.sleep(0.1)
        while faults := self.client.open_release(RELEASE):
            print("\n".join(faults), file=sys.stderr)
            time.sleep(0.5)

    def index(self, bounds: list[int]) -> RemoteIndex:
        return RemoteIndex(self.client, RELEASE, SURFACE, SOURCE, bounds)

    def stop(self) -> None:
        self.client.close()
        for each in self.started:
            each.terminate()
        for each in self.started:
            each.wait()


def one_by_one(index: Searcher, queries: np.ndarray, k: int, searches: int) -> dict[str, float]:
    """p50 and p99 of searches of one query each."""
    for query in queries[:20]:
        index.search(query[None], k)
    spent = []
    for number in range(searches):
        query = queries[number % len(queries)][None]
        started = time.perf_counter()
        index.search(query, k)
        spent.append(time.perf_counter() - started)
    return {
        "p50_ms": float(np.quantile(spent, 0.5) * 1e3),
        "p99_ms": float(np.quantile(spent, 0.99) * 1e3),
    }


def brute_force_ms(vectors: np.ndarray, queries: np.ndarray, k: int) -> float:
    """Milliseconds of one query, median, compared with every vector."""
    spent = []
    for query in queries:
        started = time.perf_counter()
        exact_search(vectors, query[None], k)
        spent.append(time.perf_counter() - started)
    return float(np.median(spent) * 1e3)


def a_second(index: Searcher, queries: np.ndarray, k: int, threads: int, seconds: float) -> float:
    """Searches a second by several threads at once."""
    ends = time.perf_counter() + seconds
    done = [0] * threads

    def ask(thread: int) -> None:
        while time.perf_counter() < ends:
            query = queries[(thread * 7919 + done[thread]) % len(queries)][None]
            index.search(query, k)
            done[thread] += 1

    running = [threading.Thread(target=ask, args=(number,)) for number in range(threads)]
    started = time.perf_counter()
    for each in running:
        each.start()
    for each in running:
        each.join()
    return sum(done) / (time.perf_counter() - started)


def main() -> None:
    """Measure and print; one line a number of shards."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vectors", type=int, default=100_000)
    parser.add_argument("--dimensions", type=int, default=64)
    parser.add_argument("--k", type=int, default=500)
    parser.add_argument("--shards", type=int, nargs="*", default=[1, 2, 4, 8])
    parser.add_argument("--kind", default="ivf_flat")
    parser.add_argument("--searches", type=int, default=2000)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument(
        "--home", type=Path, help="folder on a disk with room for the vectors twice"
    )
    parser.add_argument("--out", type=Path, default=RESULTS / f"shards-{date.today()}.json")
    given = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="shards-", dir=given.home))
    try:
        rows = measured(given, home)
    finally:
        shutil.rmtree(home)
    about = {key: value for key, value in vars(given).items() if key not in ("home", "out")}
    about |= {"cores": len(os.sched_getaffinity(0)), "machine": platform.machine()}
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps({"given": about, "rows": rows}, indent=1) + "\n")
    print(f"wrote {given.out}")


def measured(given: argparse.Namespace, home: Path) -> list[dict[str, Any]]:
    """A row for the index in this process, and one for every number of shards."""
    import faiss

    vectors = write_vectors(home / "vectors.npy", given.vectors, given.dimensions)
    queries = drawn(1000, given.dimensions, 1 << 40)
    settings = {"k": given.k, "kind": given.kind}
    rows: list[dict[str, Any]] = []

    def told(name: str, index: Searcher, **more: Any) -> None:
        found = one_by_one(index, queries, given.k, given.searches)
        found["a_second"] = a_second(index, queries, given.k, given.threads, given.seconds)
        rows.append({"index": name, **found, **more})
        ratio = {key: found[key] / rows[0][key] for key in ("p50_ms", "p99_ms", "a_second")}
        print(
            f"{name:>14}  p50 {found['p50_ms']:8.3f} ms ({ratio['p50_ms']:.2f})  "
            f"p99 {found['p99_ms']:8.3f} ms ({ratio['p99_ms']:.2f})  "
            f"{found['a_second']:8.0f} a second ({ratio['a_second']:.2f})",
            flush=True,
        )

    faiss.omp_set_num_threads(1)
    in_process = VectorIndex.build(vectors, queries, **settings)
    told("in process", in_process, recall=in_process.report.recall)
    rows[0]["brute_force_ms"] = brute_force_ms(vectors, queries[:20], given.k)
    del in_process
    for shards in given.shards:
        folder = home / str(shards)
        folder.mkdir()
        index = ShardedIndex.build(vectors, queries, shards, **settings)
        write_shards(folder / "state", RELEASE, vectors, index)
        assert index.report is not None
        recall = index.report.recall
        del index
        processes = Processes(folder, shards)
        try:
            processes.wait()
            told(
                f"{shards} processes",
                processes.index(shard_bounds(given.vectors, shards)),
                recall=recall,
                parts=[str(part) for part in processes.client.parts],
            )
        finally:
            processes.stop()
            shutil.rmtree(folder)
    return rows


if __name__ == "__main__":
    main()
