"""Scores of any fitted model: embeddings' dot products plus sparse similarity to the history.

``score(q, c) = query_q · candidate_c + Σ_{i in row(q)} similar(i, c)``

with either or both terms, as the artifact has arrays for; the row is that of the query in the
given graph. Weights may be negative. A score of exactly 0 means that the model knows nothing of
the pair: such candidates are left out.
Cost of a top list: one dense product and one pass over all N candidates a query, in blocks.
"""

from __future__ import annotations

import numba
import numpy as np

from nextedge.graph.csr import Graph
from nextedge.graph.propagate import Ragged, SparseRows
from nextedge.graph.threads import run_blocks
from nextedge.models.artifact import Artifact
from nextedge.types import Candidates, FloatArray, IndexArray, IntArray

BLOCK_SCORES = 1 << 24
"""Scores of a block of queries: 64 MiB of float32."""
PRODUCT_ROWS = 16


def top_candidates(
    artifact: Artifact,
    graph: Graph,
    query: IndexArray,
    n: int,
    exclude: Ragged,
    weight: FloatArray | None = None,
) -> Candidates:
    """The n best-scored candidates of each query, exactly; column ``score`` float32.

    Args:
        artifact: of any model.
        graph: histories, query × candidate; row q is the history of query q.
        query: int32[Q]; a negative one, and one without embedding or history, has no candidates.
        n: most candidates a query.
        exclude: int32 candidates to leave out, Q rows.
        weight: float32[E], weight of each edge of the graph; default 1.

    Best first, ties by the smaller candidate.
    """
    n = min(n, graph.targets)
    size_Q = np.zeros(len(query), np.int64)
    target_QN = np.empty((len(query), n), np.int32)
    step = max(1, BLOCK_SCORES // max(1, graph.targets))
    for start in range(0, len(query), step):
        part = slice(start, min(start + step, len(query)))
        score_QN = _dense_scores(artifact, graph, query[part], weight)
        excluded = exclude[0][start : part.stop + 1], exclude[1]
        run_blocks(_best_of_rows, len(score_QN), score_QN, excluded, size_Q[part], target_QN[part])
    filled_QN = np.arange(n)[None, :] < size_Q[:, None]
    top = Candidates(np.concatenate(([0], np.cumsum(size_Q))), target_QN[filled_QN])
    # The last bits of a dense product depend on the other rows; those of pair scores do not.
    score = pair_scores(artifact, graph, query, top.indptr, top.candidate, weight)
    return top.with_columns(score=score).sorted_by("score")


def pair_scores(
    artifact: Artifact,
    graph: Graph,
    query: IndexArray,
    indptr: IntArray,
    candidate: IndexArray,
    weight: FloatArray | None = None,
) -> FloatArray:
    """float32[R]: the score of each given (query, candidate) pair.

    Args:
        artifact, graph, query, weight: as in :func:`top_candidates`.
        indptr, candidate: ragged candidates, Q rows of R in total.
    """
    score = np.zeros(len(candidate), np.float32)
    embeddings, similar = _embeddings(artifact), _similar(artifact, graph)
    if embeddings is not None:
        run_blocks(_pair_dots, len(query), *embeddings, query, indptr, candidate, score)
    if similar is not None:
        rows = (*graph.adjacency, _edge_weight(weight))
        columns = similar.columns
        pairs = indptr, candidate
        run_blocks(_pair_similar, len(query), rows, query, similar.arrays, columns, pairs, score)
    return score


def _embeddings(artifact: Artifact) -> tuple[FloatArray, FloatArray] | None:
    if "query" not in artifact.arrays:
        return None
    return np.asarray(artifact.arrays["query"]), np.asarray(artifact.arrays["candidate"])


def _similar(artifact: Artifact, graph: Graph) -> SparseRows | None:
    if "similar_indptr" not in artifact.arrays:
        return None
    indptr, indices, values = (
        np.asarray(artifact.arrays[f"similar_{part}"]) for part in ("indptr", "indices", "values")
    )
    return SparseRows(indptr, indices, values, graph.targets)


def _edge_weight(weight: FloatArray | None) -> FloatArray:
    """float32[E], or one element where every edge weighs 1."""
    return np.ones(1, np.float32) if weight is None else weight


def _dense_scores(
    artifact: Artifact, graph: Graph, query: IndexArray, weight: FloatArray | None
) -> FloatArray:
    """float32[B, N]: all scores of a block of queries."""
    embeddings, similar = _embeddings(artifact), _similar(artifact, graph)
    if embeddings is None:
        score_BN = np.zeros((len(query), graph.targets), np.float32)
    else:
        known = (query >= 0) & (query < len(embeddings[0]))
        left = np.where(known[:, None], embeddings[0][np.where(known, query, 0)], np.float32(0))
        score_BN = product(left, embeddings[1])
    if similar is not None:
        rows = (*graph.adjacency, _edge_weight(weight))
        run_blocks(_add_similar, len(query), rows, query, similar.arrays, score_BN)
    return score_BN


def product(left: FloatArray, right: FloatArray) -> FloatArray:
    """float32[Q, N]: ``left @ right.T``; the bits of a row do not depend on the other rows."""
    # The rounding of a product depends on its shape, so each has PRODUCT_ROWS rows: a single
    # request gets the very bits that it gets in a batch.
    out = np.empty((len(left), len(right)), np.float32)
    for start in range(0, len(left), PRODUCT_ROWS):
        part = left[start : start + PRODUCT_ROWS]
        if len(part) == PRODUCT_ROWS:
            np.matmul(part, right.T, out=out[start : start + PRODUCT_ROWS])
        else:
            padded = np.zeros((PRODUCT_ROWS, left.shape[1]), np.float32)
            padded[: len(part)] = part
            out[start:] = (padded @ right.T)[: len(part)]
    return out


@numba.njit(cache=True, nogil=True)
def _add_similar(block, blocks, rows, query, similar, score):  # type: ignore[no-untyped-def]
    indptr, indices, weight = rows
    s_indptr, s_indices, s_values = similar
    uniform = len(weight) == 1
    for q in range(block, len(score), blocks):
        if query[q] < 0:
            continue
        row = score[q]
        for edge in range(indptr[query[q]], indptr[query[q] + 1]):
            middle = indices[edge]
            share = weight[0] if uniform else weight[edge]
            if share == 0.0:
                continue
            for entry in range(s_indptr[middle], s_indptr[middle + 1]):
                row[s_indices[entry]] += share * s_values[entry]


@numba.njit(cache=True, nogil=True)
def _best_of_rows(block, blocks, score, exclude, size, target):  # type: ignore[no-untyped-def]
    x_indptr, x_indices = exclude
    columns, n = score.shape[1], target.shape[1]
    # Each sift frees three quarters, so that its cost spreads over 3 n new entries.
    capacity = min(columns, 4 * n + 64)
    best, best_value = np.empty(capacity, np.int32), np.empty(capacity, np.float32)
    for q in range(block, len(score), blocks):
        row = score[q]
        for entry in range(x_indptr[q], x_indptr[q + 1]):
            # A score of 0 is no candidate.
            row[x_indices[entry]] = 0.0
        count = 0
        threshold = np.float32(-np.inf)
        for column in range(columns if n > 0 else 0):
            if row[column] > threshold and row[column] != 0.0:
                if count == capacity:  # only the n best stay; a new one must beat the worst
                    count, threshold = _sift(best, best_value, count, n)
                    if row[column] <= threshold:
                        continue
                best[count] = column
                best_value[count] = row[column]
                count += 1
        if count > n:
            count, threshold = _sift(best, best_value, count, n)
        order = np.argsort(-best_value[:count], kind="mergesort")  # stable: ties stay by id
        size[q] = count
        for rank in range(count):
            target[q, rank] = best[order[rank]]


@numba.njit(cache=True, nogil=True)
def _sift(best, best_value, count, n):  # type: ignore[no-untyped-def]
    """Move the n largest to the front, ids still ascending, ties by the smaller id.

    Returns their number and the smallest of them.
    """
    threshold = -np.partition(-best_value[:count], n - 1)[n - 1]
    free = n - np.sum(best_value[:count] > threshold)
    size = 0
    for position in range(count):
        tied = best_value[position] == threshold
        if best_value[position] > threshold or (tied and free > 0):
            free -= tied
            best[size] = best[position]
            best_value[size] = best_value[position]
            size += 1
    return size, threshold


@numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _pair_dots(block, blocks, left, right, query, indptr, candidate, score):  # type: ignore[no-untyped-def]
    width = left.shape[1]
    for q in range(block, len(query), blocks):
        # Positions beyond the artifact's have no embedding: their scores stay 0.
        if query[q] < 0 or query[q] >= len(left):
            continue
        row = left[query[q]]
        for pair in range(indptr[q], indptr[q + 1]):
            other = right[candidate[pair]]
            total = np.float32(0.0)
            for axis in range(width):
                total += row[axis] * other[axis]
            score[pair] = total


@numba.njit(cache=True, nogil=True)
def _pair_similar(block, blocks, rows, query, similar, columns, pairs, score):  # type: ignore[no-untyped-def]
    indptr, indices, weight = rows
    s_indptr, s_indices, s_values = similar
    pair_indptr, candidate = pairs
    uniform = len(weight) == 1
    total = np.zeros(columns, np.float32)
    for q in range(block, len(query), blocks):
        if query[q] < 0:
            continue
        low, high = indptr[query[q]], indptr[query[q] + 1]
        for edge in range(low, high):
            middle = indices[edge]
            share = weight[0] if uniform else weight[edge]
            for entry in range(s_indptr[middle], s_indptr[middle + 1]):
                total[s_indices[entry]] += share * s_values[entry]
        for pair in range(pair_indptr[q], pair_indptr[q + 1]):
            score[pair] += total[candidate[pair]]
        # Clears what it wrote: a fill of all candidates would cost each query more.
        for edge in range(low, high):
            middle = indices[edge]
            for entry in range(s_indptr[middle], s_indptr[middle + 1]):
                total[s_indices[entry]] = 0.0
