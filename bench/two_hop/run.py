"""Wedges per second of the two-hop kernel, beside a counting loop and sparse products.

    python bench/two_hop/run.py [--nodes 1000000] [--edges 25000000] [--queries 40000]

All methods take turns on the same queries, so that ratios hold on a machine that others use
too. See README.md for what each line measures.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from graphs import write_chung_lu

from nextedge.cores import thread_count
from nextedge.graph.two_hop import top_two_hop

HERE = Path(__file__).parent
Rows = tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]
Queries = npt.NDArray[np.int32]


@dataclass
class Clock:
    """Wedges walked by one method, and the seconds that they took."""

    wedges: int = 0
    wall_s: float = 0.0
    cpu_s: float = 0.0
    rates: list[float] = field(default_factory=list)

    def measure(self, wedges: int, run: Callable[[], Any]) -> Any:
        wall, cpu = time.perf_counter(), time.process_time()
        result = run()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        self.wedges, self.wall_s, self.cpu_s = (
            self.wedges + wedges,
            self.wall_s + wall,
            self.cpu_s + cpu,
        )
        self.rates.append(wedges / wall)
        return result

    def summary(self) -> dict[str, float]:
        return {
            "wedges": self.wedges,
            "wall_s": round(self.wall_s, 3),
            "million_wedges_per_s": round(self.wedges / self.wall_s / 1e6, 1),
            "million_wedges_per_cpu_s": round(self.wedges / self.cpu_s / 1e6, 1),
            "best_round_million_wedges_per_s": round(max(self.rates) / 1e6, 1),
        }


@numba.njit(cache=True, nogil=True)
def _count_wedges(indptr, indices, query_Q, count_N):  # type: ignore[no-untyped-def]
    for query in query_Q:
        for place in range(indptr[query], indptr[query + 1]):
            middle = np.uint32(indices[place])
            for entry in range(indptr[middle], indptr[middle + 1]):
                count_N[np.uint32(indices[entry])] += np.uint32(1)


def gather_and_increment(rows: Rows, queries: Queries, counters: list[Any]) -> None:
    """The floor: read every second-hop id and count it; no score, no selection."""
    blocks = np.array_split(queries, max(1, len(queries) // 512))

    def work(place: int) -> None:
        for block in blocks[place :: len(counters)]:
            _count_wedges(*rows, block, counters[place])

    with ThreadPoolExecutor(len(counters)) as pool:
        list(pool.map(work, range(len(counters))))


def sparse_products(rows: Rows, n: int) -> dict[str, Callable[[Queries], Any]]:
    """Two-hop pairs by sparse products, as bare products and down to the kernel's output.

    A bare product gives Adamic-Adar of all pairs and nothing else. To give what the kernel
    gives it takes three (counts and resource allocation too), without the query and its
    neighbours, with two common neighbours or more, and of these the n best.
    """
    indptr, indices = rows
    nodes, degree = len(indptr) - 1, np.diff(indptr)

    def weighted(weight: npt.NDArray[np.float64]) -> sp.csr_matrix:
        values = np.repeat(weight, degree).astype(np.float32)
        return sp.csr_matrix((values, indices, indptr), (nodes, nodes))

    weights = (np.ones(nodes), 1 / np.log(np.maximum(degree, 2)), 1 / np.maximum(degree, 1))
    matrices = [weighted(weight) for weight in weights]

    def scipy_product(queries: Queries, which: int = 1) -> sp.csr_matrix:
        return matrices[0][queries] @ matrices[which]

    products: dict[str, Callable[[Queries], Any]] = {
        "scipy product": scipy_product,
        "scipy to the same output": lambda queries: select_top(
            matrices[0], [scipy_product(queries, which) for which in range(3)], queries, n
        ),
    }
    try:
        import graphblas
        from graphblas import semiring
    except ImportError:
        print("GraphBLAS is not installed and is left out: pip install python-graphblas")
        return products
    theirs = [graphblas.io.from_scipy_sparse(matrix) for matrix in matrices]

    def graphblas_product(queries: Queries, which: int = 1) -> Any:
        chosen = theirs[0][np.sort(queries), :].new()
        return chosen.mxm(theirs[which], semiring.plus_times).new()

    def graphblas_output(queries: Queries) -> Any:
        found = [
            graphblas.io.to_scipy_sparse(graphblas_product(queries, which), "csr")
            for which in range(3)
        ]
        return select_top(matrices[0], found, np.sort(queries), n)

    products["graphblas product"] = graphblas_product
    products["graphblas to the same output"] = graphblas_output
    return products


def select_top(
    adjacency: sp.csr_matrix, products: list[sp.csr_matrix], queries: Queries, n: int
) -> list[tuple[Any, ...]]:
    """The n best by Adamic-Adar of each row, with the three sums of each."""
    for product in products:
        product.sort_indices()
    count, adamic_adar, allocation = products
    chosen = []
    for place, query in enumerate(queries):
        rows = slice(count.indptr[place], count.indptr[place + 1])
        target = count.indices[rows]
        row = adjacency.indices[adjacency.indptr[query] : adjacency.indptr[query + 1]]
        kept = (count.data[rows] >= 2) & (target != query)
        kept &= ~np.isin(target, row, assume_unique=True)
        score = np.where(kept, adamic_adar.data[rows], -1.0)
        top = np.argpartition(-score, n)[:n] if len(score) > n else np.arange(len(score))
        top = top[score[top] > 0]
        top = top[np.lexsort((target[top], -score[top]))]
        chosen.append((target[top], count.data[rows][top], score[top], allocation.data[rows][top]))
    return chosen


@numba.njit(cache=True)
def wedges_of(indptr, indices, query_Q):  # type: ignore[no-untyped-def]
    """Σ over the queries' neighbours of their degree."""
    wedges = 0
    for query in query_Q:
        for place in range(indptr[query], indptr[query + 1]):
            wedges += indptr[indices[place] + 1] - indptr[indices[place]]
    return wedges


def main() -> None:
    options = parse_options()
    with tempfile.TemporaryDirectory() as folder:
        drawing = multiprocessing.get_context("spawn").Process(
            target=write_chung_lu,
            args=(Path(folder), options.nodes, options.edges, options.exponent, options.seed),
        )
        drawing.start()
        drawing.join()
        indptr, indices = (np.load(Path(folder) / f"{name}.npy") for name in ("indptr", "indices"))
    report = measure((indptr, indices), options)
    text = render(report)
    print(text)
    options.out.mkdir(parents=True, exist_ok=True)
    stem = f"{report['date'][:10]}-{options.nodes}-nodes-{report['queries']}-queries"
    (options.out / f"{stem}.json").write_text(json.dumps(report, indent=2) + "\n")
    (options.out / f"{stem}.md").write_text(text)


def measure(rows: Rows, options: argparse.Namespace) -> dict[str, Any]:
    nodes = len(rows[0]) - 1
    queries = np.random.default_rng(options.seed).permutation(nodes).astype(np.int32)
    queries = queries[: options.queries or nodes]
    clocks: dict[str, Clock] = {}
    counters = [np.zeros(nodes, np.uint32) for _ in range(thread_count())]

    def timed(name: str, chosen: Queries, run: Callable[[Queries], Any]) -> Any:
        wedges = wedges_of(*rows, chosen)
        return clocks.setdefault(name, Clock()).measure(wedges, lambda: run(chosen))

    def gather(chosen: Queries) -> None:
        gather_and_increment(rows, chosen, counters)

    def ours(chosen: Queries, n: int = options.n, least: int = 2) -> Any:
        return top_two_hop(*rows, chosen, n=n, min_common=least)

    gather(queries[:32])  # compiles
    ours(queries[:32])
    given = 0
    for block in np.array_split(queries, max(1, len(queries) // options.block)):
        timed("gather_and_increment", block, gather)
        given += len(timed("top_two_hop", block, ours).candidate)
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    sample = queries[: options.sample]
    products = sparse_products(rows, options.n)
    for _ in range(3):
        for name, product in products.items():
            timed(name, sample, product)
        timed("top_two_hop, same sample", sample, ours)
        timed("top_two_hop, min_common=1", sample, lambda chosen: ours(chosen, least=1))
    check(products["scipy product"](sample[:50]), sample[:50], ours(sample[:50], nodes))
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.machine()}, {thread_count()} threads, load {os.getloadavg()[0]:.1f}",
        "graph": f"Chung-Lu, exponent {options.exponent}, seed {options.seed}",
        "nodes": nodes,
        "edges": options.edges,
        "largest_degree": int(np.diff(rows[0]).max()),
        "queries": len(queries),
        "n": options.n,
        "candidates_given": given,
        "peak_mib": round(peak_mib),
        "methods": {name: clock.summary() for name, clock in clocks.items()},
        "ratios": ratios(clocks, list(products)),
        "one_query_ms": single_requests(sample, ours),
    }


def ratios(clocks: dict[str, Clock], products: list[str]) -> dict[str, float]:
    def rate(name: str) -> float:
        return clocks[name].wedges / clocks[name].wall_s

    pairs = zip(clocks["top_two_hop"].rates, clocks["gather_and_increment"].rates, strict=True)
    found = {
        "to gather_and_increment, all rounds": rate("top_two_hop") / rate("gather_and_increment"),
        "to gather_and_increment, median round": float(np.median([a / b for a, b in pairs])),
    }
    for name in products:
        found[f"to {name}, same sample"] = rate("top_two_hop, same sample") / rate(name)
    return {name: round(value, 2) for name, value in found.items()}


def check(product: sp.csr_matrix, queries: Queries, found: Any) -> None:
    """Every given Adamic-Adar equals the sparse product's entry."""
    row = np.repeat(np.arange(len(queries)), np.diff(found.indptr))
    expected = np.asarray(product[row, found.candidate]).ravel()
    np.testing.assert_allclose(found.adamic_adar, expected, rtol=1e-4)


def single_requests(queries: Queries, ours: Callable[[Queries], Any]) -> dict[str, float]:
    """Milliseconds of batches of one query, one after the other."""
    taken = []
    for place in range(min(500, len(queries))):
        start = time.perf_counter()
        ours(queries[place : place + 1])
        taken.append((time.perf_counter() - start) * 1e3)
    return {f"p{p}": round(float(np.percentile(taken, p)), 3) for p in (50, 99)}


def render(report: dict[str, Any]) -> str:
    lines = [
        f"# Two-hop kernel, {report['date']}",
        "",
        f"{report['graph']}: {report['nodes']:,} nodes, {report['edges']:,} undirected edges, "
        f"largest degree {report['largest_degree']:,}. {report['machine']}. "
        f"Top {report['n']} of {report['queries']:,} queries: {report['candidates_given']:,} "
        f"candidates, peak memory {report['peak_mib']:,} MiB. Batches of one query: median "
        f"{report['one_query_ms']['p50']} ms, 99th percentile {report['one_query_ms']['p99']} ms.",
        "",
        f"`python {' '.join(sys.argv)}`",
        "",
        "| method | wedges | s | M wedges/s | best round | M wedges/CPU s |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, figures in report["methods"].items():
        lines.append(
            f"| {name} | {figures['wedges']:,} | {figures['wall_s']:.1f} "
            f"| {figures['million_wedges_per_s']} | {figures['best_round_million_wedges_per_s']} "
            f"| {figures['million_wedges_per_cpu_s']} |"
        )
    lines += ["", "| top_two_hop's rate | ratio |", "| --- | ---: |"]
    lines += [f"| {name} | {value} |" for name, value in report["ratios"].items()]
    return "\n".join(lines) + "\n"


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--nodes", type=int, default=1_000_000)
    parser.add_argument("--edges", type=int, default=25_000_000, help="undirected")
    parser.add_argument("--queries", type=int, default=40_000, help="0 takes all nodes")
    parser.add_argument("--block", type=int, default=10_000, help="queries a turn")
    parser.add_argument("--sample", type=int, default=1_000, help="queries of a sparse product")
    parser.add_argument("--n", type=int, default=200, help="candidates a query")
    parser.add_argument("--exponent", type=float, default=2.5, help="of the degree distribution")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=HERE / "results")
    return parser.parse_args()


if __name__ == "__main__":
    main()
