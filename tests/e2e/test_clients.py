"""The clients, against a started service."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from servers import Running, small_tenant

from nextedge import Event
from nextedge.api.keys import ApiKeys
from nextedge.api.models import ContactsIn, InternalRequest, TrainingRequest
from nextedge.client import ApiError, AsyncClient, Call, Client, ConnectionLostError, _Calls

HOME = Path(__file__).parents[2]
TYPESCRIPT = HOME / "clients" / "typescript"
NOT_CALLED = {"/pymk/recommendations", "/health/live", "/metrics"}
"""Another name of a route, and what programs of operators ask."""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Running, dict[str, str]]]:
    home = tmp_path_factory.mktemp("clients") / "tenants"
    home.mkdir()
    small_tenant(home / "free")
    small_tenant(home / "bounded", "[serving]\nrequests_per_second = 1.5\nburst = 2\n")
    keys = {each.name: ApiKeys(each / "state").create(("admin",))[1] for each in home.iterdir()}
    running = Running(home)
    try:
        running.wait_until_ready()
        yield running, keys
    finally:
        running.stop()


@pytest.fixture
def client(service: tuple[Running, dict[str, str]]) -> Iterator[Client]:
    running, keys = service
    with Client(running.url, keys["free"]) as client:
        yield client


def test_answers_are_typed_and_events_hold(client: Client) -> None:
    assert client.ready().status == "ready"
    before = client.recommendations(7, limit=5)
    assert [each.rank for each in before.recommendations] == [1, 2, 3, 4, 5]
    gone = before.recommendations[0].candidate_id
    raw = {"type": "dismiss", "user_id": 7, "candidate_id": gone}
    assert client.record(raw).accepted == 1
    event = Event(type="dismiss", user_id=7, candidate_id=before.recommendations[1].candidate_id)
    assert [client.record([event]).repeated for _ in range(2)] == [0, 1]
    after = [each.candidate_id for each in client.recommendations(7, limit=5).recommendations]
    assert not {gone, event.candidate_id} & set(after)
    asked = InternalRequest(tenant_id="free", user_id=7, count=3, surface="people")
    assert len(client.internal(asked).recommendations) == 3
    assert client.similar(7, "people", limit=2).similar[1].rank == 2
    assert [each.served for each in client.releases()] == [True]
    assert client.promote(client.releases()[0].id).release == before.release
    assert client.recommendations(7, explain=True).recommendations


def test_the_async_client_gives_the_same(service: tuple[Running, dict[str, str]]) -> None:
    running, keys = service

    async def ask() -> list[list[Any]]:
        async with AsyncClient(running.url, keys["free"]) as client:
            found = await asyncio.gather(*(client.recommendations(user) for user in range(8)))
            with pytest.raises(ApiError, match="no surface"):
                await client.recommendations(1, "pepole")
        return [[each.candidate_id for each in one.recommendations] for one in found]

    with Client(running.url, keys["free"]) as client:
        expected = [
            [each.candidate_id for each in client.recommendations(user).recommendations]
            for user in range(8)
        ]
    assert asyncio.run(ask()) == expected


def test_refusals_are_exceptions_that_say_why(service: tuple[Running, dict[str, str]]) -> None:
    running, keys = service
    with Client(running.url, keys["free"]) as client, pytest.raises(ApiError) as raised:
        client.recommendations("a/b?c", "pepole/…")
    error = raised.value
    assert (error.status, error.title) == (404, "Not Found")
    with Client(running.url, keys["free"]) as client, pytest.raises(ApiError) as raised:
        client.recommendations("a/b?c", "pepole")
    error = raised.value
    assert (error.status, error.title) == (404, "UnknownSurface")
    assert "did you mean 'people'" in error.detail
    assert error.request_id is not None
    with Client(running.url, "wrong") as client, pytest.raises(ApiError, match="401 Unauthorized"):
        client.releases()


def test_what_is_bounded_is_tried_again_when_the_service_says(
    service: tuple[Running, dict[str, str]],
) -> None:
    running, keys = service
    with Client(running.url, keys["bounded"]) as client:
        assert [client.recommendations(7).user_id for _ in range(4)] == ["7"] * 4
    with Client(running.url, keys["bounded"], retries=0) as client:
        with pytest.raises(ApiError) as raised:
            [client.recommendations(7) for _ in range(4)]
    assert raised.value.status == 429


def test_an_absent_service_is_said() -> None:
    with Client("http://127.0.0.1:9", retries=1, backoff_seconds=0.001) as client:
        with pytest.raises(ConnectionLostError, match="GET /v1/releases"):
            client.releases()


def test_every_route_has_a_method() -> None:
    document = json.loads((HOME / "clients" / "openapi.json").read_text())
    given: dict[str, tuple[Any, ...]] = {
        "recommendations": ("u",),
        "similar": ("u", "s"),
        "embedding": ("user", "u"),
        "internal": (InternalRequest(tenant_id="t", user_id=1),),
        "record": ({},),
        "promote": ("r",),
        "train": (TrainingRequest(),),
        "training": ("t",),
        "put_contacts": ("u", ContactsIn()),
        "delete_contacts": ("u",),
        "forget": ("u",),
    }
    names = [name for name in vars(_Calls) if not name.startswith("_")]
    calls: list[Call[Any]] = [
        getattr(_Calls, name).make(None, *given.get(name, ())) for name in names
    ]
    found = set()
    for call in calls:
        for path, methods in document["paths"].items():
            pattern = re.sub(r"\\{\w+\\}", "[^/]+", re.escape(path))
            if call.method.lower() in methods and re.fullmatch(pattern, call.path):
                found.add(path)
    assert found == set(document["paths"]) - NOT_CALLED


def test_the_client_loads_no_engine() -> None:
    code = (
        "import sys, nextedge.client; "
        "heavy = {'numba', 'lightgbm', 'fastapi', 'duckdb', 'httpx2'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_document_is_what_the_service_says() -> None:
    spec = importlib.util.spec_from_file_location("document", HOME / "clients" / "document.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    kept = (HOME / "clients" / "openapi.json").read_text(encoding="utf-8")
    assert kept == module.document(), "run: python clients/document.py"


@pytest.fixture(scope="module")
def node() -> None:
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    if not (TYPESCRIPT / "node_modules").is_dir():
        pytest.skip("the TypeScript client's packages are not here: run npm ci in its folder")


def npx(*command: str) -> None:
    done = subprocess.run(["npx", *command], cwd=TYPESCRIPT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def schema(node: None) -> str:
    """The types of the document, which are generated and not committed."""
    done = subprocess.run(
        ["npm", "run", "generate"], cwd=TYPESCRIPT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return (TYPESCRIPT / "src" / "schema.ts").read_text()


def test_typescript_types_are_those_of_the_document(schema: str) -> None:
    document = json.loads((HOME / "clients" / "openapi.json").read_text(encoding="utf-8"))
    for path in document["paths"]:
        assert f'"{path}": {{' in schema
    for name in document["components"]["schemas"]:
        assert re.search(rf"^ +{name}: ", schema, re.MULTILINE), name


ASK = """
import { nextedge } from "./index.js";
const [url, apiKey] = process.argv.slice(2);
const client = nextedge({ url, apiKey });
const params = { path: { surface: "people" }, query: { user_id: "7", limit: 3 } };
const { data } = await client.GET("/v1/{surface}/recommendations", { params });
const refused = await nextedge({ url, apiKey: "wrong" }).GET("/v1/releases");
const event = { type: "dismiss", user_id: 7, candidate_id: 9 };
const recorded = await client.POST("/v1/events", { body: event });
console.log(JSON.stringify([data.recommendations.length, refused.error.status, recorded.data.accepted]));
"""


@pytest.mark.usefixtures("schema")
def test_typescript_asks_a_service(service: tuple[Running, dict[str, str]]) -> None:
    running, keys = service
    built = TYPESCRIPT / "node_modules" / ".built"
    npx("tsc", "--outDir", str(built))
    (built / "package.json").write_text('{"type": "module"}')
    (built / "ask.js").write_text(ASK)
    command = ["node", str(built / "ask.js"), running.url, keys["free"]]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [3, 401, 1]
