"""Scores of any fitted model: embeddings' dot products plus sparse similarity to the history.

``score(q, c) = query_q · candidate_c + Σ_{i in row(q)} similar(i, c)``

with whichever of the two an artifact holds; the row is the query's in the graph that is given,
every neighbour counted once. Weights may be negative. A score of exactly 0 means that the model
knows nothing of the pair: such candidates are never given.
Cost of a top list: one dense product and one pass over all N candidates a query, in blocks.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from nextedge.errors import InputError
from nextedge.graph.csr import Graph
from nextedge.graph.threads import run_blocks
from nextedge.models._conjugate import least_squares_rows
from nextedge.models.artifact import Artifact
from nextedge.types import Candidates, FloatArray, IndexArray, IntArray

BLOCK_SCORES = 1 << 24
"""Scores held at once: 64 MiB of float32."""
PRODUCT_ROWS = 16


def top_candidates(
    artifact: Artifact,
    graph: Graph,
    query: IndexArray,
    n: int,
    exclude: tuple[IntArray, IndexArray],
    weight: FloatArray | None = None,
) -> Candidates:
    """The n best-scored candidates of each query, exactly; column ``score`` float32.

    Args:
        artifact: of any model.
        graph: histories, query × candidate; row q is the history of query q.
        query: int32[Q]; positions below 0, and without embedding or history, get none.
        n: most candidates a query.
        exclude: ragged int32 candidates to leave out, Q rows.
        weight: float32[E] of the graph's edges, what each item of a history counts; default 1.

    Best first, ties by the smaller candidate.
    """
    queries, candidates = len(query), graph.targets
    n = min(n, candidates)
    size = np.zeros(queries, np.int64)
    target = np.empty((queries, n), np.int32)
    value = np.empty((queries, n), np.float32)
    step = max(1, BLOCK_SCORES // max(1, candidates))
    for start in range(0, queries, step):
        part = slice(start, min(start + step, queries))
        score = _dense_scores(artifact, graph, query[part], weight)
        run_blocks(
            _best_of_rows,
            len(score),
            score,
            exclude[0][start : part.stop + 1],
            exclude[1],
            size[part],
            target[part],
            value[part],
        )
    filled = np.arange(n)[None, :] < size[:, None]
    found = Candidates(np.concatenate(([0], np.cumsum(size))), target[filled])
    # a dense product's last bits depend on what it is asked together with; these do not
    score = pair_scores(artifact, graph, query, found.indptr, found.candidate, weight)
    return found.with_columns(score=score).sorted_by("score")


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
    embeddings = _embeddings(artifact)
    if embeddings is not None:
        run_blocks(_pair_dots, len(query), *embeddings, query, indptr, candidate, score)
    similar = _similar(artifact)
    if similar is not None:
        run_blocks(
            _pair_similar,
            len(query),
            graph.indptr,
            graph.indices,
            _edge_weight(graph, weight),
            query,
            *similar,
            graph.targets,
            indptr,
            candidate,
            score,
        )
    return score


def fold_in(artifact: Artifact, rows: tuple[IntArray, IndexArray]) -> FloatArray:
    """float32[Q, d]: query embeddings of histories that the model was not fitted on.

    Closed forms: a model with ``projection`` sums its rows over the history; one with
    ``gramian`` solves its least squares for the history, the candidates held fixed.

    Args:
        artifact: of a model with embeddings.
        rows: ragged int32 histories over the candidates, Q rows; an empty one gives zeros.

    Raises:
        InputError: the model has no closed form for new queries.
    """
    indptr, indices = rows
    arrays = artifact.arrays
    if "projection" in arrays:
        projection = np.asarray(arrays["projection"])
        out = np.zeros((len(indptr) - 1, projection.shape[1]), np.float32)
        run_blocks(_sum_rows, len(out), indptr, indices, projection, out)
        return out
    if "gramian" in arrays:
        regularisation, mass, exponent = (float(part) for part in arrays["fold"])
        fixed = np.asarray(arrays["candidate"])
        start = np.zeros((len(indptr) - 1, fixed.shape[1]), np.float32)
        ridge = regularisation * (np.diff(indptr) + mass) ** exponent
        return least_squares_rows(
            indptr,
            indices,
            fixed,
            np.asarray(arrays["gramian"]),
            ridge.astype(np.float32),
            start,
            steps=fixed.shape[1],
            tolerance=1e-6,
        )
    raise InputError(
        f"model {artifact.model!r} has no closed form that embeds new queries: its artifact holds "
        f"{sorted(arrays)}, expected 'projection' or 'gramian'; fit it again with the new edges"
    )


def _embeddings(artifact: Artifact) -> tuple[FloatArray, FloatArray] | None:
    if "query" not in artifact.arrays:
        return None
    return np.asarray(artifact.arrays["query"]), np.asarray(artifact.arrays["candidate"])


def _similar(artifact: Artifact) -> tuple[Any, Any, Any] | None:
    if "similar_indptr" not in artifact.arrays:
        return None
    indptr, indices, values = (
        np.asarray(artifact.arrays[f"similar_{part}"]) for part in ("indptr", "indices", "values")
    )
    return indptr, indices, values


def _edge_weight(graph: Graph, weight: FloatArray | None) -> FloatArray:
    """float32[E], or of one element where every edge counts 1."""
    return np.ones(1, np.float32) if weight is None else weight


def _dense_scores(
    artifact: Artifact, graph: Graph, query: IndexArray, weight: FloatArray | None
) -> FloatArray:
    """float32[B, N]: all scores of a block of queries."""
    embeddings = _embeddings(artifact)
    if embeddings is None:
        score = np.zeros((len(query), graph.targets), np.float32)
    else:
        known = (query >= 0) & (query < len(embeddings[0]))
        left = np.where(known[:, None], embeddings[0][np.where(known, query, 0)], np.float32(0))
        score = product(left, embeddings[1])
    similar = _similar(artifact)
    if similar is not None:
        run_blocks(
            _add_similar,
            len(query),
            graph.indptr,
            graph.indices,
            _edge_weight(graph, weight),
            query,
            *similar,
            score,
        )
    return score


def product(left: FloatArray, right: FloatArray) -> FloatArray:
    """float32[Q, N]: ``left @ right.T``, each row the same whatever others it is asked with.

    A product's rounding depends on its shape, so all are made in the shape of PRODUCT_ROWS rows:
    a request alone so gets the very bits that it gets in a batch.
    """
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
def _add_similar(  # type: ignore[no-untyped-def]
    block, blocks, indptr, indices, weight, query, s_indptr, s_indices, s_values, score
):
    uniform = len(weight) == 1
    for q in range(block, len(score), blocks):
        if query[q] < 0:
            continue
        row = score[q]
        for place in range(indptr[query[q]], indptr[query[q] + 1]):
            middle = indices[place]
            share = weight[0] if uniform else weight[place]
            if share == 0.0:
                continue
            for entry in range(s_indptr[middle], s_indptr[middle + 1]):
                row[s_indices[entry]] += share * s_values[entry]


@numba.njit(cache=True, nogil=True)
def _best_of_rows(block, blocks, score, x_indptr, x_indices, size, target, value):  # type: ignore[no-untyped-def]
    columns, n = score.shape[1], target.shape[1]
    room = min(columns, 4 * n + 64)
    kept = np.empty(room, np.int32)
    kept_value = np.empty(room, np.float32)
    for q in range(block, len(score), blocks):
        row = score[q]
        for place in range(x_indptr[q], x_indptr[q + 1]):
            row[x_indices[place]] = 0.0
        count = 0
        threshold = np.float32(-np.inf)
        for column in range(columns if n > 0 else 0):
            if row[column] > threshold and row[column] != 0.0:
                if count == room:  # the n best so far stay; what comes must beat the worst of them
                    count, threshold = _sift(kept, kept_value, count, n)
                    if row[column] <= threshold:
                        continue
                kept[count] = column
                kept_value[count] = row[column]
                count += 1
        if count > n:
            count, threshold = _sift(kept, kept_value, count, n)
        order = np.argsort(-kept_value[:count], kind="mergesort")
        size[q] = count
        for place in range(count):
            target[q, place] = kept[order[place]]
            value[q, place] = kept_value[order[place]]


@numba.njit(cache=True, nogil=True)
def _sift(kept, kept_value, count, n):  # type: ignore[no-untyped-def]
    """Move the n largest to the front, ids still ascending, ties by the smaller id.

    Returns how many stayed and the smallest of them.
    """
    threshold = -np.partition(-kept_value[:count], n - 1)[n - 1]
    free = n - np.sum(kept_value[:count] > threshold)
    size = 0
    for place in range(count):
        tied = kept_value[place] == threshold
        if kept_value[place] > threshold or (tied and free > 0):
            free -= tied
            kept[size] = kept[place]
            kept_value[size] = kept_value[place]
            size += 1
    return size, threshold


@numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _pair_dots(block, blocks, left, right, query, indptr, candidate, score):  # type: ignore[no-untyped-def]
    width = left.shape[1]
    for q in range(block, len(query), blocks):
        if query[q] < 0 or query[q] >= len(left):
            continue
        row = left[query[q]]
        for place in range(indptr[q], indptr[q + 1]):
            other = right[candidate[place]]
            total = np.float32(0.0)
            for axis in range(width):
                total += row[axis] * other[axis]
            score[place] = total


@numba.njit(cache=True, nogil=True)
def _pair_similar(  # type: ignore[no-untyped-def]
    block,
    blocks,
    indptr,
    indices,
    weight,
    query,
    s_indptr,
    s_indices,
    s_values,
    columns,
    c_indptr,
    candidate,
    score,
):
    uniform = len(weight) == 1
    total = np.zeros(columns, np.float32)
    for q in range(block, len(query), blocks):
        if query[q] < 0:
            continue
        low, high = indptr[query[q]], indptr[query[q] + 1]
        for place in range(low, high):
            middle = indices[place]
            share = weight[0] if uniform else weight[place]
            for entry in range(s_indptr[middle], s_indptr[middle + 1]):
                total[s_indices[entry]] += share * s_values[entry]
        for row in range(c_indptr[q], c_indptr[q + 1]):
            score[row] += total[candidate[row]]
        for place in range(low, high):
            middle = indices[place]
            for entry in range(s_indptr[middle], s_indptr[middle + 1]):
                total[s_indices[entry]] = 0.0


@numba.njit(cache=True, nogil=True)
def _sum_rows(block, blocks, indptr, indices, matrix, out):  # type: ignore[no-untyped-def]
    for row in range(block, len(out), blocks):
        for place in range(indptr[row], indptr[row + 1]):
            other = matrix[indices[place]]
            for axis in range(matrix.shape[1]):
                out[row, axis] += other[axis]
