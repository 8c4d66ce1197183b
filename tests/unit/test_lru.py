"""The cache of a process: how long values stay, which go first, and what is dropped by key."""

from __future__ import annotations

import time

import pytest

from nextedge.serving.caches.lru import Cache


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that the cache reads, to be moved."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_a_value_ends_after_its_seconds(clock: list[float]) -> None:
    cache: Cache[str] = Cache(10, 60.0)
    cache.put("a", "whole time")
    cache.put("b", "less", seconds=5.0)
    cache.put("c", "never more than the cache's", seconds=600.0)
    clock[0] += 5.5
    assert [cache.get(key) for key in "abc"] == ["whole time", None, "never more than the cache's"]
    clock[0] += 55
    assert [cache.get(key) for key in "abc"] == [None, None, None]


def test_the_least_recently_used_goes_first() -> None:
    cache: Cache[int] = Cache(3, 60.0)
    for number, key in enumerate("abc"):
        cache.put(key, number)
    assert cache.get("a") == 0
    cache.put("d", 3)
    assert [cache.get(key) for key in "abcd"] == [0, None, 2, 3]


def test_a_cache_of_no_size_holds_nothing() -> None:
    cache: Cache[int] = Cache(0, 60.0)
    cache.put("a", 1)
    assert cache.get("a") is None


def test_values_are_dropped_by_their_keys() -> None:
    cache: Cache[int] = Cache(10, 60.0)
    for key in ("u1/people", "u1/items", "u2/people"):
        cache.put(key, 1)
    cache.drop(lambda key: str(key).startswith("u1/"))
    assert [cache.get(key) for key in ("u1/people", "u1/items", "u2/people")] == [None, None, 1]
    cache.clear()
    assert cache.get("u2/people") is None
