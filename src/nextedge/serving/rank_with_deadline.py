"""Ranked candidates of a request, as far as its deadline allows.

A stage cannot be stopped once it runs, so each starts only if its latest times fit into the rest
of the deadline. A request thus overruns its deadline by no more than what one stage takes longer
than usual.
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
KEPT = 200
"""Rows of a ranked list that a cache keeps."""
_AFTER_SOURCES = ("features", "ranking", "policy", "reasons")
_AFTER_FEATURES = _AFTER_SOURCES[1:]
_WAITED_SHARE = 0.5
_PATIENCE_SECONDS = 5.0
_log = logging.getLogger("nextedge")


@dataclass(frozen=True)
class Deadline:
    """When an answer is due.

    Attributes:
        at: in seconds of ``time.perf_counter``; None = never.
        pace: of the surface.
    """

    at: float | None
    pace: StageLatency

    @classmethod
    def after(cls, started: float, milliseconds: float | None, pace: StageLatency) -> Deadline:
        """So long after the start; None or 0: never."""
        return cls(started + milliseconds / 1e3 if milliseconds else None, pace)

    def allows(self, stage: str, *, reserve: tuple[str, ...] = ()) -> bool:
        """Whether a stage, and those for which time must be left, will probably be done by then."""
        if self.at is None:
            return True
        stages = (stage, *reserve)
        expected = sum(self.pace.expected_ms.get(name, 0.0) for name in stages)
        if time.perf_counter() + expected / 1e3 <= self.at:
            return True
        self.pace.missed(stages)
        return False

    def wait_until(self, reserve: tuple[str, ...]) -> float:
        """Until when other processes are waited for: half of the time that is to spare.

        Args:
            reserve: stages for which time must be left.

        Returns:
            Seconds of ``time.perf_counter``.
        """
        now = time.perf_counter()
        if self.at is None:
            return now + _PATIENCE_SECONDS
        expected = sum(self.pace.expected_ms.get(name, 0.0) for name in reserve)
        return now + max(0.0, self.at - expected / 1e3 - now) * _WAITED_SHARE


NO_DEADLINE = Deadline(None, StageLatency())


def cacheable(ranked: RankedList, sources: Iterable[str]) -> RankedList:
    """The head of a ranked list, with the columns that policy and reasons read."""
    head = _slim(ranked.candidates, (SCORE,), sources).head(KEPT)
    return RankedList(head, None, ranked.degraded)


def _slim(found: Candidates, names: Iterable[str], sources: Iterable[str]) -> Candidates:
    """Only the named columns, and the ranks of the sources: what policy and reasons read."""
    kept = [name for name in (*names, *map(rank_column, sources)) if name in found.columns]
    return replace(found, columns={name: found.columns[name] for name in kept})


class Watch:
    """Tells where the time of a request goes, and teaches the surface's pace."""

    def __init__(self, started: float, pace: StageLatency) -> None:
        self._last = started
        self._pace = pace
        self.spent_ms: dict[str, float] = {}

    def __call__(self, stage: str) -> None:
        """The stage that ends now took the time since the last."""
        now = time.perf_counter()
        self.spent_ms[stage] = (now - self._last) * 1e3
        self._pace.took(stage, self.spent_ms[stage])
        self._last = now


def retrieved(
    surface: LoadedSurface, requests: Requests, deadline: Deadline
) -> tuple[Candidates, tuple[str, ...]]:
    """Candidates of the sources that there is time for, and what was left out of them.

    That is whole sources, and processes that hold parts of an index.
    """
    late: list[str] = []
    waiting = Waiting(0.0)
    names = [f"source {name}" for name in surface.line.sources]

    def run(name: str, find: Callable[[], Candidates]) -> Candidates | None:
        stage = f"source {name}"
        if not deadline.allows(stage, reserve=_AFTER_SOURCES):
            late.append(f"late_{name}")
            return None
        behind = names[names.index(stage) + 1 :]
        waiting.until = deadline.wait_until((*behind, *_AFTER_SOURCES))
        before, begun = len(waiting.left_out), time.perf_counter()
        found = find()
        if len(waiting.left_out) == before:  # else it waited for others
            surface.pace.took(stage, (time.perf_counter() - begun) * 1e3)
        return found

    found = surface.line.retrieve(replace(requests, waiting=waiting), run)
    return found, (*late, *sorted(waiting.left_out))


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
    """Ranked candidates; when ranking fails or is late, the rough order and the word that it did.

    Args:
        watch: told the name of each stage as it ends.
        candidates: where they are at hand.
        late: sources that were left out of them.
        matrix: their features, where those are at hand.
        whole: with every column, not only those that policy and reasons read.
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
    except (ValueError, RuntimeError, FloatingPointError):
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
        whole: with every column, not only those that policy and reasons read.

    Returns:
        the ranked list, and which live edges all of it follows from; None where candidates and
        features follow from different ones.
    """
    known = len(requests) == 1 and requests.query[0] != UNKNOWN and not requests.filters
    if published is None or not known:
        return ranked_candidates(surface, requests, watch, deadline, whole=whole), release.edges
    name = release.list_name(surface.name, int(requests.query[0]))
    kept = published.get(name)
    if kept is not None:
        found, matrix = kept.candidates, kept.matrix
        if matrix is not None and matrix.shape[1] != len(surface.line.features.names):
            matrix = None
        if matrix is not None:
            matrix = surface.line.renewed(requests, found, matrix)
        if matrix is None or whole:
            found = with_standard_scores(found)
        ranked = ranked_candidates(
            surface, requests, watch, deadline, found, matrix=matrix, whole=whole
        )
        same = kept.edges == release.edges
        if published.features and matrix is None and ranked.matrix is not None:
            published.put(
                name, CachedCandidates(found, ranked.matrix, kept.edges if same else MIXED)
            )
        return ranked, kept.edges if same else None
    found, late = retrieved(surface, requests, deadline)
    ranked = ranked_candidates(surface, requests, watch, deadline, found, late, whole=whole)
    if late:
        find = partial(surface.line.retrieve, requests)
        published.refresh(name, lambda: CachedCandidates(find(), edges=release.edges))
        return ranked, release.edges
    matrix = ranked.matrix if published.features else None
    published.put(name, CachedCandidates(found, matrix, release.edges))
    return ranked, release.edges
