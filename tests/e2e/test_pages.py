"""Filters, exclusions, pages, promotions, contexts and deadlines, asked as callers ask."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from starlette.testclient import TestClient

from nextedge import Question, Recommender
from nextedge.api.app import create_app
from nextedge.config import PolicyConfig
from nextedge.errors import InputError
from nextedge.policy.rules.promotions import promoted_candidates, spread
from nextedge.retrieval.eligibility import eligible
from nextedge.retrieval.item_knn import ItemKnn
from nextedge.serving.cursor import Cursor
from nextedge.serving.messages import RecommendationResponse
from nextedge.types import Filter, Requests

USER = "u000007"


@pytest.fixture(scope="module")
def recommender(tenant: Path) -> Iterator[Recommender]:
    """Closed at the end: copies of its folder free the locks that this process has on its event
    log, and whoever opens the log next would take it from under an open one.
    """
    recommender = Recommender(tenant)
    yield recommender
    recommender.close()


@pytest.fixture
def client(tenant: Path, tmp_path: Path) -> Iterator[TestClient]:
    shutil.copytree(tenant, tmp_path / "tenant")
    with TestClient(create_app(Recommender(tmp_path / "tenant"))) as client:
        yield client


def ids(answer: RecommendationResponse) -> list[Any]:
    return [each.id for each in answer.recommendations]


def column(recommender: Recommender, table: str, name: str) -> dict[Any, Any]:
    rows = pq.read_table(recommender.config.base / f"{table}.parquet")
    return dict(zip(rows.column(0).to_pylist(), rows.column(name).to_pylist(), strict=True))


@pytest.mark.parametrize(
    ("surface", "table", "name"),
    [("items", "items", "category"), ("people", "users", "school"), ("people", "users", "skills")],
)
def test_only_what_passes_a_filter_is_shown(
    recommender: Recommender, surface: str, table: str, name: str
) -> None:
    held = {
        key: v if isinstance(v, list) else [v]
        for key, v in column(recommender, table, name).items()
    }
    wanted = sorted({str(value) for values in held.values() for value in values if value})[:2]
    for values in (wanted[0], wanted):
        answer = recommender.recommend(USER, surface, 10, filters={name: values})
        allowed = {values} if isinstance(values, str) else set(values)
        found = [set(map(str, held[each] or [])) for each in ids(answer)]
        assert found
        assert all(each & allowed for each in found)
        known = {key for key, given in held.items() if set(map(str, given or [])) & allowed}
        assert len(found) == 10 or len(known) < 40


def test_numbers_are_filtered_by_range(recommender: Recommender) -> None:
    prices = column(recommender, "items", "price")
    middle = float(np.median([price for price in prices.values() if price is not None]))
    for text, fits in (
        (f"..{middle}", lambda p: p <= middle),
        (f"{middle}..", lambda p: p >= middle),
    ):
        answer = recommender.recommend(USER, "items", 10, filters={"price": text})
        assert len(ids(answer)) == 10
        assert all(fits(np.float32(prices[each])) for each in ids(answer))


@pytest.mark.parametrize("text", ["..{0}", "{0}..", "{0}"])
def test_both_ends_of_a_range_are_included(recommender: Recommender, text: str) -> None:
    """Also of a number whose float32, as the release holds it, is a little larger."""
    prices = column(recommender, "items", "price")
    scope = recommender.release.surface("items").line.scope
    places = recommender.release.entities.items.positions(list(prices))
    held, place = next(
        (price, int(at))
        for price, at in zip(prices.values(), places, strict=True)
        if price is not None
        and float(np.float32(price)) > price
        and at >= 0
        and scope.recommendable[at]
    )
    given = Requests(np.int32([0]), 0, 1, filters=(Filter("price", (text.format(held),)),))
    assert eligible(scope, given)[place]


def test_a_cursor_beyond_the_release_is_refused(recommender: Recommender) -> None:
    for shown in ((2**31,), (2**70,), (len(recommender.release.entities.users),)):
        forged = Cursor(recommender.release.id, shown).encode(USER, "people")
        with pytest.raises(InputError, match="not one of ours"):
            recommender.recommend(USER, "people", 5, cursor=forged)


def test_a_filter_that_cannot_be_read_is_named(recommender: Recommender) -> None:
    with pytest.raises(
        InputError, match="filter 'categry': no such column; did you mean 'category'"
    ):
        recommender.recommend(USER, "items", filters={"categry": "x"})
    with pytest.raises(InputError, match="filter 'price': 'cheap' is neither a number"):
        recommender.recommend(USER, "items", filters={"price": "cheap"})
    assert ids(recommender.recommend(USER, "items", filters={"category": "no such"})) == []


def test_excluded_ids_are_not_shown_and_the_list_is_as_long(recommender: Recommender) -> None:
    first = recommender.recommend(USER, "people", 10)
    second = recommender.recommend(USER, "people", 10, exclude=[*ids(first)[:4], "nobody"])
    assert ids(second)[:6] == ids(first)[4:]
    assert len(ids(second)) == 10
    with pytest.raises(InputError, match="exclude: 3,000 ids, expected at most 2,000"):
        recommender.recommend(USER, "people", exclude=["x"] * 3000)


@pytest.mark.parametrize("surface", ["people", "items"])
def test_pages_together_are_the_long_list(recommender: Recommender, surface: str) -> None:
    recommender.session.cache = None
    whole = recommender.recommend(USER, surface, 60)
    cursor, pages = None, []
    for _ in range(4):
        page = recommender.recommend(USER, surface, 15, cursor=cursor)
        pages += ids(page)
        cursor = page.next_cursor
    assert pages == ids(whole)
    with pytest.raises(InputError, match="another user"):
        recommender.recommend("u000008", surface, 15, cursor=cursor)


def test_pages_end_where_there_is_nobody_left(recommender: Recommender) -> None:
    filters = {"category": next(iter(column(recommender, "items", "category").values()))}
    seen: list[Any] = []
    cursor, pages = None, 0
    while True:
        page = recommender.recommend(USER, "items", 3, filters=filters, cursor=cursor)
        seen += ids(page)
        cursor, pages = page.next_cursor, pages + 1
        if cursor is None:
            break
    assert len(seen) == len(set(seen))
    assert 1 < pages < 60


def test_pages_go_on_over_another_release(tenant: Path, tmp_path: Path) -> None:
    shutil.copytree(tenant, tmp_path / "tenant")
    recommender = Recommender(tmp_path / "tenant")
    first = recommender.recommend(USER, "people", 10)
    old = recommender.release.id
    copy = recommender.releases.directory / "20990101-000000"
    shutil.copytree(recommender.releases.directory / old, copy)
    recommender.releases.promote(copy.name)
    second = recommender.recommend(USER, "people", 10, cursor=first.next_cursor)
    assert second.release == copy.name
    assert not set(ids(first)) & set(ids(second))
    shutil.rmtree(recommender.releases.directory / old)
    fresh = Recommender(tmp_path / "tenant")
    with pytest.raises(InputError, match="its release is gone"):
        fresh.recommend(USER, "people", 10, cursor=first.next_cursor)


def test_promotions_have_their_share_of_the_places_and_are_marked(
    tenant: Path, tmp_path: Path
) -> None:
    shutil.copytree(tenant, tmp_path / "tenant")
    recommender = Recommender(tmp_path / "tenant")
    surface = recommender.release.surface("items")
    scope = surface.line.scope
    flags = np.zeros(len(scope.recommendable), bool)
    flags[::10] = True
    promoted_candidates.put(flags, scope, "promoted")
    rules = PolicyConfig.model_validate({"promotions": {"share": 0.2}, "exploration": {"slots": 2}})
    plain = recommender.recommend(USER, "items", 10)
    surface.policies[None] = type(surface.policy)(scope, rules)  # type: ignore[index]
    answer = recommender.recommend(USER, "items", 10)
    promoted = [each for each in answer.recommendations if each.promoted]
    held = recommender.release.entities.items.positions(ids(answer))
    assert 1 <= len(promoted) <= 2
    assert all(each.reason.code == "promoted" for each in promoted)
    assert all(
        flags[place]
        for each, place in zip(answer.recommendations, held, strict=True)
        if each.promoted
    )
    assert len(ids(answer)) == len(set(ids(answer))) == 10
    rest = [
        each.id for each in answer.recommendations if not each.promoted and each.propensity == 1
    ]
    assert rest == [each for each in ids(plain) if each in set(rest)]


def test_promoted_places_are_spread() -> None:
    assert spread([91, 92], list(range(10)), 10, 2) == [0, 1, 2, 3, 91, 4, 5, 6, 7, 92]
    assert spread([1], [1, 2, 3], 3, 1) == [2, 3, 1]
    assert spread([], [1, 2], 2, 1) == [1, 2]
    assert spread([7, 8], [], 4, 2) == [7, 8]


def test_a_context_has_rules_of_its_own(tenant: Path, tmp_path: Path) -> None:
    shutil.copytree(tenant, tmp_path / "tenant")
    with (tmp_path / "tenant" / "nextedge.toml").open("a") as file:
        file.write(
            "[surfaces.people.contexts.email]\nk = 4\n"
            "[surfaces.people.contexts.email.policy]\nmax_per = {school = 1}\n"
        )
    recommender = Recommender(tmp_path / "tenant")
    schools = column(recommender, "users", "school")
    plain = recommender.recommend(USER, "people")
    email = recommender.recommend(USER, "people", context={"context": "email"})
    other = recommender.recommend(USER, "people", context={"context": "web"})
    assert (len(ids(plain)), len(ids(email))) == (20, 4)
    assert ids(other) == ids(plain)
    named = [schools[each] for each in ids(email) if schools[each] is not None]
    assert len(named) == len(set(named))


def test_a_late_source_is_left_out_and_named(
    recommender: Recommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = ItemKnn.candidates

    def slowly(self: ItemKnn, *given: Any) -> Any:
        time.sleep(0.3)
        return find(self, *given)

    surface = recommender.release.surface("items")
    surface.pace.expected_ms.clear()
    question = Question("items", 10, deadline_ms=200.0)
    recommender.recommend_many([USER], Question("items", 10))
    monkeypatch.setattr(ItemKnn, "candidates", slowly)
    for _ in range(30):
        late = recommender.recommend_many([USER], question)[0]
        if "late_item_knn" in late.degraded:
            break
    assert "late_item_knn" in late.degraded
    assert len(late.recommendations) == 10
    monkeypatch.undo()
    surface.pace.expected_ms.clear()
    again = recommender.recommend_many([USER], question)[0]
    assert again.degraded == ()


def test_without_any_time_the_list_is_still_whole(recommender: Recommender) -> None:
    surface = recommender.release.surface("people")
    surface.pace.expected_ms.update(dict.fromkeys(("features", "ranking"), 1e6))
    answer = recommender.recommend_many([USER], Question("people", 10, deadline_ms=50.0))[0]
    assert "late_ranking" in answer.degraded
    assert len(ids(answer)) == 10
    surface.pace.expected_ms.clear()


def test_over_http(client: TestClient) -> None:
    def ask(**params: Any) -> Any:
        return client.get(
            "/v1/people/recommendations", params={"user_id": USER, "limit": 5, **params}
        )

    def named(response: Any) -> list[str]:
        return [each["candidate_id"] for each in response.json()["recommendations"]]

    first = ask()
    second = ask(cursor=first.json()["next_cursor"])
    assert not set(named(first)) & set(named(second))
    without = ask(exclude=named(first)[:2])
    assert named(without)[:3] == named(first)[2:]
    assert ask(filter="school").status_code == 422
    assert ask(filter="skool:x").json()["detail"].startswith("filter 'skool': no such column")
    assert ask(cursor="nonsense").status_code == 422
    body = {"tenant_id": "default", "user_id": USER, "surface": "people", "count": 5}
    internal = client.post(
        "/internal/ml/recommendations", json={**body, "exclude": named(first)[:2]}
    )
    assert named(internal) == named(without)
    page = client.post(
        "/internal/ml/recommendations", json={**body, "cursor": first.json()["next_cursor"]}
    )
    assert named(page) == named(second)
    too_many = client.post("/internal/ml/recommendations", json={**body, "exclude": ["x"] * 2001})
    assert too_many.status_code == 422


def test_the_columns_of_a_filter_may_hold_anything(tmp_path: Path) -> None:
    edges = [(a, b) for a in range(30) for b in range(a + 1, 30) if (a * b) % 7 == 1]
    table = pa.table({"src": [a for a, _ in edges], "dst": [b for _, b in edges]})
    users = pa.table(
        {"user_id": list(range(30)), "team": [None if u % 3 else f"t{u % 2}" for u in range(30)]}
    )
    recommender = Recommender.from_tables(state=tmp_path, connections=table, users=users)
    recommender.build()
    found = ids(recommender.recommend(1, "people", 20, filters={"team": "t0"}))
    assert found
    assert all(each % 3 == 0 and each % 2 == 0 for each in found)
