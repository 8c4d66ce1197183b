"""Ranked candidates of a request, within its deadline.

A request overruns its deadline by no more than one stage takes longer than usual.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from nextedge.ranking.pipeline import SCORE
from nextedge.retrieval.merge import with_standard_scores
from nextedge.serving.caches.precomputed import MIXED, CachedCandidates, PublishedCandidates
from nextedge.serving.caches.ranked_list import RankedList
from nextedge.serving.release.loaded import LoadedRelease, LoadedSurface, StageLatency
from nextedge.types import ROUGH, UNKNOWN, Candidates, FloatArray, Requests, Waiting, rank_column

ROW = "row"
CACHED_ROWS = 200
"""Rows of a cached ranked list."""
_AFTER_SOURCES = ("features", "ranking", "policy", "reasons")
_AFTER_FEATURES = _AFTER_SOURCES[1:]
# all of the time would make later stages late behind one stopped process
_WAITED_SHARE = 0.5
_PATIENCE_SECONDS = 5.0
_log = logging.getLogger("nextedge")


@dataclass(frozen=True)
class Deadline:
    """The time by which a response is due.

    Attributes:
        at: seconds of ``time.perf_counter``; None = no deadline.
        pace: expected latency of the surface's stages.
    """

    at: float | None
    pace: StageLatency

    @classmethod
    def after(cls, started: float, milliseconds: float | None, pace: StageLatency) -> Deadline:
        """The deadline ``milliseconds`` after the start; None or 0 = no deadline."""
        return cls(started + milliseconds / 1e3 if milliseconds else None, pace)

    def allows(self, stage: str, *, reserve: tuple[str, ...] = ()) -> bool:
        """Whether a stage, and then the reserved ones, are expected to end in time."""
        if self.at is None:
            return True
        stages = (stage, *reserve)
        expected = sum(self.pace.expected_ms.get(name, 0.0) for name in stages)
        # a stage cannot be stopped once it runs: it starts only if it is expected to fit
        if time.perf_counter() + expected / 1e3 <= self.at:
            return True
        self.pace.missed(stages)
        return False

    def wait_until(self, reserve: tuple[str, ...]) -> float:
        """Seconds of ``time.perf_counter`` until which to wait for other processes.

        Args:
            reserve: stages that run afterwards.
        """
        now = time.perf_counter()
        if self.at is None:
            return now + _PATIENCE_SECONDS
        expected = sum(self.pace.expected_ms.get(name, 0.0) for name in reserve)
        return now + max(0.0, self.at - expected / 1e3 - now) * _WAITED_SHARE


NO_DEADLINE = Deadline(None, StageLatency())


def cacheable(ranked: RankedList, sources: Iterable[str]) -> RankedList:
    """The head of a ranked list, with the columns that policy and reasons read."""
    head = _slim(ranked.candidates, (SCORE,), sources).head(CACHED_ROWS)
    return RankedList(head, None, ranked.degraded)


def _slim(candidates: Candidates, names: Iterable[str], sources: Iterable[str]) -> Candidates:
    """The candidates with the named columns and the sources' ranks alone."""
    columns, wanted = candidates.columns, (*names, *map(rank_column, sources))
    return replace(candidates, columns={name: columns[name] for name in wanted if name in columns})


class Watch:
    """Measures the stages of a request, and updates the surface's expected latency."""

    def __init__(self, started: float, pace: StageLatency) -> None:
        self._last = started
        self._pace = pace
        self.spent_ms: dict[str, float] = {}

    def __call__(self, stage: str) -> None:
        """Record the end of a stage, which began at the end of the previous one."""
        now = time.perf_counter()
        self.spent_ms[stage] = (now - self._last) * 1e3
        self._pace.took(stage, self.spent_ms[stage])
        self._last = now


def retrieved(
    surface: LoadedSurface, requests: Requests, deadline: Deadline
) -> tuple[Candidates, tuple[str, ...]]:
    """Candidates of the sources that fit into the deadline, and the names of what was left out.

    Whole sources may be left out, and processes that serve parts of an index.
    """
    late: list[str] = []
    waiting = Waiting(0.0)
    names = [f"source {name}" for name in surface.line.sources]

    def run(name: str, find: Callable[[], Candidates]) -> Candidates | None:
        stage = f"source {name}"
        if not deadline.allows(stage, reserve=_AFTER_SOURCES):
            late.append(f"late_{name}")
            return None
        later = names[names.index(stage) + 1 :]
        waiting.until = deadline.wait_until((*later, *_AFTER_SOURCES))
        missing, began = len(waiting.left_out), time.perf_counter()
        candidates = find()
        if len(waiting.left_out) == missing:  # else the time is that of a wait for a process
            surface.pace.took(stage, (time.perf_counter() - began) * 1e3)
        return candidates

    candidates = surface.line.retrieve(replace(requests, waiting=waiting), run)
    return candidates, (*late, *sorted(waiting.left_out))


def ranked_candidates(
    surface: LoadedSurface,
    requests: Requests,
    watch: Callable[[str], None] = lambda _: None,
    deadline: Deadline = NO_DEADLINE,
    candidates: Candidates | None = None,
    late: tuple[str, ...] = (),
    matrix: FloatArray | None = None,
    whole: bool = True,
) -> RankedList:
    """Ranked candidates; in rough order, and degraded, if ranking fails or is late.

    Args:
        watch: called with the name of each stage as it ends.
        candidates: None retrieves them.
        late: sources that were left out of the candidates.
        matrix: features of the candidates; None computes them.
        whole: keep all columns, not only those that policy and reasons read.
    """
    line = surface.line
    if candidates is None:
        candidates, late = retrieved(surface, requests, deadline)
    watch("candidates")
    candidates = candidates.with_columns(**{ROW: np.arange(len(candidates), dtype=np.int32)})
    if line.ranker is None:
        return RankedList(line.rank(requests, candidates), None, (*late, "no_ranker"))
    if not deadline.allows("features" if matrix is None else "ranking", reserve=_AFTER_FEATURES):
        return RankedList(_by_rough_score(candidates), None, (*late, "late_ranking"))
    try:
        if matrix is None:
            matrix = line.matrix(requests, candidates)
        watch("features")
        candidates = candidates if whole else _slim(candidates, (ROUGH, ROW), line.sources)
        ranked = line.rank(requests, candidates, matrix)
        watch("ranking")
        return RankedList(ranked, matrix, late)
    except (ValueError, RuntimeError, FloatingPointError):  # rough order is better than an error
        _log.exception("surface %s: ranking failed; answered in rough order", surface.name)
        return RankedList(_by_rough_score(candidates), None, (*late, "ranker_failed"))


def _by_rough_score(candidates: Candidates) -> Candidates:
    order = candidates.columns.get(ROUGH, np.zeros(0, np.float32))
    return candidates.with_columns(**{SCORE: order})


def computed(
    release: LoadedRelease,
    surface: LoadedSurface,
    requests: Requests,
    watch: Watch,
    deadline: Deadline,
    published: PublishedCandidates | None,
    whole: bool,
) -> tuple[RankedList, str | None]:
    """Ranked candidates, from precomputed candidates where the store has them.

    Args:
        whole: keep all columns, not only those that policy and reasons read.

    Returns:
        The ranked list, and the id of the live edges that it was computed from; None if candidates
        and features were computed from different ones.
    """
    # stored candidates have no filters, with which sources search deeper
    known = len(requests) == 1 and requests.query[0] != UNKNOWN and not requests.filters
    if published is None or not known:
        return ranked_candidates(surface, requests, watch, deadline, whole=whole), release.edges
    name = release.list_name(surface.name, int(requests.query[0]))
    cached = published.get(name)
    if cached is not None:
        candidates, matrix = cached.candidates, cached.matrix
        if matrix is not None and matrix.shape[1] != len(surface.line.features.names):
            matrix = None  # computed with another set of features
        if matrix is not None:
            # events change real-time features after they are stored
            matrix = surface.line.renewed(requests, candidates, matrix)
        if matrix is None or whole:
            # not stored; only features and explanations read them
            candidates = with_standard_scores(candidates)
        ranked = ranked_candidates(
            surface, requests, watch, deadline, candidates, matrix=matrix, whole=whole
        )
        edges = cached.edges if cached.edges == release.edges else None
        if published.features and matrix is None and ranked.matrix is not None:
            entry = CachedCandidates(candidates, ranked.matrix, MIXED if edges is None else edges)
            published.put(name, entry)
        return ranked, edges
    candidates, late = retrieved(surface, requests, deadline)
    ranked = ranked_candidates(surface, requests, watch, deadline, candidates, late, whole=whole)
    if late:  # the store gets the candidates of all sources, retrieved in the background
        find = partial(surface.line.retrieve, requests)
        published.refresh(name, lambda: CachedCandidates(find(), edges=release.edges))
        return ranked, release.edges
    matrix = ranked.matrix if published.features else None
    published.put(name, CachedCandidates(candidates, matrix, release.edges))
    return ranked, release.edges
