"""Difference traded for relevance: the best stays first, likeness falls, nothing is lost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nextedge import Recommender
from nextedge.config import PolicyConfig
from nextedge.graph.csr import build_graph
from nextedge.policy.policy import Policy
from nextedge.policy.rules.diversity import diverse_order, likeness
from nextedge.serving.messages import RecommendationRequest
from nextedge.serving.prepare import prepare
from nextedge.serving.rank_with_deadline import ranked_candidates


def mean_likeness(alike: np.ndarray, order: np.ndarray) -> float:
    head = alike[np.ix_(order[:10], order[:10])]
    return float(head.sum() / (10 * 9))


def test_more_weight_gives_less_likeness_and_keeps_the_best_first() -> None:
    random = np.random.default_rng(0)
    source = np.repeat(np.arange(60, dtype=np.int32), 12)
    target = (source % 6 * 50 + random.integers(0, 50, len(source))).astype(np.int32)
    alike = likeness(build_graph(source, target, 60, 300), np.arange(60, dtype=np.int32))
    assert np.allclose(alike, alike.T)
    assert alike.max() <= 1.0 + 1e-5
    # the best are all of one group
    score = np.sort(random.random(60).astype(np.float32))[::-1][np.argsort(np.arange(60) % 6)]
    best_first = np.argsort(-score, kind="stable")
    alike, score = alike[np.ix_(best_first, best_first)], score[best_first]
    found = [diverse_order(score, alike, weight) for weight in (0.0, 0.3, 0.7)]
    np.testing.assert_array_equal(found[0], np.arange(60))
    for order in found:
        assert order[0] == 0
        assert sorted(order) == list(range(60))
    means = [mean_likeness(alike, order) for order in found]
    assert means[0] > means[1] >= means[2]


def test_very_popular_candidates_are_compared_on_a_sample() -> None:
    users = np.arange(9_000, dtype=np.int32)
    source = np.repeat(np.int32([0, 1, 2]), 9_000)
    target = np.concatenate((users, users, users + 9_000))
    alike = likeness(build_graph(source, target, 3, 18_000), np.int32([0, 1, 2]))
    assert alike[0, 1] == pytest.approx(1.0, abs=1e-4)
    assert alike[0, 2] == 0.0


def test_the_policy_diversifies_every_surface(tenant: Path) -> None:
    recommender = Recommender(tenant)
    for name, surface in recommender.release.surfaces.items():
        users = recommender.release.entities.users.identifiers(range(40)).to_pylist()
        given = prepare(
            recommender.release,
            surface,
            recommender.overlay,
            users,
            RecommendationRequest(name, 10),
        )
        ranked = ranked_candidates(surface, given.requests).candidates
        lists = []
        for diversity in (0.0, 0.8):
            policy = Policy(surface.line.scope, PolicyConfig(diversity=diversity))
            lists.append(policy.apply(given.requests, ranked, given.hidden))
        plain, diverse = lists
        np.testing.assert_array_equal(plain.indptr, diverse.indptr)
        assert (plain.candidate[plain.indptr[:-1]] == diverse.candidate[plain.indptr[:-1]]).all()
        snapshot = surface.line.scope.snapshot
        graph = snapshot.connections if name == "people" else snapshot.engaged_by
        before, after = (
            np.mean([likeness(graph, each.candidate[rows]).mean() for rows in each.rows()])
            for each in lists
        )
        assert after < before
