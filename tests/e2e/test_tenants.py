"""Several tenants of one process: no key reads what is another tenant's, on any route."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fastapi.routing import iter_route_contexts
from starlette.testclient import TestClient

from nextedge import Recommender
from nextedge.api.app import create_app
from nextedge.api.keys import ApiKeys
from nextedge.api.server import tenants_below
from nextedge.api.tenants import Tenants
from nextedge.errors import InputError

OPERATOR = "the operator's key"
OPEN = {
    "/openapi.json",
    "/docs",
    "/docs/oauth2-redirect",
    "/redoc",
    "/health/live",
    "/health/ready",
}


@dataclass(frozen=True)
class Route:
    """A request for something of the large tenant, and the scope that it needs."""

    scope: str
    parts: dict[str, str] = field(default_factory=dict)
    given: dict[str, Any] = field(default_factory=dict)


@dataclass
class Served:
    """Two tenants of one application: a large one, and a small one of other ids."""

    client: TestClient
    large: Recommender
    small: Recommender
    keys: dict[str, dict[str, str]]
    """Per tenant and scope a key."""

    def ask(self, tenant: str, scope: str, method: str, path: str, **given: Any):  # type: ignore[no-untyped-def]
        key = self.keys[tenant][scope]
        return self.client.request(
            method, path, headers={"Authorization": f"Bearer {key}"}, **given
        )


@pytest.fixture(scope="module")
def served(tenant: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    home = tmp_path_factory.mktemp("tenants")
    shutil.copytree(tenant, home / "large")
    settings = home / "large" / "nextedge.toml"
    settings.write_text('tenant = "large"\n' + settings.read_text())
    (home / "small").mkdir()
    (home / "small" / "nextedge.toml").write_text('tenant = "small"\n')
    edges = np.random.default_rng(0).integers(0, 40, (300, 2))
    table = pa.table({"src": edges[:, 0], "dst": edges[:, 1]})
    pq.write_table(table, home / "small" / "connections.parquet")
    large, small = (Recommender(each) for each in tenants_below(home))
    small.build()
    keys = {
        each.config.tenant: {
            scope: ApiKeys(each.config.state_path).create((scope,))[1]
            for scope in ("read", "write", "admin")
        }
        for each in (large, small)
    }
    tenants = Tenants([large, small], OPERATOR)
    with TestClient(create_app(tenants), raise_server_exceptions=False) as client:
        yield Served(client, large, small, keys)


TRAINING = "0" * 32
ROUTES: dict[tuple[str, str], Route] = {
    ("GET", "/pymk/recommendations"): Route("read", given={"params": {"user_id": "u000007"}}),
    ("GET", "/v1/{surface}/recommendations"): Route(
        "read", {"surface": "people"}, {"params": {"user_id": "u000007", "explain": True}}
    ),
    ("POST", "/internal/ml/recommendations"): Route(
        "read", given={"json": {"tenant_id": "large", "user_id": "u000007"}}
    ),
    ("GET", "/v1/{surface}/similar"): Route(
        "read", {"surface": "people"}, {"params": {"id": "u000007"}}
    ),
    ("GET", "/v1/embeddings/{kind}/{given}"): Route("read", {"kind": "user", "given": "u000007"}),
    ("GET", "/v1/releases"): Route("read"),
    ("POST", "/v1/releases/{release_id}/promote"): Route("admin", {"release_id": "LARGE"}),
    ("POST", "/v1/releases/rollback"): Route("admin"),
    ("POST", "/v1/training"): Route("admin", given={"json": {"surfaces": ["items"]}}),
    ("GET", "/v1/training/{training_id}"): Route("admin", {"training_id": TRAINING}),
    ("POST", "/v1/events"): Route(
        "write", given={"json": {"type": "opt_out", "user_id": "u000007"}}
    ),
    ("PUT", "/v1/users/{user_id}/contacts"): Route(
        "write", {"user_id": "u000007"}, {"json": {"contacts": ["a@b.example"], "consent": True}}
    ),
    ("DELETE", "/v1/users/{user_id}/contacts"): Route("write", {"user_id": "u000007"}),
    ("DELETE", "/v1/users/{user_id}"): Route("admin", {"user_id": "u000007"}),
    ("GET", "/metrics"): Route("read"),
}
CASES = [pytest.param(method, path, id=f"{method} {path}") for method, path in ROUTES]


def path_of(served: Served, method: str, template: str) -> str:
    parts = ROUTES[method, template].parts
    path = template.format(**parts)
    return path.replace("LARGE", served.large.release.id)


def test_every_route_is_tried_here(served: Served) -> None:
    found = {
        (method, context.path)
        for context in iter_route_contexts(served.client.app.routes)  # type: ignore[attr-defined]
        for method in context.methods or ()
        if context.path not in OPEN and method != "HEAD"
    }
    assert found == set(ROUTES)


@pytest.mark.parametrize(("method", "template"), CASES)
def test_no_route_answers_without_its_scope(served: Served, method: str, template: str) -> None:
    route, path = ROUTES[method, template], path_of(served, method, template)
    for headers in (
        {},
        {"Authorization": "Bearer ne_guess"},
        {"Authorization": "Basic " + served.keys["large"]["admin"]},
    ):
        answer = served.client.request(method, path, headers=headers, **route.given)
        assert answer.status_code == 401
        assert answer.headers["content-type"] == "application/problem+json"
    for scope in {"read", "write"} - {route.scope}:
        for tenant in ("large", "small"):
            answer = served.ask(tenant, scope, method, path, **route.given)
            assert answer.status_code == 403


@pytest.mark.parametrize(("method", "template"), CASES)
def test_no_route_tells_a_tenant_of_another(served: Served, method: str, template: str) -> None:
    route, path = ROUTES[method, template], path_of(served, method, template)
    training = served.large.config.state_path / "training" / f"{TRAINING}.json"
    training.parent.mkdir(exist_ok=True)
    training.write_text(json.dumps({"id": TRAINING, "status": "done", "started": 1.0}))
    before = served.large.overlay.log.last_position(), served.large.releases.current_id()
    for scope in {"admin", route.scope}:
        answer = served.ask("small", scope, method, path, **route.given)
        assert answer.status_code < 500
        theirs = set(re.findall(r"u\d{6}", answer.text)) - {"u000007"}
        assert not theirs
        assert "large" not in answer.text
        assert "items" not in re.findall(r"valid: (.*)", answer.text)
        if "promote" not in template:  # its error repeats the id that was asked for
            assert served.large.release.id not in answer.text
    if template in ("/v1/releases/{release_id}/promote", "/v1/training/{training_id}"):
        assert answer.status_code in (404, 422)
    assert before == (served.large.overlay.log.last_position(), served.large.releases.current_id())


def test_each_tenant_is_answered_from_its_own(served: Served) -> None:
    for tenant, user in (("large", "u000007"), ("small", "7")):
        recommender = getattr(served, tenant)
        for _ in range(2):  # computed, then from bytes
            found = served.ask(
                tenant, "read", "GET", "/pymk/recommendations", params={"user_id": user}
            ).json()
            assert found["release"] == recommender.release.id
            assert len(found["recommendations"]) > 3


@pytest.mark.parametrize(("encoding", "limit"), [("identity", 7), ("gzip", 6)])
def test_encoded_answers_are_a_tenants_own(served: Served, encoding: str, limit: int) -> None:
    served.client.headers["accept-encoding"] = encoding
    question = {"params": {"user_id": "u000011", "limit": limit}}
    for _ in range(2):
        last = served.ask("large", "read", "GET", "/pymk/recommendations", **question)
    assert last.headers["x-cache"] == "hit"
    other = served.ask("small", "read", "GET", "/pymk/recommendations", **question)
    assert "x-cache" not in other.headers
    assert other.json()["release"] == served.small.release.id
    question = {"params": {"user_id": "7", "limit": limit}}
    for _ in range(2):
        last = served.ask("small", "read", "GET", "/pymk/recommendations", **question)
    assert (last.headers["x-cache"], last.json()["release"]) == ("hit", served.small.release.id)
    other = served.ask("large", "read", "GET", "/pymk/recommendations", **question)
    assert "x-cache" not in other.headers
    assert other.json()["release"] == served.large.release.id


def test_a_foreign_tenant_and_an_unknown_one_are_the_same(served: Served) -> None:
    body = {"user_id": "7", "count": 3}
    answers = [
        served.ask(
            "small",
            "read",
            "POST",
            "/internal/ml/recommendations",
            json={**body, "tenant_id": name},
        )
        for name in ("large", "nobody")
    ]
    assert [each.status_code for each in answers] == [403, 403]
    assert answers[0].content == answers[1].content
    own = served.ask(
        "small", "read", "POST", "/internal/ml/recommendations", json={**body, "tenant_id": "small"}
    )
    assert own.status_code == 200


def test_metrics_are_a_tenants_own_and_the_operators_all(served: Served) -> None:
    for tenant, user in (("large", "u000007"), ("small", "7")):
        served.ask(tenant, "read", "GET", "/pymk/recommendations", params={"user_id": user})
    small = served.ask("small", "read", "GET", "/metrics").text
    assert set(re.findall(r'tenant="([^"]*)"', small)) == {"small"}
    operator = {"Authorization": f"Bearer {OPERATOR}"}
    text = served.client.get("/metrics", headers=operator).text
    assert {"large", "small"} <= set(re.findall(r'tenant="([^"]*)"', text))
    refused = served.client.get("/v1/releases", headers=operator)
    assert refused.status_code == 403


def test_readiness_names_no_tenant(served: Served) -> None:
    assert served.client.get("/health/ready").json() == {"status": "ready"}


def test_tenants_that_cannot_be_told_apart_are_refused(tmp_path: Path) -> None:
    def made(folder: str, name: str, **settings: str) -> Recommender:
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "users.csv").write_text("user_id\n1\n")
        lines = [f'{key} = "{value}"' for key, value in {"tenant": name, **settings}.items()]
        (tmp_path / folder / "nextedge.toml").write_text("\n".join(lines))
        return Recommender(tmp_path / folder)

    a, b = made("a", "a"), made("b", "b")
    with pytest.raises(InputError, match=r"tenant 'a' has no API key.*nextedge keys create -c"):
        Tenants([a, b])
    with pytest.raises(InputError, match="same name 'a'"):
        Tenants([a, made("c", "a")])
    with pytest.raises(InputError, match="same state folder"):
        Tenants([a, made("d", "d", state="../a/state")])
    for each in (a, b):
        ApiKeys(each.config.state_path).create(("read",))
    assert [tenant.name for tenant in Tenants([a, b])] == ["a", "b"]
    shutil.copy(a.config.state_path / "keys.json", b.config.state_path / "keys.json")
    with pytest.raises(InputError, match="share the key"):
        Tenants([a, b])
    with pytest.raises(InputError, match="a folder of folders"):
        tenants_below(tmp_path / "a")


def test_a_quota_is_a_tenants_own_and_holds_for_encoded_answers(tmp_path: Path) -> None:
    (tmp_path / "nextedge.toml").write_text(
        "[serving]\nrequests_per_second = 0.01\nburst = 3\n[data]\nconnections = 'c.parquet'\n"
    )
    edges = np.random.default_rng(0).integers(0, 40, (300, 2))
    pq.write_table(pa.table({"src": edges[:, 0], "dst": edges[:, 1]}), tmp_path / "c.parquet")
    recommender = Recommender(tmp_path)
    recommender.build()
    with TestClient(create_app(recommender)) as client:
        question = {"params": {"user_id": "7"}}
        answers = [client.get("/pymk/recommendations", **question) for _ in range(5)]
        assert [each.status_code for each in answers] == [200, 200, 200, 429, 429]
        assert answers[2].headers["x-cache"] == "hit"
        refused = answers[3]
        assert 90 <= int(refused.headers["retry-after"]) <= 100
        assert refused.headers["content-type"] == "application/problem+json"
        assert refused.json()["status"] == 429
        assert len(refused.headers["x-request-id"]) == 32
        assert client.post("/v1/events", json=[]).status_code == 429
        assert client.get("/health/ready").status_code == 200
        counted = 'nextedge_requests_total{route="/pymk/recommendations",status="4xx"'
        assert counted in client.get("/metrics").text
