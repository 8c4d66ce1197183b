"""The rules after ranking, each on a graph of nine people that is written out by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from nextedge.config import PolicyConfig
from nextedge.data.kinds import ColumnKind
from nextedge.errors import InputError
from nextedge.graph.attributes import Attributes, Category, Instant, Number
from nextedge.graph.csr import Graph
from nextedge.graph.scope import Scope
from nextedge.policy.policy import Policy
from nextedge.ranking.pipeline import SCORE
from nextedge.retrieval.eligibility import eligible, share_eligible
from nextedge.retrieval.popular import Popular, Trending, TrendingConfig
from nextedge.retrieval.source import NoConfig
from nextedge.types import CONNECTS, Candidates, Filter, Requests

PEOPLE, DAY = 9, 86_400_000_000
NOW = 100 * DAY
EDGES = [(0, 1), (1, 2), (1, 3), (2, 3), (3, 4), (4, 5)]


def graph(pairs: list[tuple[int, int]], days: list[int] | None = None) -> Graph:
    """Of pairs in both directions; the days of their records."""
    when = dict(zip(pairs, days or [0] * len(pairs), strict=True))
    both = sorted([*when, *((b, a) for a, b in when)])
    ends = np.array(both, np.int32).reshape(-1, 2)
    time = np.array([DAY * when.get(p, when.get(p[::-1], 0)) for p in both], np.int64)
    degree = np.bincount(ends[:, 0], minlength=PEOPLE)
    indptr = np.concatenate(([0], np.cumsum(degree))).astype(np.int64)
    ones = np.ones(len(both), np.float32)
    return Graph(indptr, ends[:, 1], ones, time, time, PEOPLE)


def scope(**changed: Any) -> Scope:
    """People of two schools; the seventh is blocked by the first, the eighth hidden from them."""
    columns = {
        "school": Category(np.int32([0, 0, 0, 0, 1, 1, 1, 1, -1]), pa.array(["a", "b"])),
        "age": Number(np.float32([20, 30, 40, 50, 20, 30, 40, 50, np.nan])),
        "created_at": Instant(np.int64([1, 1, 1, 1, NOW - 10 * DAY, NOW, NOW, NOW, 0])),
    }
    kinds = dict.fromkeys(columns, ColumnKind.CATEGORY)
    snapshot = {
        "as_of": NOW,
        "timed": frozenset({CONNECTS.name}),
        "connections": graph(EDGES),
        "blocks": graph([(0, 6)]),
        "hidden_connections": graph([(0, 7)]),
        "known_users": np.arange(PEOPLE) != 5,
        "entities": SimpleNamespace(user_attributes=Attributes(PEOPLE, kinds, columns)),
    }
    return Scope(SimpleNamespace(**{**snapshot, **changed}), CONNECTS)  # type: ignore[arg-type]


def ranked(*people: int) -> Candidates:
    """A list of one query, the best first."""
    score = np.linspace(0.9, 0.1, len(people), dtype=np.float32)
    return Candidates(np.int64([0, len(people)]), np.int32(people), {SCORE: score})


def applied(
    found: Candidates, k: int = 2, hidden: tuple[int, ...] = (), **settings: Any
) -> list[int]:
    """What the policy makes of a list for the first person."""
    requests = Requests(np.int32([0]), NOW, k)
    policy = Policy(scope(), PolicyConfig.model_validate(settings))
    return policy.apply(requests, found, lambda _: np.int32(hidden)).candidate.tolist()


@pytest.mark.parametrize(
    ("forbidden", "why"),
    [
        (0, "the person themself"),
        (1, "connected"),
        (5, "not recommendable"),
        (6, "blocked"),
        (7, "a hidden connection"),
    ],
    ids=lambda value: str(value).replace(" ", "_"),
)
def test_nobody_who_must_not_be_shown_is(forbidden: int, why: str) -> None:
    """Neither ranked nor when a short list is filled up."""
    assert applied(ranked(forbidden, 2), k=9) == [2, 3, 4, 8], why


def test_live_state_and_the_request_leave_out_more() -> None:
    assert applied(ranked(2, 3, 4), hidden=(3,)) == [2, 4]
    own = np.int64([0, 1]), np.int32([2])
    requests = Requests(np.int32([0]), NOW, 2, exclude=own)
    policy = Policy(scope(), PolicyConfig())
    chosen = policy.apply(requests, ranked(2, 3, 4), lambda _: np.int32([]))
    assert chosen.candidate.tolist() == [3, 4]


def test_seen_candidates_come_back_where_they_are_allowed_and_blocked_ones_do_not() -> None:
    assert applied(ranked(1, 6, 2), allow_seen=True) == [1, 2]
    assert applied(ranked(0, 7, 2), k=1, allow_seen=True) == [2]


def test_scores_halve_with_each_half_life() -> None:
    found = ranked(4, 3, 8)  # created ten days ago, a hundred days ago, at an unknown time
    requests = Requests(np.int32([0]), NOW, 3)
    policy = Policy(scope(), PolicyConfig(freshness_half_life_days=10.0))
    chosen = policy.apply(requests, found, lambda _: np.int32([]))
    assert chosen.candidate.tolist() == [4, 8, 3]
    expected = [0.9 / 2, 0.1, 0.5 / 2**10]
    np.testing.assert_allclose(chosen.columns[SCORE], expected, rtol=1e-3)


def test_a_cap_counts_those_of_one_value_and_gives_way_before_a_short_list() -> None:
    cap = {"max_per": {"school": 1}}
    assert applied(ranked(2, 3, 4, 8), k=3, **cap) == [2, 4, 8]  # 8 has no school
    assert applied(ranked(2, 3, 4), k=3, **cap) == [2, 4, 3]


def test_short_lists_are_filled_by_degree() -> None:
    assert applied(ranked(8), k=4) == [8, 3, 2, 4]


@pytest.mark.parametrize(
    ("column", "values", "or_missing", "expected"),
    [
        ("age", ("30..40",), False, [1, 2, 6]),
        ("age", ("..20",), False, [0, 4]),
        ("age", ("50..", "20"), False, [0, 3, 4, 7]),
        ("age", ("50",), True, [3, 7, 8]),
        ("school", ("b",), False, [4, 6, 7]),
        ("school", ("b",), True, [4, 6, 7, 8]),
        ("school", ("none of them",), False, []),
    ],
)
def test_filters(column: str, values: tuple[str, ...], or_missing: bool, expected: list) -> None:
    """Bounds are included; the sixth person passes none, as they are not recommendable."""
    requests = Requests(np.int32([0]), NOW, 5, filters=(Filter(column, values, or_missing),))
    assert np.flatnonzero(eligible(scope(), requests)).tolist() == expected
    assert share_eligible(scope(), requests) == pytest.approx(len(expected) / 8)


def test_a_filter_that_names_no_column_is_refused() -> None:
    requests = Requests(np.int32([0]), NOW, 5, filters=(Filter("scool", ("a",)),))
    with pytest.raises(InputError, match="did you mean 'school'"):
        eligible(scope(), requests)


def test_popular_counts_edges_and_trending_recent_ones() -> None:
    days = [100, 0, 0, 0, 100, 100]
    timed = scope(connections=graph(EDGES, days))
    assert Popular.fit(timed, NoConfig())["order"].tolist() == [1, 3, 2, 4, 0, 6, 7, 8]
    # The first tenth of the edges is of day 0: the half-life is a tenth of a hundred days.
    found = Trending.fit(timed, TrendingConfig(half_life_share=0.1))
    old = 2.0**-10
    np.testing.assert_allclose(
        found["score"], [1, 1 + 2 * old, 2 * old, 1 + 2 * old, 2, 1, 0, 0, 0], rtol=1e-4
    )
    assert found["order"].tolist() == [4, 1, 3, 0, 2, 6, 7, 8]
