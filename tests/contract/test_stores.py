"""Every store that is discovered keeps the contract; none is listed here."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from redis_server import RedisServer, free_port

from nextedge.data.partition import partition_of
from nextedge.errors import ConfigError, MissingDependencyError, StoreError
from nextedge.stores.breaker import CircuitBreaker
from nextedge.stores.memory import MemoryStore
from nextedge.stores.partitioned import PartitionedStore, open_stores
from nextedge.stores.redis import RedisStore
from nextedge.stores.sqlite import SQLiteStore
from nextedge.stores.store import Store, open_store, store_classes
from nextedge.testing.stores import Make, StoreContract

StartRedis = Callable[..., RedisServer]
SCHEMES = {scheme for cls in store_classes().values() for scheme in cls.schemes}


@pytest.fixture
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A URL of the scheme that the test is for."""
    scheme = request.param
    if scheme == "rediss+cluster":
        pytest.skip("a cluster with TLS is not set up here; each of the two is checked alone")
    if scheme == "rediss":
        return encrypted(request.getfixturevalue("start_redis"), tmp_path)
    if scheme == "redis":
        return str(request.getfixturevalue("start_redis")().url)
    if scheme == "redis+cluster":
        server = request.getfixturevalue("start_redis")("--cluster-enabled", "yes")
        server.own_all_slots()
        return f"redis+cluster://127.0.0.1:{server.port}"
    return {"memory": "memory://", "sqlite": f"sqlite:///{tmp_path}/store.sqlite"}[scheme]


def encrypted(start_redis: StartRedis, directory: Path) -> str:
    """URL of a server with TLS and a certificate of its own."""
    key, certificate, port = directory / "key.pem", directory / "certificate.pem", free_port()
    made = subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=test",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
            "-keyout",
            key,
            "-out",
            certificate,
        ],
        capture_output=True,
        check=False,
    )
    if made.returncode:
        pytest.skip("openssl makes no certificate here")
    start_redis(
        "--tls-port",
        str(port),
        "--tls-auth-clients",
        "no",
        "--tls-cert-file",
        str(certificate),
        "--tls-key-file",
        str(key),
        "--tls-ca-cert-file",
        str(certificate),
    )
    return f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={certificate}"


@pytest.mark.parametrize("url", sorted(SCHEMES), indirect=True)
class TestStore(StoreContract):
    """Every store that is discovered, by its scheme."""

    @pytest.fixture
    def make(self, url: str) -> Make:
        return lambda namespace: open_store(url, namespace, timeout_seconds=20)


class TestPartitionedStore(StoreContract):
    @pytest.fixture
    def make(self, tmp_path: Path) -> Make:
        urls = [f"sqlite:///{tmp_path}/store{number}.sqlite" for number in range(3)]
        return lambda namespace: open_stores(urls, namespace, timeout_seconds=20)


def test_each_key_lies_in_the_store_of_its_part(tmp_path: Path) -> None:
    urls = [f"sqlite:///{tmp_path}/store{number}.sqlite" for number in range(3)]
    stores = [open_store(url, "acme", timeout_seconds=20) for url in urls]
    together = PartitionedStore(stores)
    keys = [f"key {number}".encode() for number in range(300)]
    together.put_many(dict.fromkeys(keys, b"1"))
    for place, store in enumerate(stores):
        assert set(store.keys()) == {key for key in keys if partition_of(key, 3) == place}
        assert len(list(store.keys())) > 50
    together.close()


def test_one_of_several_stores_that_fails_takes_only_its_keys(start_redis: StartRedis) -> None:
    servers = [start_redis(), start_redis()]
    store = open_stores([server.url for server in servers], "acme", timeout_seconds=20)
    keys = [f"key {number}" for number in range(40)]
    store.put_many(dict.fromkeys(keys, b"1"))
    servers[1].kill()
    for key in keys:
        if partition_of(key, 2) == 0:
            assert store.get_many([key]) == [b"1"]
        else:
            with pytest.raises(StoreError):
                store.get_many([key])
    store.close()


def test_the_same_store_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="several that differ"):
        open_stores(["redis://a", "redis://a"], "acme")


def test_a_cluster_takes_batches_of_a_tenant_as_one_command(start_redis: StartRedis) -> None:
    server = start_redis("--cluster-enabled", "yes")
    server.own_all_slots()
    with server.client() as client:
        store = RedisStore(server.url.removesuffix("/0"), "acme", 20)
        store.put_many({f"user{{{n}}}": b"1" for n in range(100)})
        assert store.get_many([f"user{{{n}}}" for n in range(100)]) == [b"1"] * 100
        assert store.delete_prefix("user") == 100
        slots = {client.execute_command("CLUSTER", "KEYSLOT", store._full(k)) for k in "abc"}
        assert len(slots) == 1
        store.close()


def test_urls_that_name_no_store_are_refused() -> None:
    for url, said in (
        ("reddis://host", "did you mean 'redis'"),
        ("host:6379", "no scheme"),
        ("sqlite://", "sqlite:///path"),
        ("sqlite://host/file", "sqlite:///path"),
        ("redis://host:port/0", "Port could not be cast"),
    ):
        with pytest.raises(ConfigError, match=said):
            open_store(url, "a").get_many(["a"])


def test_no_error_tells_the_password(start_redis: StartRedis) -> None:
    server = start_redis("--requirepass", "right")
    for login in (":wr0ngsecret", "some:wr0ngsecret"):
        store = open_store(server.url.replace("//", f"//{login}@"), "a", timeout_seconds=20)
        with pytest.raises(StoreError) as raised:
            store.put_many({"key": b"value"})
        assert "wr0ngsecret" not in str(raised.value)
        store.close()
    right = open_store(server.url.replace("//", "//:right@"), "a", timeout_seconds=20)
    right.put_many({"key": b"value"})
    assert right.get_many(["key"]) == [b"value"]
    right.close()


def test_stores_load_redis_only_when_asked_for() -> None:
    loads = "import sys, nextedge, nextedge.stores.redis; sys.exit('redis' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", loads], check=False).returncode == 0


def test_without_the_package_its_install_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'nextedge\[redis\]'") as raised:
        open_store("redis://:secret@host", "a")
    assert "secret" not in str(raised.value)


def test_memory_lets_the_least_recently_used_go() -> None:
    store = MemoryStore("a", most_bytes=10 * (len(b"ne:{a}:k0") + 100))
    store.put_many({f"k{n}": bytes(100) for n in range(10)})
    store.get_many(["k0"])
    store.put_many({"kx": bytes(100), "ky": bytes(100)})
    assert store.get_many(["k0", "k1", "k2", "k3"]) == [bytes(100), None, None, bytes(100)]
    assert len(list(store.keys())) == 10
    with pytest.raises(StoreError, match="does not fit"):
        store.put_many({"k0": b"new", "large": bytes(2000)})
    assert store.get_many(["k0"]) == [bytes(100)]


def test_sqlite_keeps_values_over_restarts_and_purges_what_ended(tmp_path: Path) -> None:
    store = open_store("sqlite:///kept.sqlite", "a", base=tmp_path)
    store.put_many({"stays": b"1"})
    store.put_many({f"ends{n}": b"1" for n in range(5)}, seconds=1e-6)
    store.close()
    again = SQLiteStore(tmp_path / "kept.sqlite", "a")
    assert again.get_many(["stays", "ends1"]) == [b"1", None]
    assert again.purge() == 5
    again.close()
    with sqlite3.connect(tmp_path / "kept.sqlite") as connection:
        assert connection.execute("SELECT count(*) FROM entries").fetchone() == (1,)
    connection.close()


def test_sqlite_faults_are_store_errors(tmp_path: Path) -> None:
    missing = SQLiteStore(tmp_path / "no-such-folder" / "x.sqlite", "a")
    with pytest.raises(StoreError, match="unable to open"):
        missing.get_many(["a"])
    (tmp_path / "other").write_bytes(b"no database" * 1000)
    with pytest.raises(StoreError, match="not a database"):
        SQLiteStore(tmp_path / "other", "a").put_many({"a": b"1"})
    store = SQLiteStore(tmp_path / "store.sqlite", "a", timeout_seconds=0.01)
    store.put_many({"a": b"1"})
    with sqlite3.connect(tmp_path / "store.sqlite", isolation_level=None) as writer:
        writer.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="locked"):
            store.put_many({"a": b"2"})
        assert store.get_many(["a"]) == [b"1"], "a writer does not stop readers"
        writer.execute("ROLLBACK")
    writer.close()
    store._connection().execute("PRAGMA max_page_count = 20")
    with pytest.raises(StoreError, match="full"):
        store.put_many({"b": bytes(1 << 20), "c": b"small"})
    assert store.get_many(["a", "b", "c"]) == [b"1", None, None], "all or none"
    store.close()


def failing(store: Store, times: int) -> None:
    for _ in range(times):
        with pytest.raises(StoreError, match="not reached"):
            store.get_many(["a"])


def test_redis_is_left_alone_after_failures_in_a_row(start_redis: StartRedis) -> None:
    server = start_redis()
    store = RedisStore(server.url, "a", 0.05)
    now = [0.0]
    store.breaker = CircuitBreaker(failures=3, seconds=10, clock=lambda: now[0])
    store.put_many({"a": b"1"})
    server.stall()
    failing(store, 3)
    assert store.breaker.state == "open"
    server.go_on()
    with pytest.raises(StoreError, match="left alone"):
        store.get_many(["a"])
    now[0] = 11
    assert store.breaker.state == "half-open"
    store.breaker.failures = 3
    server.stall()
    failing(store, 1)  # one tries, and fails
    with pytest.raises(StoreError, match="left alone"):
        store.get_many(["a"])
    assert store.breaker.opened == 1
    server.go_on()
    with server.client() as client:
        client.ping()
    now[0] = 22
    assert store.get_many(["a"]) == [b"1"], "no answer is taken for another's"
    assert store.breaker.state == "closed"
    store.close()


def test_a_lost_connection_is_made_anew_once(start_redis: StartRedis) -> None:
    server = start_redis()
    store = RedisStore(server.url, "a", 20)
    store.put_many({"a": b"1"})
    server.kill()
    server.start()
    assert store.get_many(["a"]) == [None]
    server.kill()
    failing(store, 1)
    server.start()
    store.put_many({"a": b"2"})
    assert store.get_many(["a"]) == [b"2"]
    store.close()


def test_a_full_redis_is_said_and_can_be_read(start_redis: StartRedis) -> None:
    server = start_redis("--maxmemory", "2mb", "--maxmemory-policy", "noeviction")
    store = RedisStore(server.url, "a", 20)
    store.put_many({"a": b"1"})
    with pytest.raises(StoreError, match="full"):
        store.put_many({f"large{n}": bytes(100_000) for n in range(100)})
    assert store.get_many(["a"]) == [b"1"]
    assert store.breaker.state == "closed", "it answers"
    store.delete_prefix("large")
    store.put_many({"a": b"2"})
    store.close()


def test_a_value_of_another_kind_is_none(start_redis: StartRedis) -> None:
    server = start_redis()
    store = RedisStore(server.url, "a", 20)
    with server.client() as client:
        client.lpush(store._full("a"), "x")
    assert store.get_many(["a"]) == [None]
    store.close()


def test_one_thread_tries_while_the_others_are_refused() -> None:
    now = [0.0]
    breaker = CircuitBreaker(failures=2, seconds=5, clock=lambda: now[0])
    breaker.failed()
    breaker.succeeded()
    breaker.failed()
    assert breaker.state == "closed", "only failures in a row count"
    breaker.failed()
    assert not breaker.allows()
    now[0] = 6
    allowed: list[bool] = []
    threads = [threading.Thread(target=lambda: allowed.append(breaker.allows())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(allowed) == 1
    breaker.succeeded()
    assert breaker.allows()
