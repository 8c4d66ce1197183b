"""The Redis log under faults: replicas that stop, servers that die, what is erased."""

from __future__ import annotations

import json
import logging
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis_server import RedisServer

from nextedge.config import parse_config
from nextedge.errors import ConfigError, LiveStateError, StorageError
from nextedge.events.event import Event
from nextedge.events.logs.log import open_live_log
from nextedge.events.logs.redis import consumer as redis_consumer
from nextedge.events.logs.redis.log import RedisLog
from nextedge.events.logs.redis.stream import numbers
from nextedge.recommender import Recommender

StartRedis = Callable[..., RedisServer]
DURABLE = ("--appendonly", "yes", "--appendfsync", "always")
PATIENCE = 60.0


def event(name: object, **more: Any) -> Event:
    return Event(type="interact", user_id="a", item_id="x", event_id=str(name), **more)


class Replica:
    """A process that follows the log."""

    def __init__(self, url: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("replica.py")), url, "acme"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def send(self, command: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(command + "\n")

    def answer(self) -> Any:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def changes(self) -> tuple[str, bool]:
        self.send("changes")
        changes, fresh = self.answer()
        return changes, fresh

    def wait_until(self, fresh: bool) -> None:
        until = time.monotonic() + PATIENCE
        while (found := self.changes())[1] != fresh or (not fresh and found[0] != "?"):
            assert time.monotonic() < until
            time.sleep(0.01)

    def close(self) -> None:
        """End it in good order."""
        self.process.send_signal(signal.SIGCONT)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        assert self.process.wait(PATIENCE) == 0
        self.process.stdout.close()


@pytest.fixture
def replicate() -> Iterator[Callable[[RedisServer], Replica]]:
    started: list[Replica] = []

    def start(server: RedisServer) -> Replica:
        started.append(Replica(server.url))
        started[-1].wait_until(fresh=True)
        return started[-1]

    yield start
    for replica in started:
        if replica.process.poll() is None:
            replica.process.kill()
        replica.process.wait()
        for pipe in (replica.process.stdin, replica.process.stdout):
            if pipe is not None:
                pipe.close()


@pytest.fixture
def open_log() -> Iterator[Callable[[RedisServer], RedisLog]]:
    opened: list[RedisLog] = []

    def start(server: RedisServer) -> RedisLog:
        opened.append(RedisLog(server.url, "acme", 1_000_000))
        return opened[-1]

    yield start
    for log in opened:
        log.close()


@pytest.mark.slow
def test_what_was_acknowledged_is_seen_by_every_replica_at_once(
    start_redis: StartRedis, open_log: Any, replicate: Any
) -> None:
    server = start_redis(*DURABLE)
    log, replicas = open_log(server), [replicate(server), replicate(server)]
    seen = [replica.changes()[0] for replica in replicas]
    from_memory = 0
    for number in range(1500):
        if number % 3:
            log.append([event(number)])
        else:
            replicas[0].send(f"append {number}")
            assert replicas[0].answer() == 1
        for row, replica in enumerate(replicas):
            changes, fresh = replica.changes()
            assert changes not in ("?", seen[row]), number
            seen[row] = changes
            from_memory += fresh
    assert seen[0] == seen[1]
    assert from_memory > 1500, "most are answered without Redis, or this shows nothing"
    for replica in replicas:
        replica.close()
    with server.client() as client:
        assert client.hgetall("ne:{acme}:events:replicas") == {}, "who leaves is not waited for"


@pytest.mark.slow
def test_a_stopped_replica_does_not_answer_by_what_it_knew(
    start_redis: StartRedis, open_log: Any, replicate: Any
) -> None:
    server = start_redis()
    log, replica, other = open_log(server), replicate(server), replicate(server)
    dice = random.Random(0)
    for number in range(8):
        before, _ = replica.changes()
        seen, _ = other.changes()
        replica.process.send_signal(signal.SIGSTOP)
        replica.send("changes")  # what it does first when it goes on
        time.sleep(dice.random())
        log.append([event(number)])
        assert other.changes()[0] != seen
        replica.process.send_signal(signal.SIGCONT)
        assert replica.answer()[0] != before
        replica.wait_until(fresh=True)


def test_a_dead_replica_is_waited_for_once(
    start_redis: StartRedis, open_log: Any, replicate: Any
) -> None:
    server = start_redis()
    log, replica = open_log(server), replicate(server)
    with server.client() as client:
        assert client.hlen("ne:{acme}:events:replicas") == 1
        replica.process.kill()
        assert log.append([event(0)]) == 1
        assert client.hlen("ne:{acme}:events:replicas") == 0


def test_a_slow_replica_stays_registered(start_redis: StartRedis, open_log: Any) -> None:
    """One that renews, and does not confirm in time, holds a lease that later appends wait for."""
    server = start_redis()
    log, slow = open_log(server), open_log(server)
    log.append([event("first")])
    state = slow._ask().state
    slow._stream.renew("slow", 1, state)
    slow._stream.renew("dead", 1, state)
    appending = threading.Thread(target=log.append, args=([event("second")],))
    appending.start()
    while slow._ask().state == state:
        time.sleep(0.001)
    slow._stream.renew("slow", 2, state)
    appending.join()
    with server.client() as client:
        assert client.hkeys("ne:{acme}:events:replicas") == [b"slow"]


def test_redis_dies_and_comes_back(start_redis: StartRedis, open_log: Any, replicate: Any) -> None:
    server = start_redis(*DURABLE)
    log, replica = open_log(server), replicate(server)
    log.append([event("before")])
    before, _ = replica.changes()
    server.kill()
    replica.wait_until(fresh=False)
    for read in (log.changes, log.generation, log.last_position, lambda: list(log.read())):
        with pytest.raises(LiveStateError, match=r"events\.log: .* cannot be read"):
            read()
    with pytest.raises(StorageError):
        log.append([event("lost")])
    with pytest.raises(StorageError), log.consumer("group") as consumer:
        consumer.poll()
    server.start()
    replica.wait_until(fresh=True)
    assert replica.changes()[0] == before
    until = time.monotonic() + PATIENCE
    while True:
        try:
            assert log.append([event("after")]) == 1
            break
        except StorageError:
            assert time.monotonic() < until
            time.sleep(0.05)
    assert replica.changes()[0] != before
    assert [each.event_id for _, each in log.read()] == ["before", "after"]


@pytest.mark.slow
def test_redis_that_forgot_everything_is_noticed(
    start_redis: StartRedis, open_log: Any, replicate: Any
) -> None:
    """It comes back empty within the lease: nobody is registered, and a replica believes it knows."""
    server = start_redis()
    replica = replicate(server)
    for number in range(4):
        before, _ = replica.changes()
        if number % 2:
            server.kill()
            server.start()
        else:
            with server.client() as client:
                client.flushall()
        open_log(server).append([event("the same each time")])
        assert replica.changes()[0] != before
        replica.wait_until(fresh=True)


def test_redis_that_lost_its_latest_is_read_anew(
    start_redis: StartRedis, open_log: Any, tmp_path: Path
) -> None:
    server = start_redis()
    log = open_log(server)
    log.append([event("kept")])
    with server.client() as client:
        client.save()
        log.append([event("lost")])
        changes, generation = log.changes(), log.generation()
    server.kill()
    server.options = ("--dbfilename", "dump.rdb")
    server.start()
    until = time.monotonic() + PATIENCE
    while True:
        try:
            assert log.generation() != generation
            break
        except LiveStateError:
            assert time.monotonic() < until
    assert log.changes() != changes
    assert [each.event_id for _, each in log.read()] == ["kept"]


@pytest.mark.slow
def test_no_acknowledged_event_is_lost_when_redis_is_killed(
    start_redis: StartRedis, open_log: Any
) -> None:
    server = start_redis(*DURABLE)
    dice, acknowledged, stop = random.Random(1), [], threading.Event()

    def work(name: int) -> None:
        log, number = open_log(server), 0
        while not stop.is_set():
            batch = [event(f"{name}/{number}/{part}") for part in range(3)]
            try:
                log.append(batch)
            except StorageError:
                time.sleep(0.05)  # and again, as a producer does
                continue
            acknowledged.extend(each.event_id for each in batch)
            number += 1

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    try:
        for kill in range(4):
            until, enough = time.monotonic() + PATIENCE, len(acknowledged) + 300
            while len(acknowledged) < enough:
                assert time.monotonic() < until, f"nothing is stored after kill {kill}"
                time.sleep(dice.random() / 100)
            server.kill()
            server.start()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    read = [each.event_id for _, each in open_log(server).read()]
    assert len(read) == len(set(read)), "none is there twice"
    assert set(acknowledged) <= set(read), "none is lost"
    assert len(read) % 3 == 0, "a batch is stored as a whole"


def test_a_clock_that_goes_back_changes_nothing(
    start_redis: StartRedis, open_log: Any, replicate: Any
) -> None:
    """Redis' clock was a day ahead when it gave the last position."""
    server = start_redis()
    log, replica = open_log(server), replicate(server)
    log.append([event("first")])
    ahead = f"{(int(time.time()) + 86_400) * 1000}-5"
    body = event("ahead").model_dump_json()
    with server.client() as client:
        client.xadd("ne:{acme}:events:stream", {"micros": 1, "body": body}, id=ahead)
        client.hset("ne:{acme}:events:log", "last", ahead)
    for number in range(20):
        before, _ = replica.changes()
        log.append([event(number)])
        assert replica.changes()[0] != before
    assert [each.event_id for _, each in log.read()] == ["first", "ahead", *map(str, range(20))]
    assert log.lag("nobody").seconds >= 0


def test_a_consumer_that_was_silent_too_long_cannot_commit(
    start_redis: StartRedis, open_log: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_consumer, "LEASE_SECONDS", 0.2)
    server = start_redis()
    log = open_log(server)
    log.append([event(number) for number in range(10)])
    first, second = log.consumer("group"), open_log(server).consumer("group")
    assert [each.event.event_id for each in first.poll(3)] == ["0", "1", "2"]
    time.sleep(0.5)
    first.commit()  # nobody has taken its place
    assert [each.event.event_id for each in first.poll(2)] == ["3", "4"]
    assert [each.event.event_id for each in second.poll(1, PATIENCE)] == ["3"]
    with pytest.raises(StorageError, match="another consumer went on"):
        first.commit()
    assert [each.event.event_id for each in second.poll(1)] == ["4"], "first what is pending"
    assert [each.event.event_id for each in second.poll(1)] == ["5"]
    second.commit()
    assert log.lag("group").events == 4
    with server.client() as client:
        (told,) = client.xinfo_groups("ne:{acme}:events:stream")
        assert (told["lag"], told["pending"], told["consumers"]) == (4, 0, 1)


def test_an_erased_event_leaves_no_byte_and_stays_out(
    start_redis: StartRedis, open_log: Any, tmp_path: Path
) -> None:
    server = start_redis(*DURABLE, "--save", "3600 1000000")
    log, secret = open_log(server), "5ecre7" * 8
    given = [event(number, note=secret if number % 3 == 0 else "") for number in range(2500)]
    log.append(given)
    with server.client() as client:
        client.save()
    consumer = log.consumer("group")
    polled = consumer.poll(1200)
    consumer.commit()
    polled = consumer.poll(30)
    consumer.reject(polled[0], secret)
    generation = log.generation()
    rows = list(log.read())
    doomed = [position for position, each in rows if (each.model_extra or {})["note"]]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(secret.encode() in path.read_bytes() for path in files)
    log.purge(doomed)
    assert log.generation() != generation
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    assert not any(secret.encode() in path.read_bytes() for path in files)
    left = [row for row in rows if row[0] not in set(doomed)]
    assert list(log.read()) == left
    kept = [each.position for each in polled if each.position not in set(doomed)]
    assert len(kept) == 20
    with server.client() as client:
        (told,) = client.xinfo_groups("ne:{acme}:events:stream")
        later = len(left) - 1 - [position for position, _ in left].index(kept[-1])
        assert (told["lag"], told["pending"]) == (later, 20)
        assert secret.encode() not in client.dump("ne:{acme}:events:stream")
    consumer.reject(polled[3], secret)
    assert log.dead_letters() == [], "what was erased while it was at work stays erased"
    assert log.append([given[0]]) == 0, "nor does it come back"
    consumer.close()
    with log.consumer("group") as following:
        again = following.poll(5)
        assert [each.position for each in again] == kept[:5]
    log.purge([position for position, _ in left])
    assert list(log.read()) == []
    log.append([event("next")])
    assert numbers(log.last_position()) > numbers(rows[-1][0])


def test_what_redis_does_not_promise_is_said_once(
    start_redis: StartRedis, open_log: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        open_log(start_redis(*DURABLE)).append([event(0)])
    assert not caplog.records
    for options in ((), ("--appendonly", "yes", "--appendfsync", "everysec")):
        server = start_redis(*options)
        with server.client() as client:
            told = client.info()
        if options and told["redis_version"] >= "7.2":
            continue  # it says when it has written
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            log = open_log(server)
            log.append([event(0)])
            log.append([event(1)])
        (record,) = caplog.records
        assert "appendonly yes and appendfsync always" in record.getMessage()


def test_urls_are_checked_when_a_tenant_is_opened_and_tell_no_password(
    start_redis: StartRedis, tmp_path: Path
) -> None:
    def opened(url: str) -> Recommender:
        raw = {"state": str(tmp_path), "events": {"log": url}}
        return Recommender(parse_config(raw, base=tmp_path, origin="settings"))

    with pytest.raises(ConfigError, match="did you mean 'redis'"):
        opened("reddis://host")
    for url in ("redis://:wr0ng/secret@host:6379", "redis://a:wr0ng#secret@host/0"):
        with pytest.raises(ConfigError, match=r"events\.log: the URL cannot be read") as refused:
            opened(url)
        assert "wr0ng" not in str(refused.value)
    server = start_redis("--requirepass", "right")
    recommender = opened(server.url.replace("//", "//:wr0ngsecret@"))
    log = open_live_log(recommender.config)
    with pytest.raises(StorageError) as failed:
        log.append([event(0)])
    assert "wr0ng" not in str(failed.value)
    assert "wr0ng" not in repr(recommender.config)
    with pytest.raises(LiveStateError) as unread:
        log.changes(quick=True)
    assert "wr0ng" not in str(unread.value)
    log.close()


def test_a_lag_that_redis_has_miscounted_is_none(start_redis: StartRedis, open_log: Any) -> None:
    """After a restart Redis may say that events wait where there are none after the last."""
    server = start_redis()
    log = open_log(server)
    log.append([event(number) for number in range(5)])
    with log.consumer("group") as consumer:
        assert len(consumer.poll()) == 5
        consumer.commit()
    stream = "ne:{acme}:events:stream"
    with server.client() as client:
        client.execute_command("XGROUP", "SETID", stream, "group", "$", "ENTRIESREAD", 2)
        assert client.xinfo_groups(stream)[0]["lag"] == 3
    assert log.lag("group").events == 0
    log.append([event("next")])
    assert log.lag("group").events >= 1
