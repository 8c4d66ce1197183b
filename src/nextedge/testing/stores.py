"""What every store must keep, wherever its values lie.

A store is checked by a test class that derives from ``StoreContract`` and has a fixture ``make``
that opens a store by its namespace::

    class TestMyStore(StoreContract):
        @pytest.fixture
        def make(self):
            return lambda namespace: open_store("mine://host", namespace, timeout_seconds=20)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

from nextedge.errors import ConfigError, InputError
from nextedge.stores.store import Key, Store
from nextedge.testing.checks import assert_raises, in_threads

Make = Callable[[str], Store]
"""Opens a store by its namespace; the same namespace again has the same values, if shared."""
# Patterns of Redis, separators of namespaces, quotes of SQL, and bytes that are no text.
_ODD_KEYS: tuple[Key, ...] = (
    b"",
    b"\x00",
    b"\xff\xff",
    b"*",
    b"[a-z]",
    b"a?",
    b"back\\slash",
    b"{other}:key",
    b"ne:{a}:key",
    b"line\nend\r\n",
    "ü/日本",
    "' OR 1=1 --",
    "percent%20",
)
_SECONDS_TO_END = 30.0
"""How long a check waits for what must happen at some time."""


class StoreContract:
    """One test a promise; ``make`` is a fixture of the class that derives from this one."""

    def test_values_come_back(self, make: Make) -> None:
        with _emptied(make) as store:
            assert store.get_many([]) == []
            assert store.get_many(["a", "b"]) == [None, None]
            store.put_many({})
            store.put_many({"a": b"1", "b": b"", b"\x00c": bytes(range(256))})
            assert store.get_many(["b", "missing", "a", b"\x00c", b"a"]) == [
                b"",
                None,
                b"1",
                bytes(range(256)),
                b"1",
            ]
            store.put_many({"a": b"2"})
            assert store.get_many(["a"]) == [b"2"]
            assert store.delete_many([]) == 0
            assert store.delete_many(["a", "missing", "b"]) == 2
            assert store.get_many(["a", "b"]) == [None, None]
            assert set(store.keys()) == {b"\x00c"}

    def test_any_bytes_are_a_key(self, make: Make) -> None:
        with _emptied(make) as store:
            values = {key: f"value {place}".encode() for place, key in enumerate(_ODD_KEYS)}
            store.put_many(values)
            assert store.get_many(_ODD_KEYS) == list(values.values())
            assert sorted(store.keys()) == sorted(map(_bytes, _ODD_KEYS))
            for key in _ODD_KEYS[1:]:
                found = {each for each in map(_bytes, _ODD_KEYS) if each.startswith(_bytes(key))}
                assert set(store.keys(key)) == found, f"a prefix is text and no pattern: {key!r}"
            assert store.delete_prefix(b"*") == 1
            assert store.delete_prefix(b"[a-z]") == 1
            assert store.delete_prefix(b"\xff") == 1
            assert len(list(store.keys())) == len(_ODD_KEYS) - 3

    def test_a_prefix_selects_its_keys(self, make: Make) -> None:
        with _emptied(make) as store:
            store.put_many({f"{user}/{n}": b"x" for user in ("u1", "u12", "u2") for n in range(30)})
            assert len(list(store.keys("u1/"))) == 30
            assert store.delete_prefix("u1/") == 30
            assert store.delete_prefix("u1/") == 0
            assert len(list(store.keys("u1"))) == 30
            assert len(list(store.keys())) == 60

    def test_a_namespace_has_its_own_keys(self, make: Make) -> None:
        with _emptied(make) as store:
            names = ("a", "ab", "a.b", "A", "a-")
            stores = {name: make(name) for name in names}
            for name, each in stores.items():
                each.delete_prefix()
                each.put_many({"key": name.encode(), ":key": b"colon", "b": b"", "}:key": b"brace"})
            for name, each in stores.items():
                assert each.get_many(["key"]) == [name.encode()]
                assert sorted(each.keys()) == [b":key", b"b", b"key", b"}:key"]
            assert stores["a"].delete_prefix() == 4
            assert not list(stores["a"].keys())
            for name in names[1:]:
                assert len(list(stores[name].keys())) == 4, (
                    f"deleting all of 'a' left {name!r} whole"
                )
            assert not list(store.keys())
            for each in stores.values():
                each.delete_prefix()
                each.close()
            for name in ("", "a}b", "a:b", "a{b", "a*", "ä"):
                assert_raises(ConfigError, lambda name=name: make(name))  # type: ignore[misc]

    def test_values_expire(self, make: Make) -> None:
        with _emptied(make) as store:
            store.put_many({"stays": b"1", "again": b"1"})
            store.put_many({"ends": b"1", "also": b"1"}, seconds=0.05)
            store.put_many({"later": b"1", "again": b"2"}, seconds=3600)
            _wait(lambda: store.get_many(["ends", "also"]) == [None, None])
            assert store.get_many(["stays", "later", "again"]) == [b"1", b"1", b"2"]
            assert sorted(store.keys()) == [b"again", b"later", b"stays"]
            assert store.delete_many(["ends"]) == 0
            store.put_many({"kept": b"1"}, seconds=0.05)
            store.put_many({"kept": b"2"})  # what is put last says how long
            store.put_many({"gone": b"1"}, seconds=0.05)
            _wait(lambda: store.get_many(["gone"]) == [None])
            assert store.get_many(["kept"]) == [b"2"]
            assert store.delete_prefix() == 4
            for seconds in (0.0, -1.0, float("nan")):
                assert_raises(InputError, lambda s=seconds: store.put_many({"x": b""}, s))  # type: ignore[misc]

    def test_large_values_and_many_keys(self, make: Make) -> None:
        with _emptied(make) as store:
            large = bytes(range(256)) * 4096
            store.put_many({"large": large, "small": b"1"})
            assert store.get_many(["small", "large"]) == [b"1", large]
            # More keys than Redis scans or deletes in one command (1,000).
            values: Mapping[Key, bytes] = {f"n{n}": n.to_bytes(4, "big") * 50 for n in range(1500)}
            store.put_many(values, seconds=3600)
            assert store.get_many([*values, "missing"]) == [*values.values(), None]
            assert len(list(store.keys("n"))) == 1500
            assert store.delete_many(list(values)) == 1500
            store.put_many(values)
            assert store.delete_prefix("n") == 1500

    def test_threads_share_a_store(self, make: Make) -> None:
        with _emptied(make) as store:

            def work(number: int) -> None:
                for turn in range(20):
                    own = f"{number}/{turn}".encode()
                    store.put_many({f"own/{number}": own, "common": own * 40}, seconds=3600)
                    mine, common = store.get_many([f"own/{number}", "common"])
                    assert mine == own, "what a thread put is what it gets"
                    assert common is not None
                    assert common == common[: len(common) // 40] * 40, "a value is whole"

            in_threads([partial(work, number) for number in range(8)])
            assert len(list(store.keys("own/"))) == 8

    def test_a_closed_store_connects_anew(self, make: Make) -> None:
        with _emptied(make) as store:
            store.put_many({"a": b"1"})
            store.close()
            assert store.get_many(["a"]) == [b"1" if store.shared else None], "it connects anew"
            store.put_many({"a": b"2"})
            assert store.get_many(["a"]) == [b"2"]

    def test_objects_share_a_namespace(self, make: Make) -> None:
        with _emptied(make) as store:
            other = make("check")
            store.put_many({"a": b"1"})
            assert other.get_many(["a"]) == [b"1" if store.shared else None]
            other.close()


@contextmanager
def _emptied(make: Make) -> Iterator[Store]:
    """A store without keys; a test must be able to empty it, and to close it twice."""
    store = make("check")
    store.delete_prefix()
    yield store
    store.delete_prefix()
    assert not list(store.keys())
    store.close()
    store.close()  # again: no error


def _bytes(key: Key) -> bytes:
    return key.encode() if isinstance(key, str) else key


def _wait(happens: Callable[[], bool]) -> None:
    until = time.monotonic() + _SECONDS_TO_END
    while not happens():
        assert time.monotonic() < until, "it has not happened"
        time.sleep(0.01)
