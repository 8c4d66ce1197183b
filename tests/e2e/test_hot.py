"""The hot route: the same answer from bytes, never what live state, keys or releases forbid."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient
from typer.testing import CliRunner

from nextedge import Recommender
from nextedge.api.app import create_app
from nextedge.api.keys import ApiKeys
from nextedge.cli.main import app as cli
from nextedge.events.request_log import RequestLog


@pytest.fixture
def folder(tenant: Path, tmp_path: Path) -> Path:
    shutil.copytree(tenant, tmp_path / "tenant")
    with (tmp_path / "tenant" / "nextedge.toml").open("a") as settings:
        settings.write("[events]\nlive_graph = false\n")  # it makes lists anew that are kept here
    return tmp_path / "tenant"


@pytest.fixture
def application(folder: Path) -> FastAPI:
    return create_app(Recommender(folder))


@pytest.fixture(params=["identity", "gzip"])
def client(application: FastAPI, request: pytest.FixtureRequest) -> Iterator[TestClient]:
    """Plain answers come from in front of all layers, compressed ones from behind one."""
    with TestClient(application) as client:
        client.headers["accept-encoding"] = request.param
        yield client


def people(client: TestClient, user: str = "u000007", **headers: str):  # type: ignore[no-untyped-def]
    return client.get(
        "/pymk/recommendations", params={"user_id": user, "limit": 8}, headers=headers
    )


def ids(response) -> list[str]:  # type: ignore[no-untyped-def]
    return [each["candidate_id"] for each in response.json()["recommendations"]]


def test_a_repeated_question_is_answered_from_bytes(client: TestClient, folder: Path) -> None:
    first, second, third = people(client), people(client), people(client)
    assert "x-cache" not in first.headers
    assert second.headers["x-cache"] == third.headers["x-cache"] == "hit"
    asked = client.headers["accept-encoding"]
    assert second.headers.get("content-encoding", "identity") == asked
    volatile = ("recommendation_id", "latency_ms", "cache")
    one, two = first.json(), second.json()
    assert {k: v for k, v in one.items() if k not in volatile} == {
        k: v for k, v in two.items() if k not in volatile
    }
    given = {each.json()["recommendation_id"] for each in (first, second, third)}
    assert len(given) == 3
    client.__exit__(None, None, None)  # a clean stop writes what was logged
    log = RequestLog(folder / "state", Recommender(folder).config.serving)
    original = one["recommendation_id"]
    assert set(log.repeats().values()) == {original}
    assert set(log.repeats()) | {original} == given


@pytest.mark.parametrize("kind", ["dismiss", "block", "connect"])
def test_what_an_event_forbids_is_gone_from_the_next_answer(client: TestClient, kind: str) -> None:
    people(client)
    shown = ids(people(client))
    event = {"type": kind, "user_id": "u000007", "candidate_id": shown[0]}
    assert client.post("/v1/events", json=event).status_code == 202
    answer = people(client)
    assert "x-cache" not in answer.headers
    assert shown[0] not in ids(answer)
    assert len(ids(answer)) == 8
    kept = "miss" if kind == "connect" else "hit"  # what one has done changes one's features
    assert answer.json()["cache"] == kept  # the ranking was kept, its exclusions were not
    assert people(client).headers["x-cache"] == "hit"


def test_an_opt_out_reaches_every_kept_list(client: TestClient) -> None:
    users = [f"u{number:06d}" for number in range(5, 25)]
    lists = {user: ids(people(client, user)) for user in users}
    leaving = lists["u000007"][0]
    client.post("/v1/events", json={"type": "opt_out", "user_id": leaving})
    for user in users:
        assert leaving not in ids(people(client, user))


def test_an_event_of_another_process_is_seen(client: TestClient, folder: Path) -> None:
    people(client)
    shown = ids(people(client))
    Recommender(folder).record({"type": "block", "user_id": shown[0], "candidate_id": "u000007"})
    assert shown[0] not in ids(people(client))


def test_impressions_matter_where_the_policy_says_so(tenant: Path, tmp_path: Path) -> None:
    folder = tmp_path / "tenant"
    shutil.copytree(tenant, folder)
    with (folder / "nextedge.toml").open("a") as file:
        file.write("[surfaces.people.policy]\nrecently_shown_days = 1\n")
    with TestClient(create_app(Recommender(folder))) as client:
        people(client)
        shown = ids(people(client))
        event = {"type": "impression", "user_id": "u000007", "candidate_id": shown[0]}
        client.post("/v1/events", json=event)
        assert shown[0] not in ids(people(client))


def test_a_promotion_ends_kept_answers(client: TestClient, folder: Path) -> None:
    people(client)
    first = people(client).json()["release"]
    releases = Recommender(folder).releases
    shutil.copytree(releases.directory / first, releases.directory / "20990101-000000")
    releases.promote("20990101-000000")
    ends = time.monotonic() + 60  # it is loaded in the background
    while people(client).json()["release"] == first and time.monotonic() < ends:
        time.sleep(0.05)
    assert people(client).json()["release"] == "20990101-000000"
    while people(client).headers.get("x-cache") != "hit":  # a slow list is not kept
        assert time.monotonic() < ends


def test_scopes_and_revocation_hold_for_kept_answers(client: TestClient, folder: Path) -> None:
    made = CliRunner().invoke(cli, ["keys", "create", "-c", str(folder), "--json"])
    reader = json.loads(made.stdout)
    time.sleep(0.2)
    bearer = {"Authorization": f"Bearer {reader['key']}"}
    assert people(client).status_code == 401
    assert people(client, **bearer).status_code == 200
    assert people(client, **bearer).headers["x-cache"] == "hit"
    event = {"type": "dismiss", "user_id": "u000007", "candidate_id": "u000009"}
    assert client.post("/v1/events", json=event, headers=bearer).status_code == 403
    assert client.post("/v1/releases/rollback", headers=bearer).status_code == 403
    assert people(client, Authorization="Bearer wrong").status_code == 401
    assert reader["key"] not in (folder / "state" / "keys.json").read_text()
    listed = CliRunner().invoke(cli, ["keys", "list", "-c", str(folder)]).stdout
    assert reader["id"] in listed
    assert reader["key"] not in listed
    other = ApiKeys(folder / "state").create(("admin",))[1]
    CliRunner().invoke(cli, ["keys", "revoke", reader["id"], "-c", str(folder)])
    time.sleep(0.2)
    assert people(client, **bearer).status_code == 401
    bearer = {"Authorization": f"Bearer {other}"}
    assert client.post("/v1/events", json=event, headers=bearer).status_code == 202


def test_revoking_the_last_key_closes_the_door(client: TestClient, folder: Path) -> None:
    keys = ApiKeys(folder / "state")
    made, token = keys.create(("read",))
    time.sleep(0.2)
    bearer = {"Authorization": f"Bearer {token}"}
    assert people(client, **bearer).status_code == 200
    keys.revoke(made.id)
    time.sleep(0.2)
    assert people(client, **bearer).status_code == 401
    assert people(client).status_code == 401


def test_metrics_count_with_bounded_labels(client: TestClient) -> None:
    people(client)
    people(client)
    client.get("/no/such/path/u000007")
    text = client.get("/metrics").text
    assert 'nextedge_answers_total{cache="miss",surface="people",tenant="default"} 1.0' in text
    assert 'nextedge_answers_total{cache="encoded",surface="people",tenant="default"} 1.0' in text
    for stage in ("lookup", "candidates", "features", "ranking", "policy", "reasons"):
        assert f'stage="{stage}"' in text
    assert "u000007" not in text
    assert 'route="other",status="4xx"' in text


def test_a_body_that_is_too_large_is_refused(client: TestClient) -> None:
    answer = client.post("/v1/events", content=b"x" * (2 << 20))
    assert answer.status_code == 413
    assert answer.headers["content-type"] == "application/problem+json"
    assert "1,048,576" in answer.json()["detail"]

    def parts():  # type: ignore[no-untyped-def]
        for _ in range(40):
            yield b"x" * (1 << 16)

    assert client.post("/v1/events", content=parts()).status_code == 413


def test_a_request_id_comes_back(client: TestClient) -> None:
    answer = client.get("/health/live", headers={"X-Request-ID": "abc"})
    assert answer.headers["x-request-id"] == "abc"
    assert len(client.get("/health/live").headers["x-request-id"]) == 32


def test_strangers_events_leave_an_answer_as_it_is(client: TestClient, folder: Path) -> None:
    """Only those are touched who are shown somebody, or may be told of them."""
    first = people(client)
    assert people(client).headers["x-cache"] == "hit"
    recommender = Recommender(folder)
    release = recommender.release
    users = release.entities.users
    own = int(users.position("u000007"))
    near = {*release.snapshot.connections.row(own).tolist(), own}
    near |= set(users.positions(ids(first)).tolist())
    far = [users.identifier(place) for place in range(len(users)) if place not in near][:6]
    friend = users.identifier(int(release.snapshot.connections.row(own)[0]))
    for kind in ("block", "disconnect", "hide_connection"):
        recommender.record({"type": kind, "user_id": far[0], "candidate_id": far[1]})
        recommender.record({"type": kind, "user_id": far[2], "candidate_id": ids(first)[0]})
        recommender.record({"type": kind, "user_id": friend, "candidate_id": far[3]})
    for kind in ("opt_out", "leave"):
        recommender.record({"type": kind, "user_id": far[4]})
    assert people(client).headers["x-cache"] == "hit"
    recommender.record({"type": "block", "user_id": friend, "candidate_id": ids(first)[0]})
    assert "x-cache" not in people(client).headers
    assert people(client).headers["x-cache"] == "hit"
    recommender.record({"type": "opt_out", "user_id": friend})
    assert "x-cache" not in people(client).headers
    assert people(client).headers["x-cache"] == "hit"
    recommender.record({"type": "leave", "user_id": ids(first)[1]})
    assert ids(first)[1] not in ids(people(client))


def test_an_item_that_goes_touches_those_who_are_shown_it(client: TestClient) -> None:
    def items():  # type: ignore[no-untyped-def]
        params = {"user_id": "u000007", "limit": 5}
        return client.get("/v1/items/recommendations", params=params)

    shown = [each["item_id"] for each in items().json()["recommendations"]]
    assert items().headers["x-cache"] == "hit"
    client.post("/v1/events", json={"type": "item_unavailable", "item_id": "elsewhere"})
    assert items().headers["x-cache"] == "hit"
    client.post("/v1/events", json={"type": "item_unavailable", "item_id": shown[2]})
    after = items()
    assert "x-cache" not in after.headers
    assert shown[2] not in [each["item_id"] for each in after.json()["recommendations"]]


def test_the_short_way_and_the_route_answer_alike(application: FastAPI) -> None:
    with TestClient(application) as client:
        client.headers["accept-encoding"] = "identity"
        for path in ("/pymk/recommendations", "/v1/recommendations"):
            short = client.get(path, params={"user_id": "u000011", "limit": 7}).json()
            routed = client.get(
                path, params={"user_id": "u000011", "limit": 7, "explain": "false"}
            ).json()
            for each in (short, routed):
                for volatile in ("recommendation_id", "latency_ms", "cache"):
                    each.pop(volatile, None)
            assert short == routed
