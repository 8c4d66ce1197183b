"""What every candidate source must keep, whatever it computes.

A source is checked by a test class that derives from ``SourceContract`` and has a fixture
``retrieval``: what the source gave for some requests. The project's own tests do so for every
source that is discovered, so that none can be left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from nextedge.retrieval.source import Source
from nextedge.types import Candidates, Requests


@dataclass(frozen=True)
class Retrieval:
    """A source, what it was asked, and the candidates that it gave."""

    source: Source[Any]
    requests: Requests
    limit: int
    candidates: Candidates


def retrieve(source: Source[Any], requests: Requests, limit: int) -> Retrieval:
    """Ask a source for its candidates."""
    return Retrieval(source, requests, limit, source.candidates(requests, limit))


class SourceContract:
    """One test a promise; ``retrieval`` is a fixture of the class that derives from this one."""

    def test_every_request_has_a_list_within_the_limit(self, retrieval: Retrieval) -> None:
        assert retrieval.candidates.queries == len(retrieval.requests)
        assert np.diff(retrieval.candidates.indptr).max(initial=0) <= retrieval.limit

    def test_a_list_repeats_no_candidate(self, retrieval: Retrieval) -> None:
        found = retrieval.candidates
        for rows in found.rows():
            assert len(np.unique(found.candidate[rows])) == rows.stop - rows.start

    def test_the_best_come_first(self, retrieval: Retrieval) -> None:
        found = retrieval.candidates
        for rows in found.rows():
            assert (np.diff(found.columns["score"][rows]) <= 1e-6).all()

    def test_neither_the_query_nor_its_edges_are_candidates(self, retrieval: Retrieval) -> None:
        found = retrieval.candidates
        indptr, excluded = retrieval.source.scope.excluded(retrieval.requests)
        for row, rows in enumerate(found.rows()):
            hidden = excluded[indptr[row] : indptr[row + 1]]
            assert not np.isin(found.candidate[rows], hidden).any()

    def test_a_batch_equals_its_single_requests(self, retrieval: Retrieval) -> None:
        requests, found = retrieval.requests, retrieval.candidates
        for row, rows in enumerate(found.rows()):
            candidate, score = found.candidate[rows], found.columns["score"][rows]
            single = Requests(requests.query[row : row + 1], requests.now, requests.k)
            alone = retrieval.source.candidates(single, retrieval.limit)
            assert len(alone) == len(candidate)
            np.testing.assert_allclose(alone.columns["score"], score, rtol=1e-5, atol=1e-7)
            # A matrix product rounds by the size of its batch: near ties may change places.
            moved = alone.candidate != candidate
            assert moved.mean() < 0.05 if len(candidate) else not moved.any()

    def test_pair_scores_are_the_scores_it_gave(self, retrieval: Retrieval) -> None:
        found = retrieval.candidates
        score = retrieval.source.pair_scores(retrieval.requests, found)
        np.testing.assert_allclose(score, found.columns["score"], rtol=1e-4, atol=1e-7)
