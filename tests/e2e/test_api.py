"""Similar items and people, embeddings, and builds that are started over HTTP."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from shared_builds import quick_builds
from starlette.testclient import TestClient

from nextedge import Recommender
from nextedge.api.app import create_app


@pytest.fixture(scope="module")
def folder(tenant: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("api") / "tenant"
    shutil.copytree(tenant, folder)
    return quick_builds(folder)


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[TestClient]:
    with TestClient(create_app(Recommender(folder))) as client:
        yield client


def popular_item(folder: Path, place: int = 0) -> str:
    release = Recommender(folder).release
    order = np.argsort(-release.surface("items").line.scope.candidate_degree, kind="stable")
    return str(release.entities.items.identifiers([int(order[place])])[0].as_py())


def test_similar_items_share_their_users(client: TestClient, folder: Path) -> None:
    item = popular_item(folder)
    found = client.get("/v1/items/similar", params={"id": item, "limit": 10}).json()
    assert [each["rank"] for each in found["similar"]] == list(range(1, 11))
    assert item not in [each["id"] for each in found["similar"]]
    scores = [each["score"] for each in found["similar"]]
    assert scores == sorted(scores, reverse=True)
    release = Recommender(folder).release
    ids, users = release.entities.items, release.snapshot.engaged_by

    def shared(other: str) -> int:
        rows = [users.row(int(ids.positions([each])[0])) for each in (item, other)]
        return len(np.intersect1d(*rows))

    near = np.mean([shared(each["id"]) for each in found["similar"]])
    everyone = ids.values.to_pylist()[::7]
    assert near > np.mean([shared(each) for each in everyone if each != item])


def test_what_is_hidden_is_similar_to_nothing(client: TestClient, folder: Path) -> None:
    item = popular_item(folder, 1)
    before = client.get("/v1/items/similar", params={"id": item}).json()["similar"]
    gone = before[0]["id"]
    client.post("/v1/events", json={"type": "item_unavailable", "item_id": gone})
    after = client.get("/v1/items/similar", params={"id": item}).json()["similar"]
    assert gone not in [each["id"] for each in after]
    assert client.get("/v1/items/similar", params={"id": gone}).status_code == 404
    assert client.get(f"/v1/embeddings/item/{gone}").status_code == 404
    people = client.get("/v1/people/similar", params={"id": "u000011"}).json()["similar"]
    leaving, blocked = people[0]["id"], people[1]["id"]
    client.post(
        "/v1/events",
        json=[
            {"type": "opt_out", "user_id": leaving},
            {"type": "block", "user_id": blocked, "candidate_id": "u000011"},
        ],
    )
    left = client.get("/v1/people/similar", params={"id": "u000011"}).json()["similar"]
    assert not {leaving, blocked} & {each["id"] for each in left}
    assert client.get("/v1/people/similar", params={"id": leaving}).status_code == 404


def test_embeddings_order_as_their_source_does(client: TestClient, folder: Path) -> None:
    item = popular_item(folder)
    found = client.get(f"/v1/embeddings/item/{item}").json()
    assert len(found["embedding"]) == found["dimensions"] > 1
    user = client.get("/v1/embeddings/user/u000003").json()
    assert user["dimensions"] == found["dimensions"]
    assert client.get("/v1/embeddings/user/nobody").status_code == 404
    assert client.get("/v1/embeddings/thing/1").status_code == 422


def test_a_build_is_started_and_told_of(client: TestClient, folder: Path) -> None:
    """Long: it is a build."""
    started = client.post("/v1/training", json={"surfaces": ["items"]})
    assert started.status_code == 202
    training = started.json()["id"]
    for _ in range(600):
        found = client.get(f"/v1/training/{training}").json()
        if found["status"] != "running":
            break
        time.sleep(0.5)
    assert found["status"] == "done", found
    assert found["release"] in [each["id"] for each in client.get("/v1/releases").json()]
    assert client.post("/v1/training", json={"surfaces": ["itms"]}).status_code == 404
    assert client.get("/v1/training/../../etc").status_code == 404
    assert client.get(f"/v1/training/{'0' * 32}").status_code == 422
