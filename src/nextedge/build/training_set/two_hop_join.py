"""Two-hop candidates of many queries at once, by a join of the engine, for graphs beyond a machine.

The kernel walks a graph in memory or in mapped files. Where the graph is too large for that, an
engine of many machines joins its edges instead (``nextedge.graph.wedge_join``), some thousand
queries at a time, and the two-hop source reads the rows. They equal the kernel's.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nextedge.build.time_split.window_pipeline import BATCH, WindowPipeline
from nextedge.engines.base import Engine
from nextedge.graph.csr import Graph
from nextedge.graph.wedge_blocks import two_hop_result, write_blocks
from nextedge.graph.wedge_join import WedgeJoin
from nextedge.retrieval.two_hop import JOINED, TwoHop
from nextedge.storage.files import writing
from nextedge.types import IndexArray

if TYPE_CHECKING:
    import ibis

QUERIES = 32 * BATCH
"""Of one join: many enough to be worth a shuffle, few enough that a stopped build loses little."""
_ARRAYS = "arrays"
_ENTRIES = 1 << 20
"""Of the graph, in a piece of the edges table."""


def with_joined_two_hop(
    engine: Engine, pipeline: WindowPipeline, queries: np.ndarray
) -> Iterator[tuple[WindowPipeline, np.ndarray]]:
    """The queries in groups, each with a pipeline that has their two-hop candidates.

    One group with the pipeline as it is, where the engine has one machine or the graph is small.
    """
    opened = pipeline.open()
    source, graph = opened.sources.get(TwoHop.name), opened.scope.graph
    graph_bytes = graph.indptr.nbytes + graph.indices.nbytes
    if not isinstance(source, TwoHop) or not engine.joins(graph_bytes):
        yield pipeline, queries
        return
    edges = _edges(engine, graph, pipeline.folder / "edges.parquet")
    settings = source.join(opened.limits[TwoHop.name])
    for start in range(0, len(queries), QUERIES):
        # Ascending, because the source searches among them.
        group = np.sort(queries[start : start + QUERIES]).astype(np.int32)
        # By content, so that a resumed build finds the join of the same queries.
        mark = hashlib.sha256(group.tobytes()).hexdigest()[:16]
        folder = pipeline.folder / f"two-hop-{mark}"
        if not (folder / _ARRAYS).exists():
            _join(engine, edges, settings, group, folder)
        # In the drawn order, because max_rows cuts off the rest.
        yield replace(pipeline, two_hop=folder / _ARRAYS), queries[start : start + QUERIES]


def _join(
    engine: Engine, edges: ibis.Table, settings: WedgeJoin, queries: IndexArray, folder: Path
) -> None:
    """Join in blocks of bounded work, then write the rows as arrays."""
    table = engine.register("queries", pa.table({"query": queries}))
    files = write_blocks(engine, edges, settings, folder / "blocks", queries=table.select("query"))
    rows = (batch for file in files for batch in pq.ParquetFile(file).iter_batches())
    candidates = two_hop_result(rows, queries)
    arrays = {
        "query": queries,
        "indptr": candidates.indptr,
        "candidate": candidates.candidate,
        "score": getattr(candidates, settings.score),
    }
    partial = folder / f".{_ARRAYS}.{os.getpid()}"
    shutil.rmtree(partial, ignore_errors=True)
    with writing(folder):
        partial.mkdir()
        for name, values in arrays.items():
            np.save(partial / f"{JOINED}{name}.npy", values)
        # A folder of this name has all arrays: a killed build leaves none.
        os.replace(partial, folder / _ARRAYS)
        shutil.rmtree(folder / "blocks", ignore_errors=True)


def _edges(engine: Engine, graph: Graph, path: Path) -> ibis.Table:
    """The entries of a graph as a table, which is written piece by piece."""
    if not path.exists():
        schema = pa.schema([("source", pa.int32()), ("target", pa.int32())])
        partial = path.with_suffix(f".{os.getpid()}.part")
        with writing(path), pq.ParquetWriter(partial, schema, compression="zstd") as writer:
            for rows in _pieces(graph):
                low, high = graph.indptr[rows.start], graph.indptr[rows.stop]
                source = np.repeat(
                    np.arange(rows.start, rows.stop, dtype=np.int32),
                    np.diff(graph.indptr[rows.start : rows.stop + 1]),
                )
                target = np.asarray(graph.indices[low:high])
                writer.write_table(pa.table([source, target], schema=schema))
        # A cut file must not pass for the edges.
        os.replace(partial, path)
    return engine.read("edges", path.name, path.parent).select("source", "target")


def _pieces(graph: Graph) -> Iterator[slice]:
    """Slices of rows of about _ENTRIES entries."""
    bounds = np.arange(0, graph.edges + _ENTRIES, _ENTRIES)
    # Unique, because a row of many entries spans several bounds.
    cuts = np.unique(np.searchsorted(graph.indptr, bounds, side="left").clip(0, len(graph)))
    for start, stop in itertools.pairwise(cuts):
        yield slice(int(start), int(stop))
