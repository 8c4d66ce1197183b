"""The two-hop kernel: all nodes at distance two, with five neighbourhood scores in one pass.

For a query q the kernel walks all wedges q – m – c and adds, per candidate c,

- ``common_neighbors``         Σ_m 1
- ``adamic_adar``              Σ_m 1 / ln deg(m)          (Adamic, Adar 2003)
- ``resource_allocation``      Σ_m 1 / deg(m)             (Zhou, Lü, Zhang 2009)
- ``jaccard``                  common / (deg q + deg c − common)
- ``preferential_attachment``  deg q · deg c

Sums are float64, added in ascending order of the middle, and returned as float32 (relative error
6e-8). The same pair has the same scores, bit for bit, from every function here, alone or in a
batch, for any number of threads. The float32 ranks candidates; of equal scores the smaller id is
first.

Cost: O(wedges), Σ over the query's neighbours of their degree; never users². Memory: at most 72
bytes a node and thread, reused from call to call.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, TypeVar, get_args

import numpy as np
import numpy.typing as npt

from nextedge.cores import thread_count
from nextedge.errors import ConfigError, DataError, nearest
from nextedge.graph._two_hop_kernels import pair_block, top_block
from nextedge.storage.arrays import plain
from nextedge.types import FloatArray, IndexArray, IntArray

Score = Literal[
    "common_neighbors", "adamic_adar", "resource_allocation", "jaccard", "preferential_attachment"
]
SCORES: tuple[Score, ...] = get_args(Score)
Rows = tuple[IntArray, IndexArray]
_Result = TypeVar("_Result")
_SERIAL_BELOW = 16  # queries; a smaller batch ends before threads would have started
_BLOCK_ROWS = 1 << 19  # most candidates of a block of queries: 12 MiB a thread
_BLOCK_QUERIES = 512


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
        indptr, indices: int64[N + 1], int32[E] symmetric adjacency, rows ascending, no loops;
            may be read-only memory maps.
        queries: int32[Q] nodes; a negative one has no candidates.
        n: most candidates per query.
        min_common: fewest common neighbours, counted through the walked middles.
        score: one of ``SCORES``, which orders them; ties go to the smaller id.
        hub_cap: the walk leaves out neighbours of a higher degree; None walks all.

    The result takes 24 bytes a candidate; for all nodes of a large graph, pass some ten thousand
    queries at a time: no call has a cost beyond its wedges.

    Raises:
        ConfigError: ``score`` is unknown, or ``n``, ``min_common`` or ``hub_cap`` is negative.
        DataError: a query is not a node.

    >>> import numpy as np
    >>> path = np.array([0, 1, 3, 4]), np.array([1, 0, 2, 1], np.int32)   # 0 – 1 – 2
    >>> top_two_hop(*path, np.array([0], np.int32), n=5, min_common=1).candidate.tolist()
    [2]
    """
    rows = _rows(indptr, indices)
    check_settings(n, min_common, score, hub_cap)
    return _top((rows, rows, rows), queries, n, min_common, score, (_cap(hub_cap), 0.0))


def top_bipartite(
    forward: Rows,
    backward: Rows,
    queries: IndexArray,
    *,
    n: int,
    min_common: int = 1,
    score: str = "adamic_adar",
    hub_cap: int | None = None,
    exclude: Rows | None = None,
) -> TwoHopResult:
    """The same over a bipartite graph: the nodes that share most (rare) middles with each query.

    ``forward`` is the adjacency from N queries to M middles, ``backward`` that from the middles to
    the same N nodes as candidates. A middle weighs 1 / ln(1 + degree) in ``adamic_adar`` and
    1 / degree in ``resource_allocation``; degrees in the other scores count middles. ``exclude`` is
    the adjacency from query nodes to candidates to leave out; the query itself is always left out.

    Raises:
        ConfigError, DataError: as ``top_two_hop``; or ``exclude`` has another number of rows.

    >>> import numpy as np
    >>> visits = np.array([0, 1, 2]), np.array([0, 0], np.int32)      # users 0 and 1, place 0
    >>> visitors = np.array([0, 2]), np.array([0, 1], np.int32)
    >>> top_bipartite(visits, visitors, np.array([0], np.int32), n=5).candidate.tolist()
    [1]
    """
    forward, backward = _rows(*forward), _rows(*backward)
    none = np.zeros(len(forward[0]), np.int64), np.zeros(0, np.int32)
    left_out = _rows(*(none if exclude is None else exclude))
    if len(left_out[0]) != len(forward[0]):
        raise DataError(
            f"exclude has {len(left_out[0]) - 1} rows; expected one per query node, "
            f"{len(forward[0]) - 1}"
        )
    check_settings(n, min_common, score, hub_cap)
    graphs = forward, backward, left_out
    return _top(graphs, queries, n, min_common, score, (_cap(hub_cap), 1.0))


def pair_scores(
    indptr: IntArray,
    indices: IndexArray,
    queries: IndexArray,
    pair_indptr: IntArray,
    pair_candidates: IndexArray,
    *,
    exclude_edge: bool = False,
) -> PairScores:
    """The five scores of given pairs, in any order and at any distance.

    Args:
        indptr, indices: symmetric adjacency, as for ``top_two_hop``.
        queries: int32[Q] nodes; the pairs of a negative one score 0.
        pair_indptr: int64[Q + 1], the pairs of query q are ``pair_indptr[q]`` and on.
        pair_candidates: int32[R] nodes; a negative one, and the query itself, share nothing.
        exclude_edge: where query and candidate are neighbours, score the graph without that
            edge (both degrees are one less; their common neighbours stay the same).

    The cost is the query's wedges or the candidates' rows, whichever is less.

    Raises:
        DataError: a query or candidate is not a node, or the ragged arrays do not fit.

    >>> import numpy as np
    >>> path = np.array([0, 1, 3, 4]), np.array([1, 0, 2, 1], np.int32)   # 0 – 1 – 2
    >>> pair = np.array([0], np.int32), np.array([0, 1]), np.array([2], np.int32)
    >>> pair_scores(*path, *pair).resource_allocation.tolist()
    [0.5]
    """
    rows = _rows(indptr, indices)
    return _pairs(rows, rows, queries, pair_indptr, pair_candidates, exclude_edge, 0.0)


def bipartite_pair_scores(
    forward: Rows,
    backward: Rows,
    queries: IndexArray,
    pair_indptr: IntArray,
    pair_candidates: IndexArray,
) -> PairScores:
    """The five scores of given pairs over a bipartite graph (see ``top_bipartite``)."""
    forward, backward = _rows(*forward), _rows(*backward)
    return _pairs(forward, backward, queries, pair_indptr, pair_candidates, False, 1.0)


def _cap(hub_cap: int | None) -> int:
    return np.iinfo(np.int64).max if hub_cap is None else hub_cap


def _top(
    graphs: tuple[Rows, Rows, Rows],
    queries: IndexArray,
    n: int,
    min_common: int,
    score: str,
    settings: tuple[int, float],
) -> TwoHopResult:
    """The top candidates over (forward, backward, excluded) adjacency."""
    nodes, middles = (len(graph[0]) - 1 for graph in graphs[:2])
    query_Q = _nodes(queries, nodes, "queries")
    # Buffers have n rows a query: an n beyond all nodes would only take memory.
    n = min(n, nodes)
    order = SCORES.index(score), max(min_common, 1)
    size_Q = np.zeros(len(query_Q), np.int64)

    def block(begin: int, end: int) -> tuple[IndexArray, FloatArray]:
        rows, part = (end - begin) * n, slice(begin, end)
        out = np.empty(rows, np.int32), np.empty((len(SCORES), rows), np.float32)
        with _workspace(max(nodes, middles)) as workspace:
            written = top_block(
                *graphs, query_Q[part], n, *order, settings, workspace, size_Q[part], out
            )
        # A view would keep the whole buffer of the block in memory.
        return out[0][:written].copy(), out[1][:, :written].copy()

    parts = _in_blocks(block, len(query_Q), max(1, _BLOCK_ROWS // max(n, 1)))
    indptr = np.concatenate((np.zeros(1, np.int64), np.cumsum(size_Q)))
    candidate, column = np.empty(indptr[-1], np.int32), np.empty((5, indptr[-1]), np.float32)
    end = len(candidate)
    while parts:  # from the last, so that the memory of each part is freed once it is copied
        part, columns = parts.pop()
        rows = slice(end - len(part), end)
        candidate[rows], column[:, rows] = part, columns
        end = rows.start
    return TwoHopResult(*_named(column), indptr, candidate)


def _pairs(
    forward: Rows,
    backward: Rows,
    queries: IndexArray,
    pair_indptr: IntArray,
    pair_candidates: IndexArray,
    exclude_edge: bool,
    log_shift: float,
) -> PairScores:
    nodes = len(forward[0]) - 1
    query_Q = _nodes(queries, nodes, "queries")
    candidate_R = _nodes(pair_candidates, nodes, "pair_candidates")
    pair_indptr = np.ascontiguousarray(pair_indptr, dtype=np.int64)
    _check_ragged(pair_indptr, len(query_Q), len(candidate_R))
    column = np.zeros((len(SCORES), len(candidate_R)), np.float32)

    def block(begin: int, end: int) -> None:
        queries, pairs = query_Q[begin:end], (pair_indptr[begin : end + 1], candidate_R)
        with _workspace(max(nodes, len(backward[0]) - 1)) as workspace:
            pair_block(
                forward, backward, queries, pairs, exclude_edge, log_shift, workspace, column
            )

    _in_blocks(block, len(query_Q), _BLOCK_QUERIES)
    return PairScores(*_named(column))


def _named(column: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray, FloatArray]:
    """The five columns of float32[5, R], in the order of ``SCORES``."""
    return column[0], column[1], column[2], column[3], column[4]


def _in_blocks(run: Callable[[int, int], _Result], queries: int, largest: int) -> list[_Result]:
    """Results of ``run(begin, end)`` over blocks of the queries, in their order."""
    if queries < _SERIAL_BELOW:
        largest = min(largest, _SERIAL_BELOW)
        return [run(begin, min(begin + largest, queries)) for begin in range(0, queries, largest)]
    threads = thread_count()
    # Several blocks a thread: queries differ in wedges, and no thread should end long before.
    size = max(1, min(largest, _BLOCK_QUERIES, queries // (4 * threads)))
    begins = range(0, queries, size)
    with ThreadPoolExecutor(threads, thread_name_prefix="nextedge-two-hop") as pool:
        return list(pool.map(lambda begin: run(begin, min(begin + size, queries)), begins))


# A workspace serves one call at a time, then the next one, on any thread.
Workspace = tuple[
    npt.NDArray[np.uint64],
    npt.NDArray[np.uint32],
    npt.NDArray[np.uint32],
    npt.NDArray[np.uint64],
    npt.NDArray[np.float64],
    npt.NDArray[np.uint32],
]
_spare: list[Workspace] = []
_spare_lock = threading.Lock()


@contextmanager
def _workspace(nodes: int) -> Iterator[Workspace]:
    """Last code, codes and targets uint32[N], keys uint64[2 N], sums float64[2 N, 4], owners."""
    with _spare_lock:
        fitting = [number for number, spare in enumerate(_spare) if len(spare[1]) >= nodes]
        workspace = _spare.pop(fitting[0]) if fitting else None  # the smallest that fits
    if workspace is None:
        workspace = (
            np.zeros(1, np.uint64),
            np.zeros(nodes, np.uint32),  # cleared once: codes grow from query to query
            np.empty(nodes + 2, np.uint32),
            np.empty(2 * nodes + 2, np.uint64),
            # only pages that a call writes to take memory
            np.empty((2 * nodes + 4, 4), np.float64),
            np.empty(2 * nodes + 4, np.uint32),
        )
    try:
        yield workspace
    finally:
        with _spare_lock:
            _spare.append(workspace)
            _spare.sort(key=lambda spare: len(spare[1]))
            del _spare[: -thread_count()]  # the largest serve every graph


def _rows(indptr: IntArray, indices: IndexArray) -> Rows:
    """The adjacency as kernels take it, checked."""
    if not len(indptr) or indptr[-1] != len(indices):
        last = int(indptr[-1]) if len(indptr) else None
        raise DataError(f"indptr ends at {last}; expected the number of indices, {len(indices)}")
    # Numba compiles a kernel anew for arrays of another layout.
    indptr, indices = np.ascontiguousarray(indptr), np.ascontiguousarray(indices)
    return plain(indptr, np.int64), plain(indices, np.int32)


def _nodes(ids: IndexArray, nodes: int, name: str) -> IndexArray:
    """The array as int32, all below ``nodes``."""
    ids = np.asarray(ids)
    # Checked before the cast, in which a larger integer would wrap.
    if len(ids) and (largest := int(ids.max())) >= nodes:
        raise DataError(f"{name} holds node {largest}, but the graph has nodes 0 to {nodes - 1}")
    return np.ascontiguousarray(np.maximum(ids, -1), dtype=np.int32)


def _check_ragged(pair_indptr: IntArray, queries: int, pairs: int) -> None:
    ends = (len(pair_indptr), int(pair_indptr[0]), int(pair_indptr[-1])) if len(pair_indptr) else ()
    if ends != (queries + 1, 0, pairs) or np.any(np.diff(pair_indptr) < 0):
        raise DataError(
            f"pair_indptr must hold {queries + 1} ascending offsets from 0 to {pairs} "
            f"(one per query and the number of pair_candidates); (length, first, last) is {ends}"
        )


def check_settings(n: int, min_common: int, score: str, hub_cap: int | None) -> None:
    """Raise ConfigError where ``top_two_hop`` would not take these."""
    if score not in SCORES:
        raise ConfigError(f"score is {score!r}; {nearest(score, SCORES)}")
    for name, value in (("n", n), ("min_common", min_common), ("hub_cap", hub_cap or 0)):
        if value < 0:
            raise ConfigError(f"{name} is {value}; expected 0 or more")
