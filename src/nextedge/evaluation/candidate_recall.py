"""Candidate recall: the share of positives that each source caught, and where they were lost.

No ranker can find what no source has caught, so this bounds every later metric. The share is
over positives (a query with many weighs more); its interval resamples whole queries.

Axes: Q queries, R candidates, P positives, S sources, N nodes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import sparse

from nextedge.errors import InputError
from nextedge.evaluation._ragged import (
    BLOCK_VALUES,
    BoolArray,
    IntArray,
    check_ragged,
    check_same_queries,
    cut,
    locate,
    query_blocks,
    row_of,
)
from nextedge.evaluation.bootstrap import (
    DEFAULT_BOOTSTRAP,
    BootstrapConfig,
    Interval,
    ratio_intervals,
)
from nextedge.evaluation.slices import DEGREE_BUCKETS, degree_bucket

UNITED = "united"
NEIGHBOUR_BUCKETS = ("0", "1", "2+")

CandidateLists = tuple[IntArray, IntArray]
"""The ragged candidates of one source: ``indptr int64[Q+1]``, ``candidate int32[R]``."""


@dataclass(frozen=True, slots=True)
class CandidateRecallRow:
    """One slice of the positives: ``recall`` by source, and ``united`` for any of them."""

    breakdown: str
    bucket: str
    positives: int
    recall: dict[str, Interval]


@dataclass(frozen=True, slots=True)
class CandidateRecall:
    """Candidate recall of all positives (the first row) and of each slice of them.

    ``only`` is the share of all positives that a source caught and no other did: what would
    be lost without it. ``candidates_per_query`` is what it costs.
    """

    rows: tuple[CandidateRecallRow, ...]
    only: dict[str, float]
    candidates_per_query: dict[str, float]


@dataclass(frozen=True, slots=True)
class PositivePairs:
    """The positives to be caught, ragged by query, and what they are broken down by.

    ``indptr int64[Q+1]`` cuts ``positive int32[P]``, ascending. ``common_neighbours int[P]``
    counts those of query and positive in the graph of the features, ``degree int[Q]`` the
    query's edges in it; without one, its breakdown is left out.
    """

    indptr: IntArray
    positive: IntArray
    common_neighbours: IntArray | None = None
    degree: IntArray | None = None

    def __post_init__(self) -> None:
        check_ragged("positives", self.indptr, self.positive)
        for name, given, expected in (
            ("common_neighbours", self.common_neighbours, len(self.positive)),
            ("degree", self.degree, len(self.indptr) - 1),
        ):
            if given is not None and given.shape != (expected,):
                raise InputError(f"{name} has shape {given.shape}; expected ({expected},)")


def measure_candidate_recall(
    sources: Mapping[str, CandidateLists],
    pairs: PositivePairs,
    config: BootstrapConfig = DEFAULT_BOOTSTRAP,
) -> CandidateRecall:
    """Return what each source caught of the positives, united and by slice.

    Raises InputError when lists and positives are not of the same queries, or when a source
    is named ``united``.
    """
    queries = len(pairs.indptr) - 1
    found_PS = found_by_source(sources, pairs)
    recall = candidate_recall_of_found(found_PS, tuple(sources), pairs, config)
    cost = {
        name: len(candidate) / queries if queries else float("nan")
        for name, (_, candidate) in sources.items()
    }
    return replace(recall, candidates_per_query=cost)


def candidate_recall_of_found(
    found: BoolArray,
    sources: Sequence[str],
    pairs: PositivePairs,
    config: BootstrapConfig = DEFAULT_BOOTSTRAP,
) -> CandidateRecall:
    """Return the candidate recall of ``found bool[P, S]``, its columns named by ``sources``.

    ``candidates_per_query`` is empty, since flags of positives do not say what was listed.
    Raises InputError when the shapes differ or a source is named twice or ``united``.
    """
    if UNITED in sources:
        raise InputError(f"a source is named {UNITED!r}, the word for all of them; rename it")
    if len(set(sources)) != len(sources):
        raise InputError(f"sources are {', '.join(sources)}; give each a name of its own")
    if found.shape != (len(pairs.positive), len(sources)):
        raise InputError(
            f"found has shape {found.shape}; expected a row for each of {len(pairs.positive)} "
            f"positives and a column for each of {len(sources)} sources"
        )
    times_P = found.sum(axis=1)
    caught = {name: found[:, place] for place, name in enumerate(sources)}
    columns = caught | {UNITED: times_P > 0}
    rows = tuple(
        _row(breakdown, bucket, columns, pairs, inside_P, config)
        for breakdown, bucket, inside_P in _slices(pairs)
    )
    only = {name: _share(flag_P & (times_P == 1)) for name, flag_P in caught.items()}
    return CandidateRecall(rows, only, {})


def found_by_source(sources: Mapping[str, CandidateLists], pairs: PositivePairs) -> BoolArray:
    """Return bool[P, S]: whether each positive stands in each source's list of its query.

    >>> import numpy as np
    >>> pairs = PositivePairs(np.array([0, 2]), np.array([3, 8]))
    >>> found_by_source({"two_hop": (np.array([0, 1]), np.array([8]))}, pairs).tolist()
    [[False], [True]]
    """
    found_PS = np.zeros((len(pairs.positive), len(sources)), dtype=np.bool_)
    for place, (indptr, candidate) in enumerate(sources.values()):
        found_PS[:, place] = caught_flags(indptr, candidate, pairs.indptr, pairs.positive)
    return found_PS


def candidate_recall_of_merged(
    lists: CandidateLists,
    from_source: Mapping[str, BoolArray],
    pairs: PositivePairs,
    config: BootstrapConfig = DEFAULT_BOOTSTRAP,
) -> CandidateRecall:
    """Return the candidate recall of one merged list whose candidates know their sources.

    ``from_source[name]`` is ``bool[R]``: whether that source gave the candidate. A positive
    that a source caught but the merge dropped counts as missed.
    """
    indptr, candidate = lists
    check_ragged("candidates", indptr, candidate)
    sources: dict[str, CandidateLists] = {}
    for name, flag_R in from_source.items():
        if flag_R.shape != candidate.shape:
            raise InputError(
                f"flags of source {name!r} have shape {flag_R.shape}; expected {candidate.shape}"
            )
        before_R = np.concatenate(([0], np.cumsum(flag_R, dtype=np.int64)))
        sources[name] = before_R[indptr], candidate[flag_R]
    return measure_candidate_recall(sources, pairs, config)


def caught_flags(
    indptr: IntArray, candidate: IntArray, positive_indptr: IntArray, positive: IntArray
) -> BoolArray:
    """Return bool[P]: whether each positive stands among its query's candidates.

    Reads the candidates in blocks of queries, so memory does not grow with them.
    """
    check_ragged("candidates", indptr, candidate)
    check_ragged("positives", positive_indptr, positive)
    check_same_queries(indptr, positive_indptr)
    caught_P = np.zeros(len(positive), dtype=np.bool_)
    for start, stop in query_blocks(indptr):
        position_R = locate(
            *cut(indptr, candidate, start, stop), *cut(positive_indptr, positive, start, stop)
        )
        caught_P[int(positive_indptr[start]) + position_R[position_R >= 0]] = True
    return caught_P


def common_neighbours(
    graph_indptr: IntArray, graph_neighbour: IntArray, src: IntArray, dst: IntArray
) -> npt.NDArray[np.int64]:
    """Return int64[P]: how many neighbours ``src[p]`` and ``dst[p]`` share in a CSR graph.

    ``graph_indptr int64[N+1]`` and ``graph_neighbour int32[E]`` hold each node's neighbours
    once. Works in blocks of pairs whose neighbour lists fit in bounded memory.
    """
    check_ragged("graph", graph_indptr, graph_neighbour)
    nodes = len(graph_indptr) - 1
    for name, node in (("src", src), ("dst", dst)):
        if len(node) and not 0 <= node.min() <= node.max() < nodes:
            raise InputError(f"{name} names nodes {node.min()} to {node.max()} of {nodes}")
    width = max(nodes, int(graph_neighbour.max(initial=-1)) + 1)
    graph = sparse.csr_array(
        (np.ones(len(graph_neighbour), dtype=np.int64), graph_neighbour, graph_indptr),
        shape=(nodes, width),
    )
    degree_N = np.diff(graph_indptr)
    work_P = np.concatenate(([0], np.cumsum(degree_N[src] + degree_N[dst])))
    shared_P = np.zeros(len(src), dtype=np.int64)
    for start, stop in query_blocks(work_P, BLOCK_VALUES):
        both = graph[src[start:stop]].multiply(graph[dst[start:stop]])
        shared_P[start:stop] = np.asarray(both.sum(axis=1)).ravel()
    return shared_P


def _slices(pairs: PositivePairs) -> Iterator[tuple[str, str, BoolArray]]:
    yield "all", "all", np.ones(len(pairs.positive), dtype=np.bool_)
    if pairs.common_neighbours is not None:
        place_P = np.minimum(pairs.common_neighbours, len(NEIGHBOUR_BUCKETS) - 1)
        for place, bucket in enumerate(NEIGHBOUR_BUCKETS):
            yield "common_neighbours", bucket, place_P == place
    if pairs.degree is not None:
        place_P = degree_bucket(pairs.degree)[row_of(pairs.indptr)]
        for place, bucket in enumerate(DEGREE_BUCKETS):
            yield "degree", bucket, place_P == place


def _row(
    breakdown: str,
    bucket: str,
    caught: Mapping[str, BoolArray],
    pairs: PositivePairs,
    inside_P: BoolArray,
    config: BootstrapConfig,
) -> CandidateRecallRow:
    """Measure one slice, resampling the queries that have a positive in it."""
    queries = len(pairs.indptr) - 1
    row_I = row_of(pairs.indptr)[inside_P]
    total_Q = np.bincount(row_I, minlength=queries).astype(np.float64)
    chosen_Q = total_Q > 0
    count_QS = np.stack(
        [
            np.bincount(row_I, weights=flag_P[inside_P], minlength=queries)[chosen_Q]
            for flag_P in caught.values()
        ],
        axis=1,
        dtype=np.float64,
    )
    intervals = ratio_intervals(count_QS, total_Q[chosen_Q, None], config)
    recall = dict(zip(caught, intervals, strict=True))
    return CandidateRecallRow(breakdown, bucket, len(row_I), recall)


def _share(flag_P: BoolArray) -> float:
    return float(flag_P.mean()) if len(flag_P) else float("nan")
