"""Every way to ask one question gives one answer, and does each lookup once.

The ways: the response cache, the fast path, the route, the internal interface, Python, a batch.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from nextedge import RecommendationRequest, Recommender
from nextedge.api.app import create_app
from nextedge.api.fast_path import FastPath
from nextedge.events.logs.sqlite.log import LocalLog
from nextedge.serving.release.loaded import LoadedSurface
from nextedge.testing.walk import Walk

VOLATILE = ("recommendation_id", "latency_ms", "cache")
RANDOM = random.Random(19)
QUESTIONS = [
    {
        "surface": RANDOM.choice(["people", "items"]),
        "user_id": RANDOM.choice([f"u{RANDOM.randrange(600):06d}", "u000007", "a stranger"]),
        "limit": RANDOM.choice([1, 7, 20, 60]),
        "context": RANDOM.choice([None, None, "mobile"]),
    }
    for _ in range(60)
]


@pytest.fixture(scope="module")
def folder(tenant: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("one") / "tenant"
    shutil.copytree(tenant, folder)
    return folder


@pytest.fixture(scope="module")
def recommender(folder: Path) -> Recommender:
    return Recommender(folder)


@pytest.fixture(scope="module")
def app(recommender: Recommender) -> FastAPI:
    return create_app(recommender)


@pytest.fixture(scope="module")
def client(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app) as client:
        client.headers["accept-encoding"] = "identity"
        yield client


def comparable(document: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name not in VOLATILE}


@pytest.mark.parametrize("question", QUESTIONS, ids=range(len(QUESTIONS)))
def test_all_ways_give_one_answer(
    client: TestClient, recommender: Recommender, question: dict[str, Any]
) -> None:
    path = f"/v1/{question['surface']}/recommendations"
    params = {name: question[name] for name in ("user_id", "limit", "context") if question[name]}
    routed = client.get(path, params={**params, "explain": "false"})
    fast = client.get(path, params=params)
    again = client.get(path, params=params)
    packed = client.get(path, params=params, headers={"accept-encoding": "gzip"})
    expected = comparable(routed.json())
    assert routed.status_code == 200
    for response in (fast, again, packed):
        assert response.status_code == 200
        assert comparable(response.json()) == expected
    context = {"context": question["context"]} if question["context"] else {}
    body = {"tenant_id": "default", "count": question["limit"], "context": context}
    body |= {name: question[name] for name in ("user_id", "surface")}
    internal = client.post("/internal/ml/recommendations", json=body).json()
    assert internal["recommendations"] == expected["recommendations"]
    request = RecommendationRequest(question["surface"], question["limit"], context)
    alone = recommender.recommend_many([question["user_id"]], request)[0]
    batch = recommender.recommend_many(["u000003", question["user_id"], "u000011"], request)[1]
    listed = [
        each["candidate_id" if "candidate_id" in each else "item_id"]
        for each in expected["recommendations"]
    ]
    for answer in (alone, batch):
        assert [each.id for each in answer.recommendations] == listed
        scores = [each["score"] for each in expected["recommendations"]]
        assert [each.score for each in answer.recommendations] == scores


@pytest.mark.parametrize(
    "query",
    [
        "limit=5",
        "user_id=&limit=5",
        "user_id=u000007&limit=0",
        "user_id=u000007&limit=1%D9%A3",
        "user_id=u000007&limit=x",
        "user_id=u000007&limit=501",
        "user_id=%ff",
        "user_id=a%00b",
    ],
)
def test_faults_are_one_problem_with_and_without_compression(
    client: TestClient, query: str
) -> None:
    plain = client.get(f"/pymk/recommendations?{query}")
    packed = client.get(f"/pymk/recommendations?{query}", headers={"accept-encoding": "gzip"})
    assert plain.status_code == packed.status_code in (400, 422)
    assert plain.json() == packed.json()
    assert plain.headers["content-type"] == "application/problem+json"


def test_an_impression_ends_a_cached_response_where_the_context_hides_recent_ones(
    folder: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(folder, tmp_path / "tenant")
    with (copy / "nextedge.toml").open("a") as settings:
        settings.write("[surfaces.people.contexts.email.policy]\nrecently_shown_days = 7\n")
    with TestClient(create_app(Recommender(copy))) as client:
        params = {"user_id": "u000007", "limit": 5, "context": "email"}

        def listed() -> list[str]:
            rows = client.get("/pymk/recommendations", params=params).json()["recommendations"]
            return [row["candidate_id"] for row in rows]

        first = listed()
        assert listed() == first
        event = {"type": "impression", "user_id": "u000007", "candidate_id": first[0]}
        client.post("/v1/events", json=event)
        assert first[0] not in listed()


def test_a_request_polls_the_log_once_and_looks_up_the_policy_once(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    changes, policy_in = LocalLog.changes, LoadedSurface.policy_in

    def counted_changes(self: LocalLog, **options: bool) -> object:
        if threading.current_thread().name != "nextedge-watch":
            calls.append("log")
        return changes(self, **options)

    def counted_policy(self: LoadedSurface, context: str | None) -> object:
        calls.append("policy")
        return policy_in(self, context)

    params = {"user_id": "u000023", "limit": 9}
    client.get("/pymk/recommendations", params={**params, "limit": 8})
    monkeypatch.setattr(LocalLog, "changes", counted_changes)
    monkeypatch.setattr(LoadedSurface, "policy_in", counted_policy)
    assert client.get("/pymk/recommendations", params=params).json()["cache"] == "hit"
    assert sorted(calls) == ["log", "policy"]
    calls.clear()
    repeat = client.get("/pymk/recommendations", params=params)
    assert repeat.headers["x-cache"] == "hit"
    assert calls == ["log"]


def test_there_are_at_most_six_layers(app: FastAPI) -> None:
    names = [layer.cls.__name__ for layer in app.user_middleware]
    assert len(names) <= 6, names
    assert FastPath.__name__ in names


def test_a_repeated_request_visits_few_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trace function makes it slow; the fast path answers on the calling thread."""
    monkeypatch.setenv("NEXTEDGE_THREADS", "1")

    async def ask(app: FastAPI) -> dict[bytes, bytes]:
        sent: list[Any] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        path, query = "/pymk/recommendations", b"user_id=u000007&limit=8"
        scope = {"type": "http", "http_version": "1.1", "method": "GET", "scheme": "http"}
        scope |= {"path": path, "raw_path": path.encode(), "query_string": query, "headers": []}
        await app(scope, receive, send)
        return dict(sent[0]["headers"])

    async def walk_repeats() -> list[list[str]]:
        app = create_app(Recommender(folder))
        async with app.router.lifespan_context(app):
            await ask(app)
            await ask(app)
            repeats = []
            for _ in range(9):
                with walk.recording() as files:
                    headers = await ask(app)
                assert headers[b"x-cache"] == b"hit"
                repeats.append(files)
        return sorted(repeats, key=len)

    walk = Walk()
    try:
        repeats = asyncio.run(walk_repeats())
    finally:
        walk.close()
    files = repeats[len(repeats) // 2]
    assert len(files) <= 10, files
    # one in a tenth of a second looks at the file of keys, too
    assert len(repeats[-1]) <= 11, repeats[-1]
    assert {"api/fast_path.py", "api/response_cache.py", "events/state/overlay.py"} <= set(files)
