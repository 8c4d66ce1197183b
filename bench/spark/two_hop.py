"""Wedges per second of the two-hop kernel, and of the wedge join on DuckDB and on Spark.

    python bench/spark/two_hop.py [--edges 100000 1000000] [--hub 5000000]

The methods take turns on the same queries, so that ratios hold on a machine that others use too;
each has run once before, small. The kernel gives arrays; the others read the graph from Parquet
and write their rows as Parquet. ``--hub`` adds a graph with one node that is connected to all
others: many queries with a cap, and a handful, all of them at the hub, without one. Every method's rows
are held against the kernel's.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import ibis
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from nextedge.cores import thread_count
from nextedge.engines.duckdb.engine import LocalEngine
from nextedge.graph.two_hop import SCORES, TwoHopResult, top_two_hop
from nextedge.graph.wedge_blocks import two_hop_result
from nextedge.graph.wedge_join import WedgeJoin, two_hop_table

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent / "two_hop"))
from graphs import chung_lu  # noqa: E402

Rows = tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]
Queries = npt.NDArray[np.int32]


class Duck:
    """The expression on DuckDB."""

    def __init__(self, folder: Path, memory: str) -> None:
        self.folder = folder
        self.engine = LocalEngine(memory_limit=memory)

    def run(self, asked: WedgeJoin) -> Path:
        edges, queries = (
            self.engine.read(name, f"{name}.parquet", self.folder) for name in ("edges", "queries")
        )
        found = two_hop_table(edges, asked, queries).order_by(["query", "rank"])
        self.engine.write(found, self.folder / "duckdb.parquet")
        return self.folder / "duckdb.parquet"


class Spark:
    """The expression on Spark, in this machine."""

    def __init__(self, folder: Path, memory: str, partitions: int) -> None:
        from pyspark.sql import SparkSession

        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
        self.folder = folder
        builder: Any = SparkSession.builder.master(f"local[{thread_count()}]")
        for name, value in {
            "ui.enabled": "false",
            "ui.showConsoleProgress": "false",
            "driver.memory": memory,
            "local.dir": str(folder),
            "sql.shuffle.partitions": str(partitions),
        }.items():
            builder = builder.config(f"spark.{name}", value)
        self.session = builder.getOrCreate()
        self.session.sparkContext.setLogLevel("ERROR")
        self.connection = ibis.pyspark.connect(self.session)

    def run(self, asked: WedgeJoin) -> Path:
        for name in ("edges", "queries"):
            rows = self.session.read.parquet(str(self.folder / f"{name}.parquet"))
            rows.createOrReplaceTempView(name)
        edges, queries = (self.connection.table(name) for name in ("edges", "queries"))
        found = two_hop_table(edges, asked, queries).order_by(["query", "rank"])
        path = self.folder / "spark.parquet"
        rows = self.session.sql(str(self.connection.compile(found)))
        rows.write.mode("overwrite").parquet(str(path))
        return path

    def peak_mib(self) -> int:
        """Largest resident memory of the Java machine so far."""
        java = self.session.sparkContext._jvm.java.lang.ProcessHandle.current().pid()
        status = Path(f"/proc/{java}/status").read_text().splitlines()
        return next(int(line.split()[1]) // 1024 for line in status if line.startswith("VmHWM"))


def with_hub(rows: Rows) -> Rows:
    """The graph and one more node, the last, that is connected to all others."""
    indptr, indices = rows
    nodes = len(indptr) - 1
    joined = np.insert(indices, indptr[1:], np.int32(nodes))
    everyone = np.arange(nodes, dtype=np.int32)
    bounds = np.append(indptr + np.arange(nodes + 1), len(joined) + nodes)
    return bounds, np.concatenate((joined, everyone))


def wedges_of(rows: Rows, queries: Queries, hub_cap: int | None) -> int:
    """Σ over the queries' walked neighbours of their degree."""
    indptr, indices = rows
    degree = np.diff(indptr)
    walked = np.where((degree > 1) & (degree <= (hub_cap or len(degree))), degree, 0)
    ends = np.concatenate((np.zeros(1, np.int64), np.cumsum(walked[indices])))
    return int((ends[indptr[queries + 1]] - ends[indptr[queries]]).sum())


def measure(
    name: str, rows: Rows, queries: Queries, asked: WedgeJoin, engines: list[Any], rounds: int
) -> dict[str, Any]:
    indptr, indices = rows
    folder = engines[0].folder
    source = np.repeat(np.arange(len(indptr) - 1, dtype=np.int32), np.diff(indptr))
    pq.write_table(pa.table({"source": source, "target": indices}), folder / "edges.parquet")
    del source

    def ask(chosen: Queries) -> None:
        pq.write_table(pa.table({"query": chosen}), folder / "queries.parquet")

    def kernel(chosen: Queries = queries) -> TwoHopResult:
        return top_two_hop(
            *rows,
            chosen,
            n=asked.n,
            min_common=asked.min_common,
            score=asked.score,
            hub_cap=asked.hub_cap,
        )

    methods: dict[str, Callable[[], Any]] = {"kernel": kernel}
    methods |= {
        type(engine).__name__.lower(): lambda engine=engine: engine.run(asked) for engine in engines
    }
    ask(queries[:2])
    for warm in methods.values():
        warm()
    ask(queries)
    seconds: dict[str, list[float]] = {method: [] for method in methods}
    for _ in range(rounds):
        for method, run in methods.items():
            start = time.perf_counter()
            found = run()
            seconds[method].append(time.perf_counter() - start)
            if method == "kernel":
                expected = found
            else:
                check(found, queries, expected)
    wedges, given = wedges_of(rows, queries, asked.hub_cap), len(expected.candidate)
    best = {method: min(taken) for method, taken in seconds.items()}
    return {
        "graph": name,
        "nodes": len(indptr) - 1,
        "entries": len(indices),
        "largest_degree": int(np.diff(indptr).max()),
        "hub_cap": asked.hub_cap,
        "queries": len(queries),
        "wedges": wedges,
        "rows": given,
        "seconds": {
            method: [round(each, 3) for each in taken] for method, taken in seconds.items()
        },
        "wedges_per_s": {method: round(wedges / taken) for method, taken in best.items()},
        "rows_per_s": {method: round(given / taken) for method, taken in best.items()},
        "kernel_is_faster_by": {
            method: round(taken / best["kernel"], 1)
            for method, taken in best.items()
            if method != "kernel"
        },
    }


def check(path: Path, queries: Queries, expected: TwoHopResult) -> None:
    """The rows of a file are the kernel's."""
    table = pq.read_table(path).sort_by([("query", "ascending"), ("rank", "ascending")])
    found = two_hop_result(table.to_batches(), queries)
    np.testing.assert_array_equal(found.indptr, expected.indptr)
    np.testing.assert_array_equal(found.candidate, expected.candidate)
    for name in SCORES:
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-6)


def render(reports: list[dict[str, Any]]) -> str:
    lines = [
        "| graph | cap | queries | wedges | method | s | M wedges/s | rows/s | kernel faster by |",
        "| --- | ---: | ---: | ---: | --- | ---: | ---: | ---: | ---: |",
    ]
    for report in reports:
        for method, taken in report["seconds"].items():
            lines.append(
                f"| {report['graph']} | {report['hub_cap'] or 'none'} | {report['queries']:,} "
                f"| {report['wedges']:,} | {method} | {min(taken):.2f} "
                f"| {report['wedges_per_s'][method] / 1e6:.2f} "
                f"| {report['rows_per_s'][method]:,} "
                f"| {report['kernel_is_faster_by'].get(method, 1)} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    options = parse_options()
    random = np.random.default_rng(options.seed)
    reports = []
    with tempfile.TemporaryDirectory() as folder:
        spark = Spark(Path(folder), options.memory, options.partitions)
        engines: list[Any] = [Duck(Path(folder), options.memory.upper() + "B"), spark]

        def run(name: str, rows: Rows, count: int, asked: WedgeJoin) -> None:
            nodes = len(rows[0]) - 1
            queries = np.sort(random.permutation(nodes)[: count or nodes]).astype(np.int32)
            reports.append(measure(name, rows, queries, asked, engines, options.rounds))
            reports[-1]["java_peak_mib"] = spark.peak_mib()
            print(render(reports[-1:]), flush=True)

        for edges in options.edges:
            rows = chung_lu(max(20, edges // 10), edges, seed=options.seed)
            run(f"power law, {edges:,} edges", rows, options.queries, WedgeJoin(options.n))
        if options.hub:
            rows = with_hub(chung_lu(options.hub, options.hub, seed=options.seed))
            capped = WedgeJoin(options.n, min_common=1, hub_cap=options.hub_cap)
            run(f"hub of {options.hub:,}", rows, 100_000, capped)
            run(f"hub of {options.hub:,}", rows, 5, WedgeJoin(options.n, min_common=1))
        spark.session.stop()
    date = datetime.now(UTC).isoformat(timespec="seconds")
    report = {
        "date": date,
        "command": f"python {' '.join(sys.argv)}",
        "machine": f"{platform.machine()}, {thread_count()} threads, load {os.getloadavg()[0]:.1f}",
        "memory": options.memory,
        "n": options.n,
        "graphs": reports,
    }
    text = f"# Wedge join, {date}\n\n{report['machine']}. `{report['command']}`\n\n"
    options.out.mkdir(parents=True, exist_ok=True)
    stem = f"{date[:10]}-two-hop-{max([*options.edges, options.hub])}"
    (options.out / f"{stem}.json").write_text(json.dumps(report, indent=2) + "\n")
    (options.out / f"{stem}.md").write_text(text + render(reports))


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--edges", type=int, nargs="*", default=[100_000, 1_000_000])
    parser.add_argument("--queries", type=int, default=0, help="of a power law; 0 takes all nodes")
    parser.add_argument("--hub", type=int, default=0, help="edges of the hub; 0 leaves it out")
    parser.add_argument("--hub-cap", type=int, default=1000)
    parser.add_argument("--n", type=int, default=200, help="candidates a query")
    parser.add_argument("--rounds", type=int, default=2, help="the best one counts")
    parser.add_argument("--memory", default="2g", help="of DuckDB, and of Spark's Java machine")
    parser.add_argument("--partitions", type=int, default=8, help="of a shuffle")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=HERE / "results")
    return parser.parse_args()


if __name__ == "__main__":
    main()
