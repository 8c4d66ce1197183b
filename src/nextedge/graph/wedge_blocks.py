"""The wedge join in blocks of queries: bounded work at a time, and a run that can resume.

An engine groups, sorts and, where memory is short, spills the pairs of a block together. A block is
a range of query ids with about as many wedges as allowed; its result is one Parquet file, which
appears whole or not at all. A run makes only the files that its folder lacks.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nextedge.errors import ConfigError, DataError
from nextedge.graph.two_hop import SCORES, TwoHopResult
from nextedge.graph.wedge_join import WedgeJoin, query_wedges, two_hop_table
from nextedge.storage.files import writing
from nextedge.types import IndexArray, IntArray

if TYPE_CHECKING:
    import ibis
    import pyarrow as pa

    from nextedge.engines.base import Engine

MANIFEST = "blocks.json"


def cut_queries(wedges: IntArray, most: int) -> IntArray:
    """int64[B + 1] bounds of blocks of neighbouring queries, each with ``most`` wedges or fewer.

    A query that has more by itself is a block of its own.

    Args:
        wedges: int64[Q] of each query, in the order of the queries.

    >>> cut_queries(np.array([3, 4, 2, 9, 1]), 8).tolist()
    [0, 2, 3, 4, 5]
    """
    bounds, ends = [0], np.cumsum(wedges)
    while bounds[-1] < len(wedges):
        done = ends[bounds[-1] - 1] if bounds[-1] else 0
        fitting = int(np.searchsorted(ends, done + most, side="right"))
        bounds.append(max(fitting, bounds[-1] + 1))  # a query with more is a block of its own
    return np.array(bounds, np.int64)


def write_blocks(
    engine: Engine,
    edges: ibis.Table,
    settings: WedgeJoin,
    folder: Path,
    *,
    queries: ibis.Table | None = None,
    block_wedges: int = 1 << 28,
) -> list[Path]:
    """Run ``two_hop_table`` block by block; returns the Parquet files, in order of the queries.

    Rows are sorted by query and rank within a file and from file to file. The run reuses files of
    an earlier run of the same settings over the same graph in ``folder``.

    Args:
        engine: the one that read ``edges`` and ``queries`` (see ``two_hop_table``).
        folder: of this run alone; made where it is missing.
        block_wedges: most wedges of a block, except for a query that has more.

    Cost beside that of the join: one pass over the entries for the wedges of each query, 16 bytes a
    query in this process; and each block reads the graph anew.

    Raises:
        ConfigError: ``block_wedges`` is below 1, or the folder holds blocks of another run.
        StorageError: the disk is full or refuses to be written.
    """
    if block_wedges < 1:
        raise ConfigError(f"block_wedges is {block_wedges}; expected 1 or more")
    counted = engine.to_arrow(query_wedges(edges, settings.hub_cap, queries))
    query, wedges = (counted[name].to_numpy() for name in ("query", "wedges"))
    # Engines return groups in any order, and blocks are ranges of query ids.
    order = np.argsort(query)
    query, wedges = query[order].astype(np.int64), wedges[order].astype(np.int64)
    bounds = cut_queries(wedges, block_wedges)
    _claim(folder, _manifest(settings, query, wedges, block_wedges))
    ids = edges.select(query="source") if queries is None else queries
    paths = []
    for number, (begin, end) in enumerate(itertools.pairwise(bounds)):
        path = folder / f"block-{number:05d}.parquet"
        paths.append(path)
        if not path.exists():
            block = ids.filter(ids.query.between(int(query[begin]), int(query[end - 1])))
            pairs = two_hop_table(edges, settings, block)
            engine.write(pairs.order_by(["query", "rank"]), path)
    return paths


def two_hop_result(batches: Iterable[pa.RecordBatch], queries: IndexArray) -> TwoHopResult:
    """The rows of ``two_hop_table`` in the form of ``top_two_hop``.

    Args:
        batches: all rows, sorted by query and rank.
        queries: int32[Q] in any order; a query without rows has no candidates.

    Raises:
        DataError: the rows are not sorted, or some rows of a query are missing.
    """
    parts: dict[str, list[npt.NDArray[Any]]] = {
        name: [np.zeros(0, dtype)]
        for name, dtype in (("query", np.int64), ("candidate", np.int32), ("rank", np.int64))
    } | {name: [np.zeros(0, np.float32)] for name in SCORES}
    for batch in batches:
        for name, arrays in parts.items():
            values = batch.column(name).to_numpy(zero_copy_only=False)
            arrays.append(values.astype(arrays[0].dtype, copy=False))
    column = {name: np.concatenate(parts.pop(name)) for name in list(parts)}
    query, rank = column.pop("query"), column.pop("rank")
    present, first, size = np.unique(query, return_index=True, return_counts=True)
    whole = np.array_equal(rank, np.arange(1, len(query) + 1) - np.repeat(first, size))
    if not whole or np.any(np.diff(query) < 0):
        raise DataError("two-hop rows are cut or mixed; expected all of them by query, then rank")
    size_Q, first_Q = np.zeros(len(queries), np.int64), np.zeros(len(queries), np.int64)
    at = np.searchsorted(present, queries)
    known = at < len(present)
    known[known] = present[at[known]] == queries[known]
    size_Q[known], first_Q[known] = size[at[known]], first[at[known]]
    indptr = np.concatenate((np.zeros(1, np.int64), np.cumsum(size_Q)))
    row_R = np.repeat(first_Q - indptr[:-1], size_Q) + np.arange(indptr[-1])
    scores = {name: column[name][row_R] for name in SCORES}
    return TwoHopResult(**scores, indptr=indptr, candidate=column["candidate"][row_R])


def _manifest(
    settings: WedgeJoin, query: IntArray, wedges: IntArray, block_wedges: int
) -> dict[str, Any]:
    """The settings and the graph that two runs must have in common to share blocks."""
    graph = hashlib.sha256(query.tobytes() + wedges.tobytes()).hexdigest()
    return {**asdict(settings), "block_wedges": block_wedges, "wedges_of_queries": graph}


def _claim(folder: Path, manifest: dict[str, Any]) -> None:
    """Write the manifest into a new folder; refuse a folder with blocks of another run."""
    path = folder / MANIFEST
    if path.exists():
        if json.loads(path.read_text()) == manifest:
            return
        raise ConfigError(
            f"{folder} holds blocks of another graph or other settings; remove it, or give "
            "another folder"
        )
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{MANIFEST}.{os.getpid()}.part")
        part.write_text(json.dumps(manifest, indent=2) + "\n")
        part.replace(path)  # a run that is killed leaves no half manifest
