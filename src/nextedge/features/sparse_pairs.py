"""Dot products of sparse rows: those of a query with each of its candidates."""

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
    """float32[R]: dot product of the rows of each query and candidate; 0 for a query below 0.

    Args:
        query: int32[Q].
        indptr, candidate: ragged candidates, Q rows of R in total.

    Cost: the entries of the queries' and candidates' rows.
    """
    score, scratch = np.zeros(len(candidate), np.float32), (Scratch(rows.columns, np.float32),)
    pairs = indptr, candidate
    run_blocks(_candidate_dots, len(query), rows.arrays, query, pairs, score, scratch=scratch)
    return score


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
        graph: query × candidate.
        scale: float32[candidates], factor of each row.

    Cost: the entries of the neighbours' and of the candidates' rows.
    """
    score, scratch = np.zeros(len(candidate), np.float32), (Scratch(rows.columns, np.float32),)
    pairs = indptr, candidate
    arguments = graph.adjacency, rows.arrays, scale, query, pairs, score
    run_blocks(_neighborhood_dots, len(query), *arguments, scratch=scratch)
    return score


@numba.njit(cache=True, nogil=True)
def _neighborhood_dots(block, blocks, adjacency, rows, scale, query, pairs, score, total):  # type: ignore[no-untyped-def]
    g_indptr, g_indices = adjacency
    indptr, indices, values = rows
    start, candidate = pairs
    for q in range(block, len(query), blocks):
        if query[q] < 0:
            continue
        low, high = g_indptr[query[q]], g_indptr[query[q] + 1]
        for edge in range(low, high):
            node = g_indices[edge]
            for entry in range(indptr[node], indptr[node + 1]):
                total[indices[entry]] += values[entry] * scale[node]
        for row in range(start[q], start[q + 1]):
            node = candidate[row]
            dot = np.float32(0.0)
            for entry in range(indptr[node], indptr[node + 1]):
                dot += total[indices[entry]] * values[entry]
            score[row] = dot * scale[node] / max(high - low, 1)
        for edge in range(low, high):
            node = g_indices[edge]
            for entry in range(indptr[node], indptr[node + 1]):
                total[indices[entry]] = 0.0


@numba.njit(cache=True, nogil=True)
def _candidate_dots(block, blocks, rows, query, pairs, score, dense):  # type: ignore[no-untyped-def]
    indptr, indices, values = rows
    start, candidate = pairs
    for q in range(block, len(query), blocks):
        if query[q] < 0:
            continue
        low, high = indptr[query[q]], indptr[query[q] + 1]
        for entry in range(low, high):
            dense[indices[entry]] = values[entry]
        if high > low:
            for row in range(start[q], start[q + 1]):
                dot = np.float32(0.0)
                for entry in range(indptr[candidate[row]], indptr[candidate[row] + 1]):
                    dot += dense[indices[entry]] * values[entry]
                score[row] = dot
        for entry in range(low, high):
            dense[indices[entry]] = 0.0
