"""Whatever is asked, an error is a problem document that says what is wrong and nothing internal."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from nextedge import Recommender
from nextedge.api.app import create_app
from nextedge.api.models import Problem
from nextedge.config import load_config

KEY = "secret"
ASK = "/pymk/recommendations"
INTERNAL = "/internal/ml/recommendations"
EVENTS = "/v1/events"


def event(**fields: object) -> bytes:
    return json.dumps({"type": "dismiss", "user_id": "a", "candidate_id": "b", **fields}).encode()


def inner(**fields: object) -> bytes:
    return json.dumps({"tenant_id": "default", "user_id": "a", **fields}).encode()


CASES = {
    "no_route": ("GET", "/no/such/route", None, 404, ""),
    "wrong_method": ("DELETE", ASK, None, 405, ""),
    "large": ("POST", EVENTS, b"x" * (2 << 20), 413, "1,048,576 bytes"),
    "no_json": ("POST", INTERNAL, b"{not json", 422, "body"),
    "no_json_events": ("POST", EVENTS, b"[1, 2", 422, "body"),
    "a_number": ("POST", EVENTS, b"7", 422, "body"),
    "no_body": ("POST", INTERNAL, b"", 422, "body"),
    "deep": ("POST", EVENTS, b"[" * 100_000, 400, ""),
    "deep_with_escape": ("POST", EVENTS, b"[" * 100_000 + b'"\\u0000"', 400, ""),
    "many_digits": ("POST", EVENTS, b"1" * 5000, 400, ""),
    "no_utf8_body": ("POST", EVENTS, b'{"type": "\xff\xfe"}', 400, ""),
    "no_utf8_query": ("GET", ASK + "?user_id=%FF%FE", None, 400, "UTF-8"),
    "no_utf8_path": ("GET", "/v1/embeddings/user/%FF", None, 400, "UTF-8"),
    "nul_query": ("GET", ASK + "?user_id=a%00b", None, 400, "NUL"),
    "nul_path": ("GET", "/v1/training/%00", None, 400, "NUL"),
    "nul_event": ("POST", EVENTS, event(user_id="a\0"), 400, "NUL"),
    "nul_in_a_name": ("POST", EVENTS, event(**{"a\0": 1}), 400, "NUL"),
    "nul_user": ("POST", INTERNAL, inner(user_id="\0"), 400, "NUL"),
    "surrogate_event": ("POST", EVENTS, event(user_id="\ud800"), 400, "surrogate"),
    "surrogate_extra": ("POST", EVENTS, event(note={"deep": ["\udfff"]}), 400, "surrogate"),
    "surrogate_user": ("POST", INTERNAL, inner(user_id="\ud800"), 400, "surrogate"),
    "surrogate_filter": ("POST", INTERNAL, inner(filters={"\ud800": "x"}), 400, "surrogate"),
    "surrogate_surface": ("POST", INTERNAL, inner(surface="\ud800"), 400, "surrogate"),
    "large_id_event": ("POST", EVENTS, event(user_id=2**63), 422, "64 bits"),
    "small_id_event": ("POST", EVENTS, event(candidate_id=-(2**63) - 1), 422, "64 bits"),
    "large_id": ("POST", INTERNAL, inner(user_id=2**63), 422, "user_id"),
    "long_id": ("GET", ASK + "?user_id=" + "x" * 300, None, 422, "user_id"),
    "time_out_of_range": (
        "POST",
        EVENTS,
        event(timestamp="0001-01-01T00:00:00+14:00"),
        422,
        "timestamp",
    ),
    "large_limit": ("GET", ASK + "?user_id=a&limit=99999999999999999999", None, 422, "limit"),
    "no_surface": ("GET", "/v1/pepole/recommendations?user_id=a", None, 404, "people"),
    "no_release": ("POST", "/v1/releases/no-such/promote", None, 404, "no-such"),
    "no_training": ("GET", "/v1/training/no-such", None, 422, "no-such"),
    "foreign_tenant": ("POST", INTERNAL, inner(tenant_id="other"), 403, "tenant_id"),
}


@pytest.fixture(scope="module")
def client(tenant: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder = tmp_path_factory.mktemp("problems") / "tenant"
    shutil.copytree(tenant, folder)
    recommender = Recommender(load_config(folder))  # no location, hence no builds over HTTP
    with TestClient(create_app(recommender, KEY), raise_server_exceptions=False) as client:
        yield client


@pytest.mark.parametrize("case", CASES)
def test_an_error_is_a_problem_document(client: TestClient, case: str) -> None:
    method, path, content, status, said = CASES[case]
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    answer = client.request(method, path, content=content, headers=headers)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = Problem.model_validate_json(answer.content)
    assert problem.status == status
    assert said in problem.detail
    assert "Traceback" not in answer.text
    assert len(answer.headers["x-request-id"]) == 32


@pytest.mark.parametrize("case", CASES)
def test_without_a_key_nothing_is_told(client: TestClient, case: str) -> None:
    method, path, content, _, said = CASES[case]
    answer = client.request(method, path, content=content)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert not said or said not in answer.text


def test_a_wrong_method_names_the_right_one(client: TestClient) -> None:
    answer = client.delete(ASK, headers={"Authorization": f"Bearer {KEY}"})
    assert answer.headers["allow"] == "GET"


def test_there_is_an_end_to_rolling_back(client: TestClient) -> None:
    headers = {"Authorization": f"Bearer {KEY}"}
    for _ in range(9):
        answer = client.post("/v1/releases/rollback", headers=headers)
        if answer.status_code != 200:
            break
    assert answer.status_code == 409
    assert "roll back" in Problem.model_validate_json(answer.content).detail


def test_text_that_looks_like_an_escape_is_text(client: TestClient) -> None:
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    body = event(note="a \\ud800, a \\u0000 and \U0001f600").replace(b"b", b"\\ud83d\\ude00")
    assert client.post(EVENTS, content=body, headers=headers).status_code == 202


def test_what_is_unforeseen_is_a_problem_and_counted(client: TestClient) -> None:
    @client.app.get("/v1/broken")  # type: ignore[attr-defined]
    def broken() -> None:
        raise RuntimeError("a detail of the inside")

    headers = {"Authorization": f"Bearer {KEY}"}
    answer = client.get("/v1/broken", headers=headers)
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert "inside" not in answer.text
    metrics = client.get("/metrics", headers=headers).text
    assert 'route="/v1/broken",status="5xx"' in metrics
