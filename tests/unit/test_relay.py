"""Events from log to log: none lost, none twice, none sent back."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from nextedge.config import Config, EventsConfig
from nextedge.errors import LogFullError, StorageError
from nextedge.events.event import Event
from nextedge.events.logs import consume
from nextedge.events.logs.consume import ConsumeLoop
from nextedge.events.logs.relay import Relay, group_at_broker
from nextedge.events.logs.sqlite.log import LocalLog
from nextedge.testing.logs import assert_ordered, event, events_of

_RELAY = """
import sys, threading, time
from pathlib import Path
from nextedge.events.logs.sqlite import consumer as local_consumer
from nextedge.events.logs.sqlite.log import LocalLog
from nextedge.events.logs.relay import Relay

local_consumer._LEASE_SECONDS = 0.3
source, target = LocalLog(Path(sys.argv[1])), LocalLog(Path(sys.argv[2]))
append = target.append

def slowly(events, **more):
    stored = append(events, **more)
    print(stored, flush=True)  # stored there, and not committed here
    time.sleep(0.02)
    return stored

target.append = slowly
relay = Relay(source, target, "relay")
relay._batch = 13
relay.run(threading.Event())
"""


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consume, "_FIRST_PAUSE_SECONDS", 0.001)


@contextmanager
def running(*loops: ConsumeLoop) -> Iterator[None]:
    stop = threading.Event()
    threads = [threading.Thread(target=loop.run, args=(stop,)) for loop in loops]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)


def wait(happens: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(6000):
        if happens():
            return
        pause.wait(0.01)
    pytest.fail("it has not happened")


def ids(log: LocalLog) -> list[str]:
    return [each.event_id for _, each in log.read()]


def break_down(log: LocalLog, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """A log that half the time stores and says that it did not; set the event to mend it."""
    whole, append, dice = threading.Event(), log.append, random.Random(5)

    def failing(events: Sequence[Event], *, relayed: bool = False) -> int:
        if not whole.is_set() and dice.random() < 0.5:
            raise StorageError("not reached")
        stored = append(events, relayed=relayed)
        if not whole.is_set():
            raise StorageError("no answer came")
        return stored

    monkeypatch.setattr(log, "append", failing)
    return whole


def test_a_target_that_fails_for_a_while_gets_everything_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = LocalLog(tmp_path / "source", max_backlog=40), LocalLog(tmp_path / "target")
    whole = break_down(target, monkeypatch)
    relay = Relay(source, target, "relay")
    given = events_of(["a", "b"], 20)
    with running(relay):
        wait(lambda: "relay" in source.groups())
        source.append(given)
        wait(lambda: relay.failures > 5)
        with pytest.raises(LogFullError, match="max_backlog = 40"):
            source.append([event("a", 20)])
        assert source.append([event("z", 0)], relayed=True) == 1
        assert source.lag("relay").events == 41
        whole.set()
        wait(lambda: source.lag("relay").events == 0)
        source.append([event("a", 20)])
        wait(lambda: len(ids(target)) == 41)
    assert [each for _, each in target.read()] == [*given, event("a", 20)]
    for log in (source, target):
        log.close()


def test_both_directions_send_nothing_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broker, sites = LocalLog(tmp_path / "broker"), [LocalLog(tmp_path / name) for name in "ab"]
    sent: list[str] = []
    append = broker.append

    def counting(events: Sequence[Event], *, relayed: bool = False) -> int:
        sent.extend(each.event_id for each in events)
        return append(events, relayed=False)  # a broker does not remember

    monkeypatch.setattr(broker, "append", counting)
    loops: list[ConsumeLoop] = []
    for name, site in zip("ab", sites, strict=True):
        loops += [Relay(site, broker, "to-broker"), Relay(broker, site, f"live-{name}")]
    with running(*loops):
        for number in range(30):
            for name, site in zip("ab", sites, strict=True):
                site.append([event(f"of {name}", number)])
        append([event("foreign", number) for number in range(30)])
        wait(lambda: all(len(ids(site)) == 90 for site in sites))
        wait(lambda: all(site.lag("to-broker").events == 0 for site in sites))
    assert sorted(sent) == sorted(f"of {name}/{number}" for name in "ab" for number in range(30))
    for site in sites:
        assert len(set(ids(site))) == 90
        assert_ordered(each for _, each in site.read())
        site.close()
    broker.close()


def test_a_relay_that_is_killed_loses_and_repeats_nothing(tmp_path: Path) -> None:
    source, target = LocalLog(tmp_path / "source"), LocalLog(tmp_path / "target")
    dice, number = random.Random(3), 0
    command = [sys.executable, "-c", _RELAY, str(source.path.parent), str(target.path.parent)]
    for turn in range(9):
        source.append([event(user, n) for n in range(number, number + 40) for user in "abc"])
        number += 40
        with subprocess.Popen(command, stdout=subprocess.PIPE) as relay:
            assert relay.stdout is not None
            for _ in range(dice.randrange(1, 6)):
                assert relay.stdout.readline(), "it has appended"
            if turn % 2:
                threading.Event().wait(dice.random() * 0.05)
            relay.kill()  # between the append there and the commit here, on even turns
    assert source.lag("relay").events > 0
    with running(Relay(source, target, "relay")):
        wait(lambda: source.lag("relay").events == 0)
    assert [each for _, each in target.read()] == [each for _, each in source.read()]
    assert len(ids(target)) == number * 3
    for log in (source, target):
        log.close()


def test_each_live_log_has_a_group_of_its_own_at_the_broker(tmp_path: Path) -> None:
    def config(state: str, log: str | None) -> Config:
        return Config(state=str(tmp_path / state), events=EventsConfig(log=log))

    assert group_at_broker(config("a", None)) == group_at_broker(config("a", None))
    assert group_at_broker(config("a", None)) != group_at_broker(config("b", None))
    shared = {
        group_at_broker(config(state, f"redis://{login}host:6379/0"))
        for state in "ab"
        for login in ("", ":secret@")
    }
    assert len(shared) == 1
    assert shared != {group_at_broker(config("a", "redis://host:6379/1"))}
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["broker-group"]
