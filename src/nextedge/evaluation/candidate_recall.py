"""Candidate recall: the share of the positives among the candidates of each source.

It bounds every later metric: a ranker cannot rank what no source retrieves. The share is over
positives, so that a query with many weighs more; its interval resamples whole queries.

Axes: Q queries, R candidates, P positives, S sources, N nodes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from nextedge.errors import InputError
from nextedge.evaluation._ragged import (
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

    ``only`` is the share of all positives that this source alone retrieves: the loss without it.
    ``candidates_per_query`` is what it costs.
    """

    rows: tuple[CandidateRecallRow, ...]
    only: dict[str, float]
    candidates_per_query: dict[str, float]


@dataclass(frozen=True, slots=True)
class PositivePairs:
    """The positives, ragged by query, and the columns of their breakdowns.

    ``indptr int64[Q+1]`` cuts ``positive int32[P]``, ascending. ``common_neighbours int[P]``
    counts the common neighbors of query and positive in the graph of the features, ``degree
    int[Q]`` the query's edges in it; without one, its breakdown is left out.
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
    """Return the recall of each source and of all together, of all positives and by slice.

    Raises InputError when lists and positives are not of the same queries, or when a source
    is named ``united``.
    """
    if UNITED in sources:
        raise InputError(f"a source is named {UNITED!r}, the word for all of them; rename it")
    queries = len(pairs.indptr) - 1
    hits = {name: positive_hits(*lists, pairs) for name, lists in sources.items()}
    times_P = np.sum(list(hits.values()), axis=0) if hits else np.zeros(len(pairs.positive))
    columns = hits | {UNITED: times_P > 0}
    rows = tuple(
        _row(breakdown, bucket, columns, pairs, inside_P, config)
        for breakdown, bucket, inside_P in _slices(pairs)
    )
    only = {name: _share(hit_P & (times_P == 1)) for name, hit_P in hits.items()}
    cost = {
        name: len(candidate) / queries if queries else float("nan")
        for name, (_, candidate) in sources.items()
    }
    return CandidateRecall(rows, only, cost)


def positive_hits(indptr: IntArray, candidate: IntArray, pairs: PositivePairs) -> BoolArray:
    """Return bool[P]: whether each positive is among its query's candidates.

    >>> import numpy as np
    >>> pairs = PositivePairs(np.array([0, 2]), np.array([3, 8]))
    >>> positive_hits(np.array([0, 1]), np.array([8]), pairs).tolist()
    [False, True]
    """
    check_ragged("candidates", indptr, candidate)
    check_same_queries(indptr, pairs.indptr)
    hit_P = np.zeros(len(pairs.positive), dtype=np.bool_)
    # In blocks of queries, so that memory does not grow with the candidates.
    for start, stop in query_blocks(indptr):
        position_R = locate(
            *cut(indptr, candidate, start, stop), *cut(pairs.indptr, pairs.positive, start, stop)
        )
        hit_P[int(pairs.indptr[start]) + position_R[position_R >= 0]] = True
    return hit_P


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
    hits: Mapping[str, BoolArray],
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
            np.bincount(row_I, weights=hit_P[inside_P], minlength=queries)[chosen_Q]
            for hit_P in hits.values()
        ],
        axis=1,
        dtype=np.float64,
    )
    intervals = ratio_intervals(count_QS, total_Q[chosen_Q, None], config)
    recall = dict(zip(hits, intervals, strict=True))
    return CandidateRecallRow(breakdown, bucket, len(row_I), recall)


def _share(flag_P: BoolArray) -> float:
    return float(flag_P.mean()) if len(flag_P) else float("nan")
