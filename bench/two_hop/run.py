"""The two-hop kernel beside a physical limit and a peer, in one run.

    python bench/two_hop/run.py [--nodes 1000000] [--edges 25000000] [--queries 100000]

Graph: seeded Chung-Lu with power-law weights. Compared on the same sampled queries:
ours (top 200, five scores), a loop that only gathers second-hop ids and increments a counter
(the limit of the memory), and SciPy's sparse product (rows of A @ A). Prints wedges a second
and ratios; the three are interleaved, so that a noisy machine slows all alike.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable
from pathlib import Path

import numba
import numpy as np
from scipy import sparse

from nextedge.graph.csr import Graph, build_graph, mirrored
from nextedge.graph.threads import run_blocks, thread_count
from nextedge.graph.two_hop import top_two_hop

RESULTS = Path(__file__).parent / "results"


def power_law_graph(nodes: int, edges: int, seed: int = 0) -> Graph:
    """Chung-Lu: both ends drawn by weights rank^-0.45; repeats and loops are dropped."""
    random = np.random.default_rng(seed)
    weight = np.arange(1, nodes + 1, dtype=np.float64) ** -0.45
    total = np.cumsum(weight)
    label = random.permutation(nodes).astype(np.int32)

    def draw() -> np.ndarray:
        return label[np.searchsorted(total, random.random(edges) * total[-1])]

    source, target = draw(), draw()
    kept = source != target
    source, target = mirrored(source[kept], target[kept])
    return build_graph(source, target, nodes, nodes)


@numba.njit(cache=True, nogil=True)
def gather_and_count(block, blocks, indptr, indices, queries, totals):  # type: ignore[no-untyped-def]
    """Touch every wedge once: what no kernel of this kind can beat."""
    counter = np.zeros(len(indptr) - 1, np.int32)
    for q in range(block, len(queries), blocks):
        query = queries[q]
        for place in range(indptr[query], indptr[query + 1]):
            middle = indices[place]
            for entry in range(indptr[middle], indptr[middle + 1]):
                counter[indices[entry]] += 1
    totals[block] = counter.sum()


def timed(work: Callable[[], object]) -> float:
    """Seconds that it takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    """Run, print, and write a dated result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=1_000_000)
    parser.add_argument("--edges", type=int, default=25_000_000)
    parser.add_argument("--queries", type=int, default=20_000, help="sampled; 0 = every node")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    graph = power_law_graph(given.nodes, given.edges)
    random = np.random.default_rng(1)
    queries = np.arange(given.nodes, dtype=np.int32)
    if given.queries:
        queries = np.sort(random.choice(given.nodes, given.queries, replace=False)).astype(np.int32)
    few = queries[:: max(1, len(queries) // 2000)]
    matrix = sparse.csr_matrix((np.ones(graph.edges, np.float32), graph.indices, graph.indptr))
    per_query = np.add.reduceat(
        graph.degree[graph.indices], np.minimum(graph.indptr[:-1], graph.edges - 1)
    )
    per_query[graph.degree == 0] = 0
    wedges = {name: int(per_query[of].sum()) for name, of in (("all", queries), ("few", few))}
    totals = np.zeros(thread_count(), np.int64)

    def ours() -> object:
        return top_two_hop(graph.indptr, graph.indices, queries, n=200, min_common=2)

    def limit() -> object:
        return run_blocks(
            gather_and_count, len(queries), graph.indptr, graph.indices, queries, totals
        )

    top_two_hop(graph.indptr, graph.indices, queries[:64], n=200)
    run_blocks(gather_and_count, 64, graph.indptr, graph.indices, queries[:64], totals)
    rounds = []
    for _ in range(given.rounds):
        rates = {
            "gather_and_count": wedges["all"] / timed(limit),
            "two_hop": wedges["all"] / timed(ours),
            "scipy": wedges["few"] / timed(lambda: matrix[few] @ matrix),
        }
        rounds.append(rates)
    median = {name: float(np.median([r[name] for r in rounds])) for name in rounds[0]}
    result = {
        "date": time.strftime("%Y-%m-%d"),
        "nodes": given.nodes,
        "entries": graph.edges,
        "largest_degree": int(graph.degree.max()),
        "queries": len(queries),
        "threads": thread_count(),
        "wedges_per_s": {name: round(rate) for name, rate in median.items()},
        "times_scipy": round(median["two_hop"] / median["scipy"], 2),
        "share_of_limit": round(median["two_hop"] / median["gather_and_count"], 3),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{result['date']}-{given.nodes}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
