"""Dot products of sparse rows: those of a query with each of its candidates."""

from __future__ import annotations

import numba
import numpy as np

from nextedge.graph.csr import Graph
from nextedge.graph.paths import add_row, clear_row, row_dot
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
    arguments = graph.adjacency, rows.arrays, scale, query, (indptr, candidate), score
    run_blocks(_neighborhood_dots, len(query), *arguments, scratch=scratch)
    return score


@numba.njit(cache=True, nogil=True)
def _neighborhood_dots(block, blocks, adjacency, rows, scale, query, pairs, score, total):  # type: ignore[no-untyped-def]
    g_indptr, g_indices = adjacency
    start, candidate = pairs
    for q in range(block, len(query), blocks):
        if query[q] < 0:
            continue
        low, high = g_indptr[query[q]], g_indptr[query[q] + 1]
        for edge in range(low, high):
            add_row(rows, g_indices[edge], scale[g_indices[edge]], total)
        for pair in range(start[q], start[q + 1]):
            dot = row_dot(rows, candidate[pair], total)
            score[pair] = dot * scale[candidate[pair]] / max(high - low, 1)
        for edge in range(low, high):
            clear_row(rows, g_indices[edge], total)


@numba.njit(cache=True, nogil=True)
def _candidate_dots(block, blocks, rows, query, pairs, score, total):  # type: ignore[no-untyped-def]
    indptr = rows[0]
    start, candidate = pairs
    for q in range(block, len(query), blocks):
        # An empty row saves the pass over the candidates' entries: its scores are 0 already.
        if query[q] < 0 or indptr[query[q]] == indptr[query[q] + 1]:
            continue
        add_row(rows, query[q], np.float32(1.0), total)
        for pair in range(start[q], start[q + 1]):
            score[pair] = row_dot(rows, candidate[pair], total)
        clear_row(rows, query[q], total)
