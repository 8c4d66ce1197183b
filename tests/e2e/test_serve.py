"""The service as it runs: a process of its own, one worker and several."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
from shared_builds import quick_builds

from nextedge import Recommender


@dataclass
class Service:
    process: subprocess.Popen[bytes]
    client: httpx2.Client
    directory: Path
    log: Path

    def people(self, user: str) -> httpx2.Response:
        return self.client.get("/pymk/recommendations", params={"user_id": user, "limit": 10})


@pytest.fixture(
    scope="module",
    params=[pytest.param(1, marks=pytest.mark.slow), 2],
    ids=["one_worker", "two_workers"],
)
def service(
    request: pytest.FixtureRequest, tenant: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    directory = tmp_path_factory.mktemp("served") / "tenant"
    shutil.copytree(tenant, directory)
    quick_builds(directory)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "nextedge", "serve", str(directory), "--port", str(port)]
    log = directory.parent / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--workers", str(request.param)], stdout=output, stderr=output
        )
    with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
        running = Service(process, client, directory, log)
        try:
            wait_until_ready(running)
            yield running
        finally:
            process.kill()
            process.wait()


def wait_until_ready(service: Service) -> None:
    for _ in range(300):
        assert service.process.poll() is None, service.log.read_text()
        try:
            if service.client.get("/health/ready").status_code == 200:
                return
        except httpx2.TransportError:
            time.sleep(0.2)
    pytest.fail(f"not ready after a minute: {service.log.read_text()}")


def some_user(service: Service, place: int) -> str:
    users = Recommender(service.directory).release.entities.users
    return str(users.identifiers([place])[0].as_py())


def test_every_door_answers(service: Service) -> None:
    user = some_user(service, 20)
    found = service.people(user).json()
    assert [r["rank"] for r in found["recommendations"]] == list(range(1, 11))
    again = service.client.get("/v1/people/recommendations", params={"user_id": user, "limit": 10})
    same = [r["candidate_id"] for r in again.json()["recommendations"]]
    assert same == [r["candidate_id"] for r in found["recommendations"]]
    body = {"tenant_id": "default", "user_id": user, "count": 3, "surface": "items"}
    items = service.client.post("/internal/ml/recommendations", json=body).json()
    assert len(items["recommendations"]) == 3
    assert service.client.get("/health/live").json() == {"status": "live"}
    stranger = service.people("nobody-knows")
    assert (stranger.status_code, len(stranger.json()["recommendations"])) == (200, 10)


@pytest.mark.parametrize(
    ("method", "path", "given", "status"),
    [
        ("GET", "/pymk/recommendations", {}, 422),
        ("GET", "/pymk/recommendations?user_id=1&limit=100000", {}, 422),
        ("GET", "/v1/pepole/recommendations?user_id=1", {}, 404),
        ("POST", "/internal/ml/recommendations", {"content": b"{not json"}, 422),
        ("POST", "/v1/events", {"json": [{"type": "dismis", "user_id": "1"}]}, 422),
        ("POST", "/v1/releases/no-such/promote", {}, 404),
    ],
)
def test_bad_requests_are_said(
    service: Service, method: str, path: str, given: dict[str, object], status: int
) -> None:
    answer = service.client.request(method, path, **given)  # type: ignore[arg-type]
    assert answer.status_code == status, answer.text
    assert "Traceback" not in answer.text
    assert answer.json()["title"]


def test_an_event_holds_in_every_worker(service: Service) -> None:
    user = some_user(service, 33)
    shown = [r["candidate_id"] for r in service.people(user).json()["recommendations"]]
    event = {"type": "dismiss", "user_id": user, "candidate_id": shown[0]}
    assert service.client.post("/v1/events", json=[event]).status_code == 202
    for _ in range(24):  # a fresh connection each time meets every worker
        answer = httpx2.get(
            f"{service.client.base_url}/pymk/recommendations",
            params={"user_id": user, "limit": 10},
            timeout=60,
        )
        assert shown[0] not in [r["candidate_id"] for r in answer.json()["recommendations"]]


def test_promotion_and_rollback_under_traffic_fail_no_request(service: Service) -> None:
    """Long: a second release is built, while a server of two workers runs."""
    user, recommender = some_user(service, 40), Recommender(service.directory)
    first, second = recommender.release.id, recommender.build(promote=False)
    assert second != first
    seen: list[tuple[int, str]] = []
    stop = threading.Event()

    def traffic() -> None:
        with httpx2.Client(base_url=service.client.base_url, timeout=60) as client:
            while not stop.is_set():
                answer = client.get("/pymk/recommendations", params={"user_id": user})
                seen.append((answer.status_code, answer.json().get("release", "")))

    clients = [threading.Thread(target=traffic) for _ in range(2)]
    for client in clients:
        client.start()
    try:
        served_everywhere(seen, first)
        recommender.releases.promote(second)
        served_everywhere(seen, second)
        assert service.client.post("/v1/releases/rollback").json() == {"release": first}
        served_everywhere(seen, first)
    finally:
        stop.set()
        for client in clients:
            client.join()
    assert {status for status, _ in seen} == {200}
    assert {release for _, release in seen} == {first, second}


def served_everywhere(seen: list[tuple[int, str]], release: str) -> None:
    """Wait until the answers of every client come from a release."""
    for _ in range(300):
        time.sleep(0.1)
        latest = seen[-12:]
        if len(latest) == 12 and all(found == release for _, found in latest):
            return
    pytest.fail(f"{release} is not served everywhere: {seen[-12:]}")


def test_a_stop_is_clean(service: Service) -> None:
    """Runs last: the service ends by itself, with nothing but its own words in the log."""
    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(timeout=30) == 0
    assert "Traceback" not in service.log.read_text()
    with pytest.raises(httpx2.TransportError):
        service.client.get("/health/live")
    assert not [name for name in os.listdir(service.directory / "state") if name.endswith(".tmp")]
