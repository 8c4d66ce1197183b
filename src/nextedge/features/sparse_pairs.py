"""Dot products of sparse rows: a query's with each of its candidates'."""

from __future__ import annotations

import numba
import numpy as np

from nextedge.graph.csr import Graph
from nextedge.graph.propagate import SparseRows
from nextedge.graph.threads import Scratch, run_blocks
from nextedge.types import FloatArray, IndexArray, IntArray


def candidate_dots(
    rows: SparseRows, query: IndexArray, indptr: IntArray, candidate: IndexArray
) -> FloatArray:
    """float32[R]: dot product of each query's row with those of its candidates; 0 below 0.

    Args:
        query: int32[Q].
        indptr, candidate: ragged candidates, Q rows of R in total.

    Cost: the entries of the queries' and candidates' rows, and a scratch of one row a thread.
    """
    out = np.zeros(len(candidate), np.float32)
    run_blocks(
        _candidate_dots,
        len(query),
        rows.indptr,
        rows.indices,
        rows.values,
        query,
        indptr,
        candidate,
        out,
        scratch=(Scratch(rows.columns, np.float32),),
    )
    return out


def neighborhood_dots(
    graph: Graph,
    rows: SparseRows,
    scale: FloatArray,
    query: IndexArray,
    indptr: IntArray,
    candidate: IndexArray,
) -> FloatArray:
    """float32[R]: mean over a query's neighbours of the dot of their scaled row with a candidate's.

    Args:
        graph: whose neighbours, query × candidate.
        scale: float32[candidates], by which each row is multiplied.

    Cost: the entries of the neighbours' and of the candidates' rows.
    """
    out = np.zeros(len(candidate), np.float32)
    run_blocks(
        _neighborhood_dots,
        len(query),
        graph.indptr,
        graph.indices,
        rows.indptr,
        rows.indices,
        rows.values,
        scale,
        query,
        indptr,
        candidate,
        out,
        scratch=(Scratch(rows.columns, np.float32),),
    )
    return out


@numba.njit(cache=True, nogil=True)
def _neighborhood_dots(  # type: ignore[no-untyped-def]
    block,
    blocks,
    g_indptr,
    g_indices,
    indptr,
    indices,
    values,
    scale,
    query,
    start,
    candidate,
    out,
    own,
):
    for q in range(block, len(query), blocks):
        if query[q] < 0:
            continue
        low, high = g_indptr[query[q]], g_indptr[query[q] + 1]
        for edge in range(low, high):
            node = g_indices[edge]
            for entry in range(indptr[node], indptr[node + 1]):
                own[indices[entry]] += values[entry] * scale[node]
        for row in range(start[q], start[q + 1]):
            node = candidate[row]
            total = np.float32(0.0)
            for entry in range(indptr[node], indptr[node + 1]):
                total += own[indices[entry]] * values[entry]
            out[row] = total * scale[node] / max(high - low, 1)
        for edge in range(low, high):
            node = g_indices[edge]
            for entry in range(indptr[node], indptr[node + 1]):
                own[indices[entry]] = 0.0


@numba.njit(cache=True, nogil=True)
def _candidate_dots(  # type: ignore[no-untyped-def]
    block, blocks, indptr, indices, values, query, start, candidate, out, own
):
    for q in range(block, len(query), blocks):
        if query[q] < 0:
            continue
        low, high = indptr[query[q]], indptr[query[q] + 1]
        for entry in range(low, high):
            own[indices[entry]] = values[entry]
        if high > low:
            for row in range(start[q], start[q + 1]):
                total = np.float32(0.0)
                for entry in range(indptr[candidate[row]], indptr[candidate[row] + 1]):
                    total += own[indices[entry]] * values[entry]
                out[row] = total
        for entry in range(low, high):
            own[indices[entry]] = 0.0
