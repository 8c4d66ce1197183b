"""Ranked lists in Redis: whatever becomes of Redis, the same lists are answered."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis_server import RedisServer

from nextedge import Recommender
from nextedge.config import load_config
from nextedge.serving.caches.shared_lru import COUNTED, TwoLevelCache
from nextedge.stores.packing import pack
from nextedge.stores.redis import RedisStore

StartRedis = Callable[..., RedisServer]
Lists = dict[tuple[str, str], list[tuple[object, int]]]
Replica = tuple[Recommender, TwoLevelCache]
USERS = ("u000007", "u000011", "u000100", "u000333", "a stranger")
ASKED = len(USERS) * 2


def lists(recommender: Recommender) -> Lists:
    return {
        (user, surface): [
            (each.id, each.rank) for each in recommender.recommend(user, surface).recommendations
        ]
        for user in USERS
        for surface in ("people", "items")
    }


@pytest.fixture(scope="module")
def expected(tenant: Path) -> Lists:
    """What a recommender without any cache answers."""
    found = lists(Recommender(tenant))
    assert all(len(each) == 20 for each in found.values())
    return found


@pytest.fixture
def serve(own_tenant: Path) -> Iterator[Callable[..., Replica]]:
    """Starts a process' worth of serving over a Redis; 0 entries: every request reads it."""
    serving: list[Recommender] = []

    def start(server: RedisServer, entries: int = 0, timeout_ms: float = 2000) -> Replica:
        config = load_config(own_tenant)
        settings = config.serving.model_copy(
            update={
                "store": server.url,
                "store_timeout_ms": timeout_ms,
                "cache_entries": entries,
                "log_requests": False,
            }
        )
        recommender = Recommender(config.model_copy(update={"serving": settings}))
        recommender.start_serving()
        serving.append(recommender)
        cache = recommender.session.cache
        assert isinstance(cache, TwoLevelCache)
        assert isinstance(cache.store, RedisStore)
        cache.store.breaker.seconds = 0.05
        return recommender, cache

    yield start
    for each in serving:
        each.close()


def counted(cache: TwoLevelCache, **expected: int) -> bool:
    return dict(cache.counts()) == {**dict.fromkeys(COUNTED, 0), **expected}


def recovers(cache: TwoLevelCache, recommender: Recommender, expected: Lists) -> None:
    """Soon all lists are written to Redis, and read from there."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        before = cache.counts()["hits"]
        assert lists(recommender) == expected
        if cache.counts()["hits"] == before + ASKED:
            assert isinstance(cache.store, RedisStore)
            assert cache.store.breaker.state == "closed"
            return
        cache.flush()
    raise AssertionError("Redis is back, and not used")


def test_processes_share_their_lists(
    start_redis: StartRedis, serve: Callable[..., Replica], expected: Lists
) -> None:
    server = start_redis()
    (one, first), (other, second) = serve(server), serve(server, entries=100)
    assert lists(one) == expected
    first.flush()
    assert counted(first, misses=ASKED, written=ASKED)
    assert lists(other) == lists(other) == expected
    assert counted(second, hits=ASKED), "each read once, then kept"
    answer = other.recommend(USERS[0], "people")
    assert answer.cached
    assert other.recommend(USERS[0], "people", filters={"school": "none"}).cached is False
    with server.client() as client:
        names = client.keys("*:ranked/*")
        assert len(names) == ASKED
        assert all(name.startswith(b"ne:{default}:ranked/") for name in names)
        assert all(other.release.id.encode() in name for name in names)
        assert all(0 < client.ttl(name) <= 3600 for name in names)


def test_what_is_blocked_is_not_shown_from_redis(
    start_redis: StartRedis, serve: Callable[..., Replica], tenant: Path
) -> None:
    server = start_redis()
    (one, first), (other, _) = serve(server), serve(server)
    user = "u000200"
    shown = [each.id for each in one.recommend(user, "people").recommendations]
    first.flush()
    one.record({"type": "dismiss", "user_id": user, "surface": "people", "candidate_id": shown[0]})
    answer = other.recommend(user, "people")
    assert answer.cached
    assert shown[0] not in [each.id for each in answer.recommendations]
    assert len(answer.recommendations) == 20


def test_redis_is_killed_and_comes_back(
    start_redis: StartRedis, serve: Callable[..., Replica], expected: Lists
) -> None:
    server = start_redis()
    recommender, cache = serve(server)
    assert lists(recommender) == expected
    cache.flush()
    server.kill()
    assert lists(recommender) == expected
    cache.flush()
    counts = cache.counts()
    assert counts["failed_reads"] == ASKED
    assert counts["failed_writes"] == ASKED
    assert isinstance(cache.store, RedisStore)
    assert cache.store.breaker.opened == 1
    server.start()
    recovers(cache, recommender, expected)


@pytest.mark.slow
def test_a_server_starts_before_its_redis(
    start_redis: StartRedis, serve: Callable[..., Replica], expected: Lists
) -> None:
    server = start_redis()
    server.kill()
    recommender, cache = serve(server)
    assert lists(recommender) == expected
    server.start()
    recovers(cache, recommender, expected)


@pytest.mark.slow
def test_redis_is_full(
    start_redis: StartRedis, serve: Callable[..., Replica], expected: Lists
) -> None:
    server = start_redis("--maxmemory", "1", "--maxmemory-policy", "noeviction")
    recommender, cache = serve(server)
    assert lists(recommender) == expected
    cache.flush()
    assert counted(cache, misses=ASKED, failed_writes=ASKED)
    with server.client() as client:
        client.config_set("maxmemory", 0)
    recovers(cache, recommender, expected)


@pytest.mark.parametrize("how", ["stalled", "paused"])
@pytest.mark.slow
def test_redis_is_slow(
    how: str, start_redis: StartRedis, serve: Callable[..., Replica], expected: Lists
) -> None:
    server = start_redis()
    recommender, cache = serve(server, timeout_ms=100)
    assert isinstance(cache.store, RedisStore)
    breaker = cache.store.breaker
    breaker.seconds = 3600
    if how == "stalled":
        server.stall()
    else:
        with server.client() as client:
            client.client_pause(3000)  # it hears no word to end the pause either
    assert lists(recommender) == expected
    assert cache.counts()["failed_reads"] == ASKED
    assert breaker.state == "open", "after five in a row it is not asked any more"
    if how == "stalled":
        server.go_on()
    breaker.seconds = 0.05
    breaker.failed()  # from now on it tries again soon
    recovers(cache, recommender, expected)


def test_values_are_damaged(
    start_redis: StartRedis, serve: Callable[..., Replica], expected: Lists
) -> None:
    server = start_redis()
    recommender, cache = serve(server)
    lists(recommender)
    cache.flush()
    with server.client() as client:
        names = sorted(client.keys())
        values = client.mget(names)
        for place, (name, value) in enumerate(zip(names, values, strict=True)):
            flipped = bytearray(value)
            flipped[len(value) * place // len(names)] ^= 1 << place % 8
            damaged = [
                bytes(flipped),
                value[: len(value) // 2],
                b"",
                b"noise" * 20,
                values[place - 1],
                pack({}, {}),
                value + b"\0",
                value[:-1],
            ]
            client.set(name, damaged[place % len(damaged)])
    assert lists(recommender) == expected
    cache.flush()
    assert cache.counts()["corrupt"] == ASKED
    assert lists(recommender) == expected
    assert cache.counts()["hits"] == ASKED, "what was damaged is written anew"
