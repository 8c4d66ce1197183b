"""What a rank is worth: reciprocal without labels, what it turned out to be with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nextedge.graph.csr import build_graph
from nextedge.retrieval import fusion
from nextedge.retrieval.fusion import Fusion, FusionLearner, reciprocal_ranks
from nextedge.retrieval.merge import merge_candidates
from nextedge.types import ROUGH, Candidates, Requests

QUERIES, LONG = 200, 30


def lists(first: int) -> Candidates:
    """For every query the candidates from ``first`` on, best first."""
    candidate = np.tile(np.arange(first, first + LONG, dtype=np.int32), QUERIES)
    score = np.tile(np.linspace(1, 0, LONG, dtype=np.float32), QUERIES)
    return Candidates(np.arange(QUERIES + 1) * LONG, candidate, {"score": score})


def learned(positives_a_query: int = 3) -> Fusion:
    """The source ``good`` finds positives at its first ranks, ``poor`` none."""
    query = np.repeat(np.arange(QUERIES, dtype=np.int32), positives_a_query)
    target = np.tile(np.arange(positives_a_query, dtype=np.int32), QUERIES)
    learner = FusionLearner()
    requests = Requests(np.arange(QUERIES, dtype=np.int32), 0, 20)
    found = {"good": lists(0), "poor": lists(50)}
    learner.add(requests, found, build_graph(query, target, QUERIES, 100))
    return learner.fusion()


def test_worth_falls_with_the_rank_and_follows_the_labels() -> None:
    table = learned().table(["good", "poor", "unseen"])
    assert (table > 0).all()
    assert (np.diff(table, axis=1) <= 0).all()
    assert table[0, 0] > 100 * table[1, 0]
    assert table[0, 2] > 100 * table[0, 3]


def test_the_merge_gives_places_to_the_source_that_earns_them() -> None:
    found = {"poor": lists(50), "good": lists(0)}
    known = np.ones(100, bool)
    plain = merge_candidates(found, known, 10)
    assert (plain.candidate[:10] >= 50).sum() == 5
    fused = merge_candidates(found, known, 10, learned())
    assert set(fused.candidate[:3]) == {0, 1, 2}
    assert (np.diff(fused.columns[ROUGH][:10]) <= 0).all()


def test_too_few_labels_keep_reciprocal_ranks(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(fusion, "FEWEST_HITS", QUERIES * 3 + 1)
    np.testing.assert_array_equal(learned().table(["good"])[0], reciprocal_ranks())


def test_the_first_rank_is_worth_a_sixty_first() -> None:
    """Reciprocal ranks of Cormack et al. (SIGIR 2009): 1 / (60 + rank), ranks from 1."""
    np.testing.assert_allclose(reciprocal_ranks()[[0, 1, 9]], [1 / 61, 1 / 62, 1 / 70], rtol=1e-6)


def test_fusion_is_kept_whole(tmp_path: Path) -> None:
    before = learned()
    before.save(tmp_path / "fusion.npz")
    after = Fusion.load(tmp_path / "fusion.npz")
    np.testing.assert_array_equal(before.table(["good", "poor"]), after.table(["good", "poor"]))
    assert not Fusion.load(tmp_path / "none.npz").worth
