"""Two-hop candidates of many queries at once, as an engine joins them: for graphs beyond a machine.

The kernel walks a graph that lies in memory, or is mapped. Where it is too large for that, an
engine of many machines joins its edges instead (``nextedge.graph.wedge_join``), for some thousand
queries at a time, and the source is given the rows. They are the kernel's, so nothing behind them
can tell.
"""

from __future__ import annotations

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
from nextedge.retrieval.two_hop import FOUND, TwoHop
from nextedge.storage.files import writing
from nextedge.types import IndexArray

if TYPE_CHECKING:
    import ibis

QUERIES = 32 * BATCH
"""Of one join: many enough to be worth a shuffle, few enough that a stopped build loses little."""
_ARRAYS = "arrays"
_ENTRIES = 1 << 20


def with_found(
    engine: Engine, line: WindowPipeline, queries: np.ndarray
) -> Iterator[tuple[WindowPipeline, np.ndarray]]:
    """The queries in groups, each with a line that knows what two-hop finds for them.

    One group with the line as it is, where the engine has one machine or the graph is small.
    """
    opened = line.open()
    source = opened.sources.get(TwoHop.name)
    if not isinstance(source, TwoHop) or not engine.joins(_bytes(opened.scope.graph)):
        yield line, queries
        return
    edges = _edges(engine, opened.scope.graph, line.folder / "edges.parquet")
    settings = source.join(opened.limits[TwoHop.name])
    for start in range(0, len(queries), QUERIES):
        group = np.sort(queries[start : start + QUERIES]).astype(np.int32)
        folder = line.folder / f"found-{_mark(group)}"
        if not (folder / _ARRAYS).exists():
            _find(engine, edges, settings, group, folder)
        yield replace(line, found=folder / _ARRAYS), queries[start : start + QUERIES]


def _find(
    engine: Engine, edges: ibis.Table, settings: WedgeJoin, queries: IndexArray, folder: Path
) -> None:
    """Join in blocks of bounded work, then keep the rows as arrays."""
    asked = engine.register("queries", pa.table({"query": queries}))
    files = write_blocks(engine, edges, settings, folder / "blocks", queries=asked.select("query"))
    rows = (batch for file in files for batch in pq.ParquetFile(file).iter_batches())
    found = two_hop_result(rows, queries)
    arrays = {
        "query": queries,
        "indptr": found.indptr,
        "candidate": found.candidate,
        "score": getattr(found, settings.score),
    }
    partial = folder / f".{_ARRAYS}.{os.getpid()}"
    shutil.rmtree(partial, ignore_errors=True)
    with writing(folder):
        partial.mkdir()
        for name, values in arrays.items():
            np.save(partial / f"{FOUND}{name}.npy", values)
        os.replace(partial, folder / _ARRAYS)
        shutil.rmtree(folder / "blocks", ignore_errors=True)


def _bytes(graph: Graph) -> int:
    return graph.indptr.nbytes + graph.indices.nbytes


def _mark(queries: np.ndarray) -> str:
    import hashlib

    return hashlib.sha256(queries.astype(np.int32).tobytes()).hexdigest()[:16]


def _edges(engine: Engine, graph: Graph, path: Path) -> ibis.Table:
    """The entries of a graph as a table, written some rows at a time."""
    if not path.exists():
        schema = pa.schema([("source", pa.int32()), ("target", pa.int32())])
        partial = path.with_suffix(f".{os.getpid()}.part")
        with writing(path), pq.ParquetWriter(partial, schema, compression="zstd") as writer:
            for rows in _some_rows(graph):
                low, high = graph.indptr[rows.start], graph.indptr[rows.stop]
                source = np.repeat(
                    np.arange(rows.start, rows.stop, dtype=np.int32),
                    np.diff(graph.indptr[rows.start : rows.stop + 1]),
                )
                target = np.asarray(graph.indices[low:high])
                writer.write_table(pa.table([source, target], schema=schema))
        os.replace(partial, path)
    return engine.read("edges", path.name, path.parent).select("source", "target")


def _some_rows(graph: Graph) -> Iterator[slice]:
    """Slices of rows of about _ENTRIES entries."""
    bounds = np.arange(0, graph.edges + _ENTRIES, _ENTRIES)
    cuts = np.unique(np.searchsorted(graph.indptr, bounds, side="left").clip(0, len(graph)))
    for start, stop in itertools.pairwise(cuts):
        yield slice(int(start), int(stop))
