"""Two servers of one tenant over one Redis log: what one acknowledged, the other never shows."""

from __future__ import annotations

import random
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from redis_server import RedisServer
from servers import Running, small_tenant

DURABLE = ("--appendonly", "yes", "--appendfsync", "always")
PATIENCE = 60.0


class Caller:
    """A client of one server, over one connection."""

    def __init__(self, server: Running) -> None:
        self.server = server
        self.http = httpx2.Client(base_url=server.url, timeout=60)

    def shown(self, user: int) -> tuple[list[int], httpx2.Response]:
        """Who is recommended to a user."""
        response = self.http.get("/pymk/recommendations", params={"user_id": user, "limit": 4})
        assert response.status_code == 200, response.text
        return [each["candidate_id"] for each in response.json()["recommendations"]], response

    def warm(self, user: int) -> list[int]:
        """Who is recommended, once that comes from kept bytes."""
        until = time.monotonic() + PATIENCE
        while True:
            shown, response = self.shown(user)
            if response.headers.get("x-cache") == "hit":
                return shown
            assert time.monotonic() < until

    def record(self, type_: str, user: int, candidate: int | None = None) -> httpx2.Response:
        event = {"type": type_, "user_id": user, "candidate_id": candidate}
        given = {name: value for name, value in event.items() if value is not None}
        return self.http.post("/v1/events", json=given)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_tenant(tmp_path_factory.mktemp("built") / "acme")


@pytest.fixture
def replicas(
    start_redis: Callable[..., RedisServer], built: Path, tmp_path: Path
) -> Iterator[tuple[RedisServer, Caller, Caller]]:
    """A Redis and two servers of one tenant, each with a state folder of its own."""
    redis = start_redis(*DURABLE)
    homes = [tmp_path / "one", tmp_path / "two"]
    settings = f'tenant = "acme"\n[serving]\ndeadline_ms = 0\n[events]\nlog = "{redis.url}"\n'
    for home in homes:
        shutil.copytree(built, home / "acme")
        (home / "acme" / "nextedge.toml").write_text(settings)
    started = [Running(home) for home in homes]
    callers = []
    try:
        for server in started:
            server.wait_until_ready()
            callers.append(Caller(server))
        yield redis, callers[0], callers[1]
    finally:
        for caller in callers:
            caller.http.close()
        for server in started:
            server.stop()


def test_what_one_replica_acknowledged_no_other_shows(
    replicas: tuple[RedisServer, Caller, Caller],
) -> None:
    _, one, other = replicas
    dice, hits = random.Random(0), 0
    gone: set[int] = set()
    for number in range(60):
        posting, asked = (one, other) if number % 2 else (other, one)
        user = dice.choice([each for each in range(40) if each not in gone])
        shown = asked.warm(user)
        assert not gone & set(shown)
        if not shown:
            continue
        candidate = dice.choice(shown)
        what = dice.choice(["block", "blocked", "connect", "dismiss", "opt_out"])
        if what == "opt_out":
            response = posting.record(what, candidate)
            gone.add(candidate)
        elif what == "blocked":
            response = posting.record("block", candidate, user)
        else:
            response = posting.record(what, user, candidate)
        assert response.status_code == 202, response.text
        now, answered = asked.shown(user)
        assert candidate not in now, what
        assert answered.json()["degraded"] == []
        assert candidate not in posting.shown(user)[0]
        hits += 1
    assert hits >= 30, "or this shows nothing"


@pytest.mark.slow
def test_no_request_under_load_shows_who_was_blocked(
    replicas: tuple[RedisServer, Caller, Caller],
) -> None:
    _, one, other = replicas
    hidden: dict[int, set[int]] = {}
    users, faults, asked, stop = range(10), [], [0], threading.Event()

    def ask() -> None:
        caller = Caller(other.server)
        while not stop.is_set():
            for user in users:
                before = set(hidden.get(user, ()))  # acknowledged before this is asked
                shown, _ = caller.shown(user)
                faults.extend((user, each) for each in before & set(shown))
                asked[0] += 1
        caller.http.close()

    for user in users:
        other.warm(user)
    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for number in range(60):
            user = users[number % len(users)]
            shown, _ = one.shown(user)
            if shown:
                assert one.record("block", user, shown[0]).status_code == 202
                hidden[user] = hidden.get(user, set()) | {shown[0]}
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert faults == []
    assert sum(map(len, hidden.values())) >= 30
    assert asked[0] >= 30


@pytest.mark.slow
def test_redis_is_down_and_comes_back(replicas: tuple[RedisServer, Caller, Caller]) -> None:
    redis, one, other = replicas
    shown = {caller: caller.warm(3) for caller in (one, other)}
    assert shown[one] == shown[other]
    redis.kill()
    until = time.monotonic() + PATIENCE
    for caller in (one, other):
        while caller.shown(3)[0]:
            assert time.monotonic() < until, "the lease never ends"
        assert "live_state_unavailable" in caller.shown(3)[1].json()["degraded"]
    refused = one.record("block", 3, shown[one][0])
    assert refused.status_code == 503
    assert int(refused.headers["retry-after"]) > 0
    redis.start()
    for caller in (one, other):
        while caller.shown(3)[0] != shown[one]:
            assert time.monotonic() < until, "what was refused is half stored, or Redis is not used"
            time.sleep(0.05)
    _recorded(one, "block", 3, shown[one][0])
    assert shown[one][0] not in other.shown(3)[0]
    assert other.warm(3) == one.warm(3)


def _recorded(caller: Caller, *event: Any) -> None:
    """Try until it is acknowledged, as a client does."""
    until = time.monotonic() + PATIENCE
    while (response := caller.record(*event)).status_code != 202:
        assert response.status_code == 503
        assert time.monotonic() < until
        time.sleep(0.1)
