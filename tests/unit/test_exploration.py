"""Exploration: new candidates get their places, with the chance that is logged, within the rules."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nextedge import Recommender
from nextedge.config import PolicyConfig
from nextedge.evaluation.beyond_accuracy import Catalogue, exposure_share, measure_beyond_accuracy
from nextedge.policy.lists import PROPENSITY
from nextedge.policy.policy import Policy
from nextedge.policy.rules.exploration import draw
from nextedge.serving.messages import RecommendationRequest
from nextedge.serving.prepare import prepare
from nextedge.serving.rank_with_deadline import ranked_candidates
from nextedge.types import Requests

DAY = 86_400_000_000


def test_the_logged_chance_is_the_chance() -> None:
    pool = np.arange(7, dtype=np.int32)
    counts: Counter[int] = Counter()
    for day in range(4000):
        drawn, chance = draw(Requests(np.int32([3]), day * DAY, 10), 0, pool, 2, 24.0)
        assert chance == pytest.approx(1 / 7)
        assert len(set(drawn.tolist())) == 2
        counts.update(drawn[:1].tolist())
    shares = np.array([counts[each] for each in range(7)]) / 4000
    np.testing.assert_allclose(shares, 1 / 7, atol=0.03)


def test_a_draw_holds_for_its_hours_and_differs_between_queries() -> None:
    pool = np.arange(1000, dtype=np.int32)

    def drawn(query: int, hour: int) -> list[int]:
        requests = Requests(np.int32([query]), hour * DAY // 24, 10)
        return draw(requests, 0, pool, 5, 24.0)[0].tolist()

    assert drawn(1, 1) == drawn(1, 23)
    assert drawn(1, 1) != drawn(1, 25)
    assert drawn(1, 1) != drawn(2, 1)
    few, chance = draw(Requests(np.int32([1]), 0, 10), 0, pool[:3], 5, 24.0)
    assert few.tolist() == [0, 1, 2]
    assert chance == 1.0


def lists(recommender: Recommender, name: str, k: int = 12, **settings: Any) -> Any:
    surface = recommender.release.surface(name)
    users = recommender.release.entities.users.identifiers(range(80)).to_pylist()
    given = prepare(
        recommender.release,
        recommender.release.surface(name),
        recommender.overlay,
        users,
        RecommendationRequest(name, k),
    )
    ranked = ranked_candidates(surface, given.requests).candidates
    policy = Policy(surface.line.scope, PolicyConfig.model_validate(settings))
    return policy.apply(given.requests, ranked, given.hidden), surface.line.scope, given


@pytest.mark.parametrize("name", ["people", "items"])
def test_new_candidates_get_the_last_places(tenant: Path, name: str) -> None:
    recommender = Recommender(tenant)
    few = 8
    plain, scope, given = lists(recommender, name)
    found, _, _ = lists(recommender, name, exploration={"slots": 3, "fewer_edges_than": few})
    np.testing.assert_array_equal(np.diff(found.indptr), 12)
    degree = scope.candidate_degree
    drawn = 0
    for row, (before, after) in enumerate(zip(plain.rows(), found.rows(), strict=True)):
        head, tail = found.candidate[after][:9], found.candidate[after][9:]
        np.testing.assert_array_equal(head, plain.candidate[before][:9])
        assert len(set(found.candidate[after].tolist())) == 12
        chance = found.columns[PROPENSITY][after]
        assert (chance[:9] == 1).all()
        assert ((chance[9:] > 0) & (chance[9:] <= 1)).all()
        new = degree[tail] < few
        assert new[chance[9:] < 1].all()
        drawn += int((chance[9:] < 1).sum())
        assert not np.isin(tail, scope.graph.row(int(given.requests.query[row]))).any()
    assert drawn > 80  # most lists
    catalogue = Catalogue(degree)
    positives = found.indptr, found.candidate
    share = [
        measure_beyond_accuracy((each.indptr, each.candidate), positives, catalogue, k=12)
        for each in (plain, found)
    ]
    assert share[1].exposure_new.mean > share[0].exposure_new.mean


def test_caps_hold_for_what_issample_rows(tenant: Path) -> None:
    recommender = Recommender(tenant)
    found, scope, _ = lists(
        recommender,
        "items",
        max_per={"category": 4},
        exploration={"slots": 3, "fewer_edges_than": 50},
    )
    codes = scope.candidate_attributes.columns["category"].codes
    for rows in found.rows():
        drawn = found.columns[PROPENSITY][rows] < 1
        if drawn.any():
            counts = np.bincount(codes[found.candidate[rows]])
            assert counts[codes[found.candidate[rows][drawn]]].max() <= 4


def test_the_answer_carries_the_chance(tenant: Path, tmp_path: Path) -> None:
    config = Recommender(tenant).config.model_dump(exclude_unset=True)
    config["surfaces"]["people"]["policy"] = {"exploration": {"slots": 2, "fewer_edges_than": 20}}
    recommender = Recommender(type(Recommender(tenant).config).model_validate(config))
    answer = recommender.recommend(
        recommender.release.entities.users.identifiers([5])[0].as_py(), "people", 10
    )
    chances = [each.propensity for each in answer.recommendations]
    assert chances[:8] == [1.0] * 8
    assert min(chances) < 1


def test_exposure_is_discounted_by_rank_and_compared_with_merit() -> None:
    popularity = np.array([0, 100, 100, 2])
    lists = np.array([0, 2, 4]), np.array([0, 1, 2, 1], np.int32)
    positives = np.array([0, 1, 2]), np.array([3, 1], np.int32)
    found = measure_beyond_accuracy(lists, positives, Catalogue(popularity), k=2)
    first = 1 / (1 + 1 / np.log2(3))
    assert found.exposure_new.mean == pytest.approx(first / 2)
    assert found.positive_new.mean == pytest.approx(0.5)
    assert found.fairness_new.mean == pytest.approx(first)
    none = exposure_share(np.array([0, 0]), np.zeros(0, np.int32), popularity < 5)
    assert np.isnan(none).all()
