"""The stream job with Spark itself: killed and started again it has counted every event once."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nextedge.config import load_config
from nextedge.events.event import Event
from nextedge.events.projections.counted import CountedFacts
from nextedge.events.stored_counters import COUNTERS, StoredCounters
from nextedge.events.stream import counters_store
from nextedge.features.counters import INTERACT, ITEM, LATEST, USER
from nextedge.features.live import LiveCounters

pytestmark = [
    pytest.mark.skipif(shutil.which("java") is None, reason="Spark needs Java, which is not here"),
    pytest.mark.skipif(
        importlib.util.find_spec("pyspark") is None, reason="pyspark is not installed"
    ),
]
START = 1_700_000_000
USERS, ITEMS = 12, 9


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "events").mkdir()
    (tmp_path / "nextedge.toml").write_text(
        'tenant = "acme"\n[data]\nconnections = "none.parquet"\n'
    )
    return tmp_path


def made(number: int, size: int) -> list[dict[str, object]]:
    """Events of one file, the last of which is the first of the file before once more."""
    random = np.random.default_rng(number)
    found: list[dict[str, object]] = []
    for place in range(size):
        # out of order by up to an hour
        moment = START + number * 3600 + int(random.integers(0, 7200))
        user = int(random.integers(USERS))
        about: dict[str, object] = {
            "event_id": f"{number}-{place}",
            "user_id": f"u{user}",
            "timestamp": datetime.fromtimestamp(moment, UTC).isoformat(),
        }
        if place % 4:
            found.append({**about, "type": "interact", "item_id": f"i{random.integers(ITEMS)}"})
        else:  # pairs that no other event names
            pair = {"user_id": f"u{user}", "candidate_id": f"x{number}-{place}"}
            found.append({**about, "type": "connect", **pair})
    return found + (made(number - 1, size)[:1] if number else [])


def put(folder: Path, number: int, size: int = 40) -> list[dict[str, object]]:
    """A file that is there whole at once."""
    events = made(number, size)
    lines = [json.dumps(event) for event in events] + ['{"type": "interact"}', "no JSON", ""]
    part = folder / f"part-{number}"
    part.write_text("\n".join(lines))
    part.replace(folder / "events" / f"{number:03}.jsonl")
    return events


def start(folder: Path, *options: str, source: str | None = None) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-m",
        "nextedge",
        "stream",
        "-c",
        str(folder),
        "--from",
        source or str(folder / "events"),
        "--checkpoint",
        str(folder / "checkpoint"),
        *options,
    ]
    environment = {**os.environ, "PYSPARK_SUBMIT_ARGS": "--master local[2] pyspark-shell"}
    return subprocess.Popen(
        command,
        env=environment,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )


def batches(process: subprocess.Popen[str]) -> Iterator[str]:
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("batch "):
            yield line


def check(folder: Path, events: list[dict[str, object]]) -> None:
    """The store says what the overlay's own counters say of the same events, each once."""
    unique = {str(event["event_id"]): event for event in events}
    facts = CountedFacts()
    for event in unique.values():
        facts.apply(Event.model_validate(event))
    people = sorted({name for fact in facts.since(0)[0] for name in (fact.user, fact.other)})
    live = LiveCounters(len(people), ITEMS, None, 0)
    for kind, micros, user, other, _ in facts.since(0)[0]:
        live.tick(micros)
        if kind == INTERACT:
            live.interact(people.index(user), int(other[1:]), micros)
        else:
            live.connect((people.index(user), people.index(other)), micros, 1)
    store = counters_store(load_config(folder))
    named = [name for name in people if not name.startswith("i")]
    items = [f"i{place}" for place in range(ITEMS)]
    found_users, found_items = StoredCounters(store).read(named, items)
    store.close()
    places = {USER: [people.index(name) for name in named], ITEM: list(range(ITEMS))}
    for side, found in ((USER, found_users), (ITEM, found_items)):
        for counter in COUNTERS[side]:
            expected = live.counts(counter.name, np.array(places[side], np.int32), live.clock)
            values = [
                0.0 if owned is None else owned.at(side, counter.name, live.clock)
                for owned in found
            ]
            np.testing.assert_allclose(values, expected, rtol=1e-6, err_msg=counter.name)
            assert expected.sum() > 1
    for name, owned in zip(named, found_users, strict=True):
        assert owned is not None
        latest = live.latest(people.index(name))
        assert [(time, f"i{item}") for time, item in latest] == list(owned.latest)
        assert len(owned.latest) <= LATEST.n


def test_killed_and_started_again_it_counts_every_event_once(folder: Path) -> None:
    events = put(folder, 0)
    process = start(folder)
    try:
        told = batches(process)
        assert next(told).startswith("batch 0")
        stored = folder / "state" / "counters.sqlite"
        before = stored.stat().st_mtime_ns
        for number in (1, 2, 3):  # these come as one batch, or as several
            events += put(folder, number)
        while stored.stat().st_mtime_ns == before:  # one of two parts is written
            assert process.poll() is None
            time.sleep(0.001)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert process.stderr is not None
        process.stderr.close()
    for number in (4, 5):
        events += put(folder, number)
    again = start(folder, "--once")
    _, said = again.communicate(timeout=300)
    assert again.returncode == 0, said
    assert "needs event_id and timestamp" in said
    check(folder, events)


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A cluster that librdkafka plays, which answers any client over TCP; its producer."""
    kafka = pytest.importorskip("confluent_kafka")
    producer = kafka.Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "unused"})
    yield producer
    producer.flush(5)


def brokers(producer: Any) -> str:
    about = producer.list_topics(timeout=10).brokers.values()
    return ",".join(f"{each.host}:{each.port}" for each in about)


def test_ranges_of_a_topic_are_read_whole_and_again(cluster: Any) -> None:
    """What Spark asks of the source: offsets, their ranges, and the same messages each time."""
    from nextedge.engines.kafka_stream import KafkaStream

    settings = json.dumps({"bootstrap.servers": brokers(cluster)})
    options = {"topic": "events", "secret.settings": settings}
    cluster.produce("events", b"0", partition=0)
    cluster.flush(10)
    reader: Any = KafkaStream(options).streamReader(None)
    start = reader.initialOffset()
    assert set(start.values()) == {0}
    sent = {"0"}
    for number in range(1, 40):
        cluster.produce("events", str(number).encode(), partition=number % len(start))
        sent.add(str(number))
    cluster.flush(10)
    end = reader.latestOffset(start, None)
    assert sum(end.values()) == 40
    ranges = reader.partitions(start, end)
    cluster.produce("events", b"later", partition=0)
    cluster.flush(10)
    for _ in range(2):
        assert {row[0] for each in ranges for row in reader.read(each)} == sent
    later = reader.partitions(end, reader.latestOffset(end, None))
    assert [row[0] for each in later for row in reader.read(each)] == ["later"]
    assert reader.partitions(end, end) == []


def test_events_of_a_topic_are_counted(folder: Path, cluster: Any) -> None:
    """Spark itself reads the topic; what it has read is not read again."""
    source = f"kafka://{brokers(cluster)}/events"
    events: list[dict[str, object]] = []
    for number in (0, 1):
        events += made(number, 40)
        for place, event in enumerate(events):  # the second time all of the first come once more
            cluster.produce("events", json.dumps(event).encode(), partition=place % 2)
        cluster.flush(10)
        process = start(folder, "--once", source=source)
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said
    check(folder, events)


def test_a_source_that_cannot_be_is_named(folder: Path) -> None:
    from nextedge.errors import ConfigError, InputError
    from nextedge.events.stream import _lines

    for given, expected in (
        ("ftp://x", ConfigError),
        ("kafka://", ConfigError),
        (str(folder / "no"), InputError),
    ):
        with pytest.raises(expected, match="expected"):
            _lines(None, given, "acme")  # type: ignore[arg-type]
