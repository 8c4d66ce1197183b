"""The two-hop kernel: everyone at distance two, with five neighbourhood scores in one pass.

For a query q the kernel walks all wedges q – m – c and adds, per candidate c,

- ``common_neighbors``         Σ_m 1
- ``adamic_adar``              Σ_m 1 / ln deg(m)          (Adamic, Adar 2003)
- ``resource_allocation``      Σ_m 1 / deg(m)             (Zhou, Lü, Zhang 2009)
- ``jaccard``                  common / (deg q + deg c − common)
- ``preferential_attachment``  deg q · deg c

Count and both sums live in two adjacent 64-bit fixed-point integers a node, so that a wedge
touches one cache line, addition is associative, and the result is the same for any number
of threads. Precision: each Adamic-Adar term is rounded to 2^-23, each resource-allocation
term to 2^-40. Cost: O(wedges), Σ over neighbours of their degree; never users².
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numba
import numpy as np

from nextedge.graph.threads import run_blocks
from nextedge.types import FloatArray, IndexArray, IntArray

SCORES = (
    "common_neighbors",
    "adamic_adar",
    "resource_allocation",
    "jaccard",
    "preferential_attachment",
)
_COUNT_SHIFT = 44
_AA_MASK = (1 << _COUNT_SHIFT) - 1
_AA_SCALE = float(1 << 23)
_RA_SCALE = float(1 << 40)
_SERIAL_BELOW = 16  # queries; smaller batches run in the calling thread on a kept workspace
_EMPTY = (np.zeros(1, np.int64), np.zeros(0, np.int32))
_workspaces = threading.local()


@dataclass(frozen=True, slots=True)
class PairScores:
    """The five scores of R pairs: float32[R] each."""

    common_neighbors: FloatArray
    adamic_adar: FloatArray
    resource_allocation: FloatArray
    jaccard: FloatArray
    preferential_attachment: FloatArray


@dataclass(frozen=True, slots=True)
class TwoHopResult(PairScores):
    """Top candidates, ragged by query: the five scores, indptr int64[Q + 1], candidate int32[R]."""

    indptr: IntArray
    candidate: IndexArray


def top_two_hop(
    indptr: IntArray,
    indices: IndexArray,
    queries: IndexArray,
    *,
    n: int,
    min_common: int = 2,
    score: str = "adamic_adar",
    hub_cap: int | None = None,
) -> TwoHopResult:
    """The n best non-neighbours at distance two of each query, best first.

    Args:
        indptr, indices: int64[N + 1], int32[E] symmetric adjacency, rows ascending, no loops.
        queries: int32[Q] nodes; a negative one has no candidates.
        n: most candidates per query.
        min_common: fewest common neighbours.
        score: which of ``SCORES`` orders them; ties go to the smaller id.
        hub_cap: neighbours of a higher degree are not walked through; None walks all.

    >>> import numpy as np
    >>> path = np.array([0, 1, 3, 4]), np.array([1, 0, 2, 1], np.int32)   # 0 – 1 – 2
    >>> top_two_hop(*path, np.array([0], np.int32), n=5, min_common=1).candidate.tolist()
    [2]
    """
    return _top(
        (indptr, indices), (indptr, indices), queries, n, min_common, score, hub_cap,
        (indptr, indices), 0.0,
    )  # fmt: skip


def top_bipartite(
    forward_indptr: IntArray,
    forward_indices: IndexArray,
    backward_indptr: IntArray,
    backward_indices: IndexArray,
    queries: IndexArray,
    *,
    n: int,
    min_common: int = 1,
    score: str = "adamic_adar",
    hub_cap: int | None = None,
    exclude: tuple[IntArray, IndexArray] | None = None,
) -> TwoHopResult:
    """The same over a bipartite graph: who shares most (rare) middles with each query.

    ``forward`` leads from queries to middles, ``backward`` from middles to candidates; a
    middle weighs 1 / ln(1 + degree) or 1 / degree. ``exclude`` is adjacency by query node of
    candidates to leave out; the query itself is always left out.
    """
    return _top(
        (forward_indptr, forward_indices), (backward_indptr, backward_indices), queries, n,
        min_common, score, hub_cap, exclude, 1.0,
    )  # fmt: skip


def pair_scores(
    indptr: IntArray,
    indices: IndexArray,
    queries: IndexArray,
    pair_indptr: IntArray,
    pair_candidates: IndexArray,
) -> PairScores:
    """The five scores of given pairs: ragged int32[R] candidates of Q queries, any distance."""
    return _pairs((indptr, indices), (indptr, indices), queries, pair_indptr, pair_candidates, 0.0)


def bipartite_pair_scores(
    forward_indptr: IntArray,
    forward_indices: IndexArray,
    backward_indptr: IntArray,
    backward_indices: IndexArray,
    queries: IndexArray,
    pair_indptr: IntArray,
    pair_candidates: IndexArray,
) -> PairScores:
    """The five scores of given pairs over a bipartite graph (see ``top_bipartite``)."""
    return _pairs(
        (forward_indptr, forward_indices), (backward_indptr, backward_indices), queries,
        pair_indptr, pair_candidates, 1.0,
    )  # fmt: skip


Rows = tuple[IntArray, IndexArray]


def _top(
    forward: Rows, backward: Rows, queries: IndexArray, n: int, min_common: int, score: str,
    hub_cap: int | None, exclude: Rows | None, log_shift: float,
) -> TwoHopResult:  # fmt: skip
    if score not in SCORES:
        raise ValueError(f"score {score!r}: expected one of {', '.join(SCORES)}")
    nodes = len(forward[0]) - 1
    n = max(0, min(n, nodes))
    queries = np.ascontiguousarray(queries, dtype=np.int32)
    size = np.zeros(len(queries), np.int64)
    candidate = np.empty((len(queries), n), np.int32)
    columns = np.empty((len(queries), n, len(SCORES)), np.float32)
    cap = np.iinfo(np.int64).max if hub_cap is None else hub_cap
    arguments = (
        *forward, *backward, queries, SCORES.index(score), max(min_common, 1), cap,
        exclude is not None, *(exclude or _EMPTY), log_shift, size, candidate, columns,
    )  # fmt: skip
    if len(queries) < _SERIAL_BELOW:
        _top_serial(*arguments, *_workspace(nodes))
    else:
        run_blocks(_top_block, len(queries), *arguments, nodes)
    filled = np.arange(n)[None, :] < size[:, None]
    kept = columns[filled]
    return TwoHopResult(
        *_columns(kept),
        np.concatenate(([0], np.cumsum(size))),
        candidate[filled],
    )


def _pairs(
    forward: Rows, backward: Rows, queries: IndexArray, pair_indptr: IntArray,
    pair_candidates: IndexArray, log_shift: float,
) -> PairScores:  # fmt: skip
    nodes = len(forward[0]) - 1
    queries = np.ascontiguousarray(queries, dtype=np.int32)
    columns = np.zeros((len(pair_candidates), len(SCORES)), np.float32)
    arguments = (*forward, *backward, queries, pair_indptr, pair_candidates, log_shift, columns)
    if len(queries) < _SERIAL_BELOW:
        _pairs_serial(*arguments, *_workspace(nodes))
    else:
        run_blocks(_pairs_block, len(queries), *arguments, nodes)
    return PairScores(*_columns(columns))


def _columns(
    scores: FloatArray,
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray, FloatArray]:
    """The five columns of float32[…, 5], in the order of ``SCORES``."""
    return scores[:, 0], scores[:, 1], scores[:, 2], scores[:, 3], scores[:, 4]


def _workspace(nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """This thread's zeroed accumulator (int64[N, 2]) and touched list, kept between calls."""
    kept = getattr(_workspaces, "kept", None)
    if kept is None or len(kept[0]) < nodes:
        kept = (np.zeros((nodes, 2), np.int64), np.empty(nodes + 1, np.int32))
        _workspaces.kept = kept
    return kept


# Kernels. total_N2 holds count << 44 | Adamic-Adar, and resource allocation.


@numba.njit(cache=True, nogil=True)
def _accumulate(f_indptr, f_indices, b_indptr, b_indices, query, cap, log_shift, total, touched):  # type: ignore[no-untyped-def]
    """Walk all wedges of a query; return how many candidates were touched."""
    count = 0
    for place in range(f_indptr[query], f_indptr[query + 1]):
        middle = f_indices[place]
        begin, end = b_indptr[middle], b_indptr[middle + 1]
        degree = end - begin
        if degree < 2 or degree > cap:
            continue
        first = (1 << _COUNT_SHIFT) + np.int64(round(_AA_SCALE / np.log(degree + log_shift)))
        second = np.int64(round(_RA_SCALE / degree))
        for entry in range(begin, end):
            target = b_indices[entry]
            touched[count] = target
            count += total[target, 0] == 0  # no branch: the next target overwrites a repeat
            total[target, 0] += first
            total[target, 1] += second
    return count


@numba.njit(cache=True, nogil=True)
def _clear(total, touched, count):  # type: ignore[no-untyped-def]
    for place in range(count):
        total[touched[place], 0] = 0
        total[touched[place], 1] = 0


@numba.njit(cache=True, nogil=True)
def _fill(total, query, target, f_indptr, out):  # type: ignore[no-untyped-def]
    """Write the five scores of one pair."""
    own = f_indptr[query + 1] - f_indptr[query]
    other = f_indptr[target + 1] - f_indptr[target]
    common = total[target, 0] >> _COUNT_SHIFT
    out[0] = common
    out[1] = (total[target, 0] & _AA_MASK) / _AA_SCALE
    out[2] = total[target, 1] / _RA_SCALE
    out[3] = common / (own + other - common) if common > 0 else 0.0
    out[4] = float(own) * float(other)


@numba.njit(cache=True, nogil=True)
def _score(total, query, target, f_indptr, which):  # type: ignore[no-untyped-def]
    if which == 1:
        return float(total[target, 0] & _AA_MASK)
    if which == 2:
        return float(total[target, 1])
    common = total[target, 0] >> _COUNT_SHIFT
    if which == 0:
        return float(common)
    other = f_indptr[target + 1] - f_indptr[target]
    if which == 3:
        return common / (f_indptr[query + 1] - f_indptr[query] + other - common)
    return float(other)


@numba.njit(cache=True, nogil=True)
def _select(q, query, f_indptr, which, least, total, touched, count, size, candidate, columns):  # type: ignore[no-untyped-def]
    """Keep the n best survivors of one query, best first, ties by the smaller id."""
    n = candidate.shape[1]
    kept = np.empty(count, np.int32)
    value = np.empty(count, np.float64)
    survivors = 0
    for place in range(count):
        target = touched[place]
        if total[target, 0] >> _COUNT_SHIFT >= least:
            kept[survivors] = target
            value[survivors] = _score(total, query, target, f_indptr, which)
            survivors += 1
    kept, value = kept[:survivors], value[:survivors]
    if survivors > n:
        threshold = -np.partition(-value, n - 1)[n - 1] if n > 0 else np.inf
        sure = kept[value > threshold]
        ties = np.sort(kept[value == threshold])[: n - len(sure)]
        kept = np.concatenate((sure, ties))
    kept = np.sort(kept)
    value = np.empty(len(kept), np.float64)
    for place in range(len(kept)):
        value[place] = _score(total, query, kept[place], f_indptr, which)
    order = np.argsort(-value, kind="mergesort")
    for place in range(len(order)):
        target = kept[order[place]]
        candidate[q, place] = target
        _fill(total, query, target, f_indptr, columns[q, place])
    size[q] = len(order)


@numba.njit(cache=True, nogil=True)
def _top_one(  # type: ignore[no-untyped-def]
    q, f_indptr, f_indices, b_indptr, b_indices, queries, which, least, cap, excludes,
    x_indptr, x_indices, log_shift, size, candidate, columns, total, touched,
):  # fmt: skip
    query = queries[q]
    if query < 0:
        return
    count = _accumulate(f_indptr, f_indices, b_indptr, b_indices, query, cap, log_shift,
                        total, touched)  # fmt: skip
    total[query, 0] &= _AA_MASK  # a count of zero drops it, and it is still cleared below
    if excludes:
        for place in range(x_indptr[query], x_indptr[query + 1]):
            total[x_indices[place], 0] &= _AA_MASK
    _select(q, query, f_indptr, which, least, total, touched, count, size, candidate, columns)
    _clear(total, touched, count)


@numba.njit(cache=True, nogil=True)
def _top_serial(  # type: ignore[no-untyped-def]
    f_indptr, f_indices, b_indptr, b_indices, queries, which, least, cap, excludes,
    x_indptr, x_indices, log_shift, size, candidate, columns, total, touched,
):  # fmt: skip
    for q in range(len(queries)):
        _top_one(q, f_indptr, f_indices, b_indptr, b_indices, queries, which, least, cap,
                 excludes, x_indptr, x_indices, log_shift, size, candidate, columns, total,
                 touched)  # fmt: skip


@numba.njit(cache=True, nogil=True)
def _top_block(  # type: ignore[no-untyped-def]
    block, blocks, f_indptr, f_indices, b_indptr, b_indices, queries, which, least, cap, excludes,
    x_indptr, x_indices, log_shift, size, candidate, columns, nodes,
):  # fmt: skip
    total = np.zeros((nodes, 2), np.int64)
    touched = np.empty(nodes + 1, np.int32)
    for q in range(block, len(queries), blocks):
        _top_one(q, f_indptr, f_indices, b_indptr, b_indices, queries, which, least, cap,
                 excludes, x_indptr, x_indices, log_shift, size, candidate, columns, total,
                 touched)  # fmt: skip


@numba.njit(cache=True, nogil=True)
def _pairs_one(  # type: ignore[no-untyped-def]
    q, f_indptr, f_indices, b_indptr, b_indices, queries, p_indptr, p_candidates, log_shift,
    columns, total, touched,
):  # fmt: skip
    query = queries[q]
    if query < 0 or p_indptr[q] == p_indptr[q + 1]:
        return
    count = _accumulate(f_indptr, f_indices, b_indptr, b_indices, query, 1 << 62, log_shift,
                        total, touched)  # fmt: skip
    for row in range(p_indptr[q], p_indptr[q + 1]):
        _fill(total, query, p_candidates[row], f_indptr, columns[row])
    _clear(total, touched, count)


@numba.njit(cache=True, nogil=True)
def _pairs_serial(  # type: ignore[no-untyped-def]
    f_indptr, f_indices, b_indptr, b_indices, queries, p_indptr, p_candidates, log_shift,
    columns, total, touched,
):  # fmt: skip
    for q in range(len(queries)):
        _pairs_one(q, f_indptr, f_indices, b_indptr, b_indices, queries, p_indptr, p_candidates,
                   log_shift, columns, total, touched)  # fmt: skip


@numba.njit(cache=True, nogil=True)
def _pairs_block(  # type: ignore[no-untyped-def]
    block, blocks, f_indptr, f_indices, b_indptr, b_indices, queries, p_indptr, p_candidates, log_shift,
    columns, nodes,
):  # fmt: skip
    total = np.zeros((nodes, 2), np.int64)
    touched = np.empty(nodes + 1, np.int32)
    for q in range(block, len(queries), blocks):
        _pairs_one(q, f_indptr, f_indices, b_indptr, b_indices, queries, p_indptr,
                   p_candidates, log_shift, columns, total, touched)  # fmt: skip
