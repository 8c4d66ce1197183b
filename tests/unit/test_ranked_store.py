"""Two levels of ranked lists: same lists, their age, their users and what is counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nextedge.config import load_config
from nextedge.errors import ConfigError, CorruptValueError, StoreError
from nextedge.serving.caches import shared_lru as ranked_store
from nextedge.serving.caches.lru import Cache
from nextedge.serving.caches.ranked_list import RankedList
from nextedge.serving.caches.shared_lru import (
    TwoLevelCache,
    pack_ranked,
    ranked_cache,
    store_key,
    unpack_ranked,
)
from nextedge.stores.memory import MemoryStore
from nextedge.stores.packing import pack
from nextedge.types import Candidates

KEY = ("r1", "people", "u1", (("context", "web"),))


def ranked(*candidates: int, degraded: tuple[str, ...] = ()) -> RankedList:
    count = len(candidates)
    columns = {
        "score": np.linspace(1, 0, count, dtype=np.float32),
        "rank_two_hop": np.arange(count, dtype=np.int16),
    }
    found = Candidates(np.array([0, count]), np.array(candidates, np.int32), columns)
    return RankedList(found, None, degraded)


def assert_same(one: RankedList | None, other: RankedList) -> None:
    assert one is not None
    assert one.degraded == other.degraded
    assert one.matrix is None
    a, b = one.candidates, other.candidates
    assert list(a.columns) == list(b.columns)
    for left, right in zip(
        (a.indptr, a.candidate, *a.columns.values()),
        (b.indptr, b.candidate, *b.columns.values()),
        strict=True,
    ):
        assert left.dtype == right.dtype
        np.testing.assert_array_equal(left, right)


def caches(size: int = 10, seconds: float = 3600) -> tuple[TwoLevelCache, TwoLevelCache]:
    """Two processes' caches over one store."""
    store = MemoryStore("a")
    return TwoLevelCache(size, seconds, store), TwoLevelCache(size, seconds, store)


@pytest.mark.parametrize("given", [ranked(3, 1, 2), ranked(), ranked(5, degraded=("no_ranker",))])
def test_one_process_finds_what_another_put(given: RankedList) -> None:
    one, other = caches()
    one.put(KEY, given)
    one.flush()
    assert_same(other.get(KEY), given)
    assert_same(other.get(KEY), given)
    assert other.counts()["hits"] == 1, "the second came from its own level"
    assert one.counts() == {**dict.fromkeys(ranked_store.COUNTED, 0), "written": 1}
    one.close()


@pytest.mark.parametrize(
    "other_key",
    [
        ("r2", *KEY[1:]),
        ("r1", "items", *KEY[2:]),
        ("r1", "people", "u", KEY[3]),
        ("r1", "people", "u1", ()),
        ("r1", "people", "u1", (("context", "mobile"),)),
        ("r1", "people", "u1", (("context", "web"),), True),
    ],
)
def test_another_key_has_its_own_list(other_key: tuple[object, ...]) -> None:
    one, other = caches()
    one.put(KEY, ranked(1))
    one.flush()
    assert other.get(other_key) is None
    assert other.counts()["misses"] == 1
    one.close()


def test_users_with_odd_names_are_kept_apart() -> None:
    users = ["a", "a/b", "a%2Fb", "a/", "", "*", "ä", "a\n"]
    one, other = caches(size=100)
    for place, user in enumerate(users):
        one.put(("r1", "people", user, ()), ranked(place))
    one.flush()
    for place, user in enumerate(users):
        assert_same(other.get(("r1", "people", user, ())), ranked(place))
    one.close()


def test_a_full_queue_drops_and_counts() -> None:
    cache = TwoLevelCache(10, 3600, MemoryStore("a"), waiting=2)
    with cache._queue.writing:
        for number in range(6):
            cache.put(("r1", "people", str(number), ()), ranked(number))
    cache.close()
    counts = cache.counts()
    assert (counts["written"], counts["dropped_writes"]) == (2, 4)
    for number in range(6):
        assert cache.get(("r1", "people", str(number), ())) is not None, "its own level has all"


def test_a_list_is_shown_no_longer_than_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = caches(seconds=100)
    made = ranked_store._now()
    for user, age in (("old", 101), ("aged", 60), ("ahead", -50)):
        key = ("r1", "people", user, ())
        packed = pack_ranked(key, made - int(age * 1e6), ranked(1))
        one.store.put_many({store_key(key): packed})
    assert other.get(("r1", "people", "old", ())) is None
    given: dict[object, float | None] = {}
    monkeypatch.setattr(
        Cache, "put", lambda self, key, value, seconds=None: given.update({key: seconds})
    )
    assert other.get(("r1", "people", "aged", ())) is not None
    assert other.get(("r1", "people", "ahead", ())) is not None
    aged, ahead = given.values()
    assert aged is not None and 0 < aged <= 40
    assert ahead == 100


def test_after_closing_its_own_level_answers() -> None:
    one, _ = caches()
    one.put(KEY, ranked(1))
    one.close()
    assert one.counts()["written"] == 1, "what was queued is written"
    assert_same(one.get(KEY), ranked(1))
    one.put(("r1", "people", "u2", ()), ranked(2))
    assert_same(one.get(("r1", "people", "u2", ())), ranked(2))
    assert one.get(("r1", "people", "u3", ())) is None


GOOD = {
    "indptr": np.array([0, 1]),
    "candidate": np.array([3], np.int32),
    "column:score": np.ones(1, np.float32),
}
META = {"key": ranked_store._text(KEY), "made": 1, "degraded": []}


@pytest.mark.parametrize(
    ("arrays", "metadata"),
    [
        (GOOD, {**META, "key": ranked_store._text(("r1", "people", "u2", ()))}),
        (GOOD, {**META, "made": None}),
        (GOOD, {"key": META["key"]}),
        ({}, META),
        ({**GOOD, "indptr": np.array([0, 2])}, META),
        ({**GOOD, "indptr": np.array([0, 0, 1])}, META),
        ({**GOOD, "indptr": np.array([0, 1], np.int32)}, META),
        ({**GOOD, "candidate": np.array([3], np.int64)}, META),
        ({**GOOD, "candidate": np.array(3, np.int32)}, META),
        ({**GOOD, "column:score": np.ones(2, np.float32)}, META),
        ({**GOOD, "column:score": np.ones((1, 1), np.float32)}, META),
        ({"indptr": GOOD["indptr"], "candidate": GOOD["candidate"]}, META),
    ],
)
def test_what_is_no_list_of_this_key_is_corrupt(
    arrays: dict[str, np.ndarray], metadata: dict[str, object]
) -> None:
    assert unpack_ranked(KEY, pack(GOOD, META))[0].candidates.candidate.tolist() == [3]
    with pytest.raises(CorruptValueError):
        unpack_ranked(KEY, pack(arrays, metadata))


class Refusing(MemoryStore):
    """A store that is not reached; without a name, so that nothing discovers it."""

    name = ""

    def get_many(self, keys):  # type: ignore[no-untyped-def]
        raise StoreError("not reached")

    def put_many(self, values, seconds=None):  # type: ignore[no-untyped-def]
        raise StoreError("not reached")


def test_a_store_that_fails_is_told_once_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    cache = TwoLevelCache(0, 3600, Refusing("a"))
    for _ in range(3):
        assert cache.get(KEY) is None
        cache.put(KEY, ranked(1))
        cache.flush()
    counts = cache.counts()
    assert (counts["failed_reads"], counts["failed_writes"]) == (3, 3)
    assert len(caplog.records) == 2, "one of reading and one of writing"
    cache.close()


def test_settings_say_which_cache(tmp_path: Path) -> None:
    file = tmp_path / "nextedge.toml"
    head = 'tenant = "acme"\n[data]\nconnections = "c.csv"\n[serving]\n'
    file.write_text(head)
    assert type(ranked_cache(load_config(file))) is Cache
    file.write_text(head + 'store = "sqlite:///lists.sqlite"\n')
    cache = ranked_cache(load_config(file))
    assert isinstance(cache, TwoLevelCache)
    assert cache.store.namespace == "acme"
    cache.put(KEY, ranked(1))
    cache.close()
    assert (tmp_path / "lists.sqlite").exists()
    file.write_text(head + 'store = "redsi://host"\n')
    with pytest.raises(ConfigError, match="did you mean 'redis'"):
        ranked_cache(load_config(file))


def test_the_password_of_a_store_is_in_no_manifest(tmp_path: Path) -> None:
    file = tmp_path / "nextedge.toml"
    file.write_text('[data]\nconnections = "c.csv"\n[serving]\nstore = "redis://:secret@host"\n')
    config = load_config(file)
    assert config.serving.store == "redis://:secret@host"
    assert "secret" not in str(config.model_dump(mode="json"))
    assert "secret" not in repr(config)
