"""What every candidate source must keep, whatever it computes.

A new source is checked by calling ``check_source`` with it; the project's own tests call it
for every source that is discovered, so that none can be left out.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nextedge.retrieval.source import Source
from nextedge.types import Requests


def check_source(source: Source[Any], requests: Requests, limit: int) -> None:
    """Assert the contract of a source on some requests.

    Best first, no repeats, no existing edge nor the query itself, at most ``limit``; a batch
    equals its single requests; pair scores of what it gave are the scores it gave.
    """
    found = source.candidates(requests, limit)
    assert found.queries == len(requests)
    assert np.diff(found.indptr).max(initial=0) <= limit
    excluded_indptr, excluded = source.scope.excluded(requests)
    for row, rows in enumerate(found.rows()):
        candidate, score = found.candidate[rows], found.columns["score"][rows]
        assert len(np.unique(candidate)) == len(candidate)
        assert (np.diff(score) <= 1e-6).all()
        hidden = excluded[excluded_indptr[row] : excluded_indptr[row + 1]]
        assert not np.isin(candidate, hidden).any()
        single = Requests(requests.query[row : row + 1], requests.now, requests.k)
        alone = source.candidates(single, limit)
        assert len(alone) == len(candidate)
        np.testing.assert_allclose(alone.columns["score"], score, rtol=1e-5, atol=1e-7)
        # A matrix product rounds by the size of its batch: near ties may change places.
        moved = alone.candidate != candidate
        assert moved.mean() < 0.05 if len(candidate) else not moved.any()
    np.testing.assert_allclose(
        source.pair_scores(requests, found), found.columns["score"], rtol=1e-4, atol=1e-7
    )
