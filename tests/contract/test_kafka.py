"""What is Kafka's own: foreign producers, brokers that fail, partitions that move, addresses.

Mock brokers stand in for Kafka (``kafka_mock`` says what they lack). NEXTEDGE_KAFKA=host:9092
names a real one: then the contract is checked on it too.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kafka_mock import KafkaMock

from nextedge.config import Config
from nextedge.errors import (
    ConfigError,
    LiveStateError,
    LogFullError,
    MissingDependencyError,
    StorageError,
)
from nextedge.events.logs.kafka.address import parse_address
from nextedge.events.logs.kafka.cluster import TooLargeError
from nextedge.events.logs.log import Consumer, Delivery, open_log
from nextedge.testing.logs import LogContract, OpenLog, assert_ordered, collect, event, events_of

confluent_kafka = pytest.importorskip("confluent_kafka")
PRODUCE, OFFSET_COMMIT = 0, 8  # requests by their numbers in Kafka's protocol
NOT_AUTHORIZED, UNKNOWN_TOPIC, UNKNOWN_MEMBER = 29, 3, 25  # errors by theirs
QUICK = "session.timeout.ms=2000&heartbeat.interval.ms=300"
IMPATIENT = "delivery.timeout.ms=1500&socket.timeout.ms=1000"


class TestRealKafka(LogContract):
    """The contract on a real broker, which makes topics by itself."""

    @pytest.fixture
    def open_log(self, tmp_path: Path) -> Iterator[OpenLog]:
        servers = os.environ.get("NEXTEDGE_KAFKA")
        if not servers:
            pytest.skip("no Kafka here; NEXTEDGE_KAFKA=host:9092 names one to test with")
        topic = f"test-{uuid.uuid4().hex[:8]}-{{tenant}}"
        opened = OpenLog(f"kafka://{servers}/{topic}?session.timeout.ms=6000", tmp_path)
        yield opened
        opened.close()


@pytest.fixture
def mock() -> Iterator[KafkaMock]:
    """Mock brokers that the test may disturb."""
    mock = KafkaMock()
    yield mock
    mock.kill()


@pytest.fixture
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Brokers are given less time, so that tests of those that do not answer end soon."""
    for module in ("cluster", "log"):
        monkeypatch.setattr(f"nextedge.events.logs.kafka.{module}.ANSWER_SECONDS", 1.5)


def opened(servers: str, options: str = QUICK, tenant: str = "acme") -> Any:
    return open_log(f"kafka://{servers}/events?{options}", Config(tenant=tenant))


def produce(servers: str, messages: list[dict[str, Any]], topic: str = "events") -> None:
    """What another system's producer writes."""
    failed: list[object] = []
    producer = confluent_kafka.Producer(
        {"bootstrap.servers": servers, "message.max.bytes": 10_000_000}
    )
    for message in messages:
        producer.produce(topic, **message, on_delivery=lambda error, _: failed.append(error))
    assert producer.flush(20) == 0
    assert failed == [None] * len(messages)


def append_when_possible(log: Any, events: list[Any]) -> None:
    """Brokers that hung are not believed at once."""
    for _ in range(10):
        try:
            log.append(events)
        except StorageError:
            continue
        return
    raise AssertionError("the log did not recover")


def poll_often(consumer: Consumer) -> None:
    """Nothing comes, until it is clear that nothing can."""
    for _ in range(100):
        assert consumer.poll(10, 0.2) == []


def again(consumer: Callable[[], Consumer], count: int) -> list[Delivery]:
    with consumer() as member:
        return collect(member, count)


POISON: dict[str, dict[str, Any]] = {
    "not JSON": {"value": b"connect ada bob"},
    "not text": {"value": b"\xff\xfe\x00"},
    "a list": {"value": b"[1, 2]"},
    "no number of JSON": {"value": b'{"type":"block","user_id":1,"candidate_id":2,"x":NaN}'},
    "too deep": {"value": b"[" * 100_000},
    "no body": {"value": None, "key": b"ada"},
    "an empty body": {"value": b""},
    "no user": {"value": b'{"type": "connect", "candidate_id": "bob"}'},
    "an unknown type": {"value": b'{"type": "teleport", "user_id": "ada"}'},
    "a time before the first": {
        "value": b'{"type":"opt_out","user_id":"a","timestamp":"0001-01-01T00:00:00+14:00"}'
    },
    "half a character": {"value": b'{"type":"opt_out","user_id":"a","note":"\\ud83d"}'},
    "an id that is a number": {"value": b'{"type":"opt_out","user_id":"a","event_id":7}'},
    "far too long": {"value": b'{"type":"opt_out","user_id":"a","x":"%s"}' % (b"x" * 1_100_000)},
}


@pytest.mark.parametrize("poison", POISON.values(), ids=list(POISON))
def test_poison_of_a_foreign_producer_is_passed(mock: KafkaMock, poison: dict[str, Any]) -> None:
    good = {"value": json.dumps({"type": "opt_out", "user_id": "ada", "event_id": "good"})}
    produce(mock.servers, [{**poison, "partition": 0}, {**good, "partition": 0}])
    log = opened(mock.servers)
    with log.consumer("group") as consumer:
        first, second = collect(consumer, 2)
        assert first.event is None
        assert first.fault
        assert first.body == (poison["value"] or b"")
        assert second.event is not None
        assert second.event.event_id == "good"
        consumer.reject(first, first.fault)
        consumer.commit()
    assert log.lag("group").events == 0
    (letter,) = log.dead_letters()
    assert (letter.position, letter.reason) == (first.position, first.fault)
    assert [each.event_id for _, each in log.read()] == ["good"]


def test_foreign_events_without_an_id_keep_the_one_they_are_given(mock: KafkaMock) -> None:
    body = b'{"type": "connect", "user_id": "ada", "candidate_id": "bob"}'
    produce(
        mock.servers,
        [
            {"value": body, "key": b"ada", "timestamp": 1_700_000_000_000},
            {"value": body, "key": b"ada", "timestamp": 1_700_000_001_000},
            {"value": body, "key": None, "headers": {"event_id": b"theirs"}},
        ],
    )
    log = opened(mock.servers)
    events = [[each.event for each in again(lambda: log.consumer("group"), 3)] for _ in "ab"]
    one, other = ({each.event_id: each for each in some if each} for some in events)
    assert one == other, "a second delivery is the same event"
    assert len(one) == 3, "the same body twice is two events"
    assert "theirs" in one
    times = {int(each.timestamp.timestamp()) for each in one.values()}
    assert {1_700_000_000, 1_700_000_001} < times, "without a time, it is when it was produced"
    assert {each.event_id for _, each in log.read()} == one.keys()


def test_a_topic_made_anew_gives_other_ids(mock: KafkaMock) -> None:
    ids = []
    for millis in (1_700_000_000_000, 1_700_000_009_000):
        fresh = KafkaMock()
        value = b'{"type": "opt_out", "user_id": "ada"}'
        produce(fresh.servers, [{"value": value, "partition": 0, "timestamp": millis}])
        ids += [each.event_id for _, each in opened(fresh.servers).read()]
        fresh.kill()
    assert len(set(ids)) == 2


def test_a_user_has_one_partition_and_messages_say_what_they_are(mock: KafkaMock) -> None:
    log = opened(mock.servers)
    users = [f"u{n}" for n in range(12)]
    log.append([*events_of(users, 3), event(7, 0), event("7", 1)])
    log.append([event(None, 0, type="item_available", item_id=f"u{n}") for n in range(12)])  # type: ignore[arg-type]
    reader = confluent_kafka.Consumer(
        {"bootstrap.servers": mock.servers, "group.id": "t", "auto.offset.reset": "earliest"}
    )
    reader.subscribe(["events"])
    got: list[Any] = []
    while len(got) < 50:
        got += [each for each in reader.consume(50, 0.5) if each.error() is None]
    reader.close()
    partitions: dict[bytes, set[int]] = {}
    for each in got:
        body, headers = json.loads(each.value()), dict(each.headers())
        assert headers["event_id"].decode() == body["event_id"]
        assert headers["type"].decode() == body["type"]
        owner = body["item_id"] if body["user_id"] is None else body["user_id"]
        assert each.key() == str(owner).encode()
        partitions.setdefault(each.key(), set()).add(each.partition())
    assert len(partitions) == 13
    assert all(len(found) == 1 for found in partitions.values())
    assert len(set.union(*partitions.values())) > 1


@pytest.mark.slow
@pytest.mark.parametrize("known", [True, False], ids=["connected before", "never connected"])
@pytest.mark.parametrize("fault", ["down", "stalled"])
@pytest.mark.slow
def test_an_append_without_brokers_fails_and_can_be_repeated(
    mock: KafkaMock, fault: str, known: bool, impatience: None
) -> None:
    log = opened(mock.servers, IMPATIENT)
    if known:
        log.append([event("a", 0)])
    if fault == "down":
        mock.tell("down")
    else:
        mock.stall()
    given = [event("a", number) for number in range(1, 4)]
    with pytest.raises(StorageError, match=r"3 of 3 events were not stored" if known else "kafka"):
        log.append(given)
    with pytest.raises(StorageError):
        log.lag("group")
    for read in (log.last_position, log.read):
        with pytest.raises(LiveStateError):
            read()
    if fault == "down":
        mock.tell("up")
    else:
        mock.go_on()
    append_when_possible(log, given)
    found = [each.event_id for _, each in log.read()]
    assert set(found) == {f"a/{n}" for n in range(0 if known else 1, 4)}
    assert log.append([event("b", 0)]) == 1


def test_a_batch_that_is_stored_in_part_says_so(mock: KafkaMock) -> None:
    log = opened(mock.servers)
    log.append([event("a", 0)])
    given = events_of([f"u{n}" for n in range(20)], 2)
    mock.tell("fail", PRODUCE, NOT_AUTHORIZED, 1)
    with pytest.raises(StorageError, match=r"\d+ of 40 events were not stored: .*authori"):
        log.append(given)
    stored = {each.event_id for _, each in log.read()}
    assert 1 < len(stored) < 41
    assert log.append(given) == 40
    found = [each for _, each in log.read()]
    assert {each.event_id for each in found} == {each.event_id for each in given} | {"a/0"}
    assert_ordered({each.event_id: each for each in found}.values())


def test_more_than_brokers_take_is_refused(mock: KafkaMock) -> None:
    log = opened(mock.servers, "queue.buffering.max.messages=5&delivery.timeout.ms=20000")
    assert log.append(events_of(["a"], 20)) == 20, "a batch larger than the queue waits for room"
    mock.stall()
    with pytest.raises(LogFullError, match="slower") as caught:
        log.append(events_of(["b"], 20))
    assert caught.value.retry_after_seconds > 0
    mock.go_on()
    append_when_possible(log, events_of(["b"], 20))
    assert {each.event_id for _, each in log.read()} == {
        f"{u}/{n}" for u in "ab" for n in range(20)
    }


@pytest.mark.slow
@pytest.mark.slow
def test_a_consumer_outlives_brokers_that_are_gone_for_a_while(mock: KafkaMock) -> None:
    log = opened(mock.servers)
    log.append(events_of(["a", "b"], 5))
    with log.consumer("group") as consumer:
        collect(consumer, 10)
        consumer.commit()
        mock.tell("down")
        with pytest.raises(StorageError, match="not read"):
            poll_often(consumer)
        mock.tell("up")
        log.append(events_of(["c"], 5))
        got: list[Delivery] = []
        while len(got) < 5:
            try:
                got += consumer.poll(10, 0.2)
            except StorageError:
                continue
        assert [each.event.event_id for each in got if each.event] == [f"c/{n}" for n in range(5)]
        consumer.commit()
    assert log.lag("group").events == 0


@pytest.mark.slow
def test_a_commit_that_fails_goes_back(mock: KafkaMock) -> None:
    log = opened(mock.servers)
    log.append(events_of(["a", "b"], 5))
    with log.consumer("group") as consumer:
        first = collect(consumer, 10)
        mock.tell("fail", OFFSET_COMMIT, NOT_AUTHORIZED, 1)
        with pytest.raises(StorageError, match="delivered again"):
            consumer.commit()
        assert log.lag("group").events == 10
        second = collect(consumer, 10)
        assert sorted(each.position for each in first) == sorted(each.position for each in second)
        assert_ordered(each.event for each in second)
        consumer.commit()
        consumer.commit()
    assert log.lag("group").events == 0


@pytest.mark.slow
@pytest.mark.slow
def test_brokers_that_hang_do_not_hold_a_commit(mock: KafkaMock) -> None:
    log = opened(mock.servers, f"{QUICK}&{IMPATIENT}")
    log.append(events_of(["a"], 5))
    with log.consumer("group") as consumer:
        collect(consumer, 5)
        mock.stall()
        with pytest.raises(StorageError, match="delivered again"):
            consumer.commit()
        mock.go_on()
    assert len(again(lambda: log.consumer("group"), 5)) == 5


@pytest.mark.slow
@pytest.mark.slow
def test_what_a_member_loses_is_not_committed(mock: KafkaMock) -> None:
    log = opened(mock.servers)
    users = [f"u{n}" for n in range(40)]  # in every partition
    log.append(events_of(users, 2))
    with log.consumer("group") as first, opened(mock.servers).consumer("group") as second:
        collect(first, 80)
        theirs: list[Delivery] = []
        for _ in range(200):
            theirs += second.poll(100, 0.1)
            if theirs:
                break
            assert first.poll(100, 0.1) == []
        assert theirs, "the new member was given nothing"
        with pytest.raises(StorageError, match="rebalanced"):
            first.commit()
        assert log.lag("group").events == 80, "the lost part is not committed, nor is the rest"
        mine: list[Delivery] = []
        while len(mine) + len(theirs) < 80:
            mine += first.poll(100, 0.1)
            theirs += second.poll(100, 0.1)
        positions = {each.position for each in mine} | {each.position for each in theirs}
        assert len(positions) == 80, "each has its part, and nothing of the other's"
        first.commit()
        second.commit()
    assert log.lag("group").events == 0


def test_a_dead_letter_that_is_too_large_is_cut(mock: KafkaMock) -> None:
    produce(mock.servers, [{"value": b"x" * 500_000, "partition": 0}])
    log = opened(mock.servers, f"{QUICK}&message.max.bytes=100000")
    with pytest.raises(TooLargeError, match="1 of 1"):
        log.append([event("a", 0, note="x" * 200_000)])
    with log.consumer("group") as consumer:
        (poison,) = collect(consumer, 1)
        consumer.reject(poison, "no event")
        consumer.commit()
    (letter,) = log.dead_letters()
    assert letter.body == b"x" * 65536
    assert letter.reason == "no event (cut: it has 500,000 bytes)"


@pytest.mark.slow
def test_a_topic_that_is_not_there_says_how_to_make_it(mock: KafkaMock, impatience: None) -> None:
    mock.tell("refuse", "events", UNKNOWN_TOPIC)
    log = opened(mock.servers)
    for ask in (lambda: log.append([event("a", 0)]), lambda: log.consumer("group")):
        with pytest.raises(StorageError, match=r"kafka-topics\.sh --create --topic events"):
            ask()


@pytest.mark.slow
def test_a_group_with_members_is_not_rewound(mock: KafkaMock) -> None:
    log = opened(mock.servers)
    log.append(events_of([f"u{n}" for n in range(40)], 1))
    with log.consumer("group") as first:
        collect(first, 40)
        first.commit()
        with (
            Background(lambda: first.poll(10, 0.1)),
            pytest.raises(StorageError, match="stop them"),
        ):
            log.rewind("group", 0)
        assert log.lag("group").events == 0


class Background:
    """Something that is done over and over in another thread meanwhile."""

    def __init__(self, work: Callable[[], object]) -> None:
        import threading

        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.run, args=(work,))

    def run(self, work: Callable[[], object]) -> None:
        while not self.ended.is_set():
            work()

    def __enter__(self) -> None:
        self.thread.start()

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.thread.join()


def test_what_brokers_cannot_do_is_said(mock: KafkaMock) -> None:
    log = opened(mock.servers)
    with pytest.raises(StorageError, match="groups were not listed"):
        log.groups()  # mock brokers have no list of groups
    for position in ("7", "[]", '{"0": "x"}', "none"):
        with pytest.raises(LiveStateError, match="no position"):
            log.read(position)


def test_a_position_beyond_the_end_begins_anew(mock: KafkaMock) -> None:
    log = opened(mock.servers)
    log.append(events_of(["a"], 3))
    elsewhere = json.dumps({str(partition): 1000 for partition in range(9)})
    assert len(list(log.read(elsewhere))) == 3, "the topic was made anew meanwhile"


def test_tenants_have_groups_of_their_own() -> None:
    prefixes = [opened("h", tenant=name).cluster.prefix for name in ("a", "a-b", "a.b", "A")]
    assert not any(one != other and one.startswith(other) for one in prefixes for other in prefixes)


@pytest.mark.parametrize(
    ("url", "wrong"),
    [
        ("kafka://", "expected kafka://host"),
        ("kafka:///events", "expected kafka://host"),
        ("kafka://a:b:c/events", "expected kafka://host"),
        ("kafka://host,/events", "expected kafka://host"),
        ("kafka://[::1/events", "cannot be read"),
        ("kafka://host/a/b", "a topic's name"),
        ("kafka://host/" + "x" * 240, "a topic's name"),
        ("kafka://host/t?enable.auto.commit=true", "'enable.auto.commit' is no option"),
        ("kafka://host/t?acks=0", "'acks' is no option"),
        ("kafka://host/t?sasl.password=hunter2", "is a secret"),
        ("kafka://host/t?ssl.key.password=hunter2", "is a secret"),
        ("kafka://host/t?sasl.password.env=NOT_SET_ANYWHERE", "no variable 'NOT_SET_ANYWHERE'"),
    ],
)
def test_addresses_that_cannot_be_are_refused(url: str, wrong: str) -> None:
    with pytest.raises(ConfigError, match=wrong) as caught:
        open_log(url, Config(tenant="acme"))
    assert "hunter2" not in str(caught.value)


def test_addresses_say_where_and_how(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_KEY", "hunter2")
    address = parse_address(
        "kafka://ada:p%40ss%2F1@one:9092,[::1]:9093/events-{tenant}"
        "?ssl.key.password.env=KAFKA_KEY&compression.type=zstd&session.timeout.ms=9000",
        "acme",
    )
    assert address.topic == "events-acme"
    assert address.dead_letters == "events-acme.dead-letters"
    login = {
        "bootstrap.servers": "one:9092,[::1]:9093",
        "security.protocol": "SASL_SSL",
        "sasl.mechanisms": "PLAIN",
        "sasl.username": "ada",
        "sasl.password": "p@ss/1",
        "ssl.key.password": "hunter2",
    }
    assert address.producer == {**login, "compression.type": "zstd"}
    assert address.consumer == {**login, "session.timeout.ms": "9000"}
    assert parse_address("kafka://host", "acme").topic == "nextedge-acme"
    for text in (address.public_url, repr(address), str(address)):
        assert not any(secret in text for secret in ("ada", "p@ss", "p%40ss", "hunter2"))


def test_a_wrong_setting_is_said_without_secrets(mock: KafkaMock) -> None:
    log = opened(mock.servers, "security.protocol=carrier-pigeon")
    with pytest.raises(ConfigError, match=r"security\.protocol"):
        log.append([event("a", 0)])
    secret = open_log(f"kafka://lovelace:hunter2@{mock.servers}/events?{IMPATIENT}", Config())
    with pytest.raises(StorageError) as caught:
        secret.append([event("a", 0)])  # mock brokers know no TLS
    assert "hunter2" not in str(caught.value)
    assert "lovelace" not in str(caught.value)


def test_the_client_is_loaded_only_where_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "import sys, nextedge.events.logs.kafka.log as k; print('confluent_kafka' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "False\n"
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'nextedge\[kafka\]'"):
        opened("host")
