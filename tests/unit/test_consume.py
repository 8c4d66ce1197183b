"""The loop of consumers: what is committed, given up, tried again and told."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from nextedge.errors import EventError, StorageError
from nextedge.events.event import Event
from nextedge.events.logs import consume
from nextedge.events.logs.consume import ConsumeLoop
from nextedge.events.logs.sqlite.log import LocalLog
from nextedge.testing.logs import LaterEvent, event, events_of


@pytest.fixture
def log(tmp_path: Path) -> Iterator[LocalLog]:
    opened = LocalLog(tmp_path)
    yield opened
    opened.close()


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consume, "_FIRST_PAUSE_SECONDS", 0.001)


@contextmanager
def running(loop: ConsumeLoop) -> Iterator[threading.Event]:
    stop = threading.Event()
    thread = threading.Thread(target=loop.run, args=(stop,))
    thread.start()
    try:
        yield stop
    finally:
        stop.set()
        thread.join(60)
        assert not thread.is_alive()


def wait(happens: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(6000):
        if happens():
            return
        pause.wait(0.01)
    pytest.fail("it has not happened")


def drained(log: LocalLog) -> bool:
    return log.lag("group").events == 0


def test_what_cannot_be_handled_is_given_up_and_the_rest_is_handled(log: LocalLog) -> None:
    handled: list[str] = []

    def handle(events: Sequence[Event]) -> None:
        for each in events:
            if each.item_id == "i3":
                raise EventError("item_id: nobody knows 'i3'")
        handled.extend(each.event_id for each in events)

    poison = LaterEvent(type="teleport", user_id="a", event_id="poison")
    log.append([*events_of(["a", "b"], 3), poison, *events_of(["c", "d"], 10)])
    loop = ConsumeLoop(log, "group", handle)
    with running(loop):
        wait(lambda: drained(log))
    assert (loop.handled, loop.rejected, loop.failures) == (24, 3, 0)
    read = [each.event_id for _, each in log.read()]
    assert handled == [each for each in read if each not in ("c/3", "d/3")], "once, in order"
    letters = log.dead_letters()
    assert [letter.reason for letter in letters[1:]] == ["item_id: nobody knows 'i3'"] * 2
    assert b"teleport" in letters[0].body
    assert "type" in letters[0].reason


@pytest.mark.parametrize("error", [StorageError("the disk is full"), KeyError("a mistake")])
def test_other_failures_are_tried_again_and_told_once(
    log: LocalLog, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    handled: list[str] = []
    attempts = 0

    def handle(events: Sequence[Event]) -> None:
        nonlocal attempts
        attempts += 1
        if attempts <= 5:
            raise error
        handled.extend(each.event_id for each in events)

    log.append(events_of(["a"], 10))
    loop = ConsumeLoop(log, "group", handle)
    with caplog.at_level(logging.INFO, logger="nextedge.events"), running(loop):
        wait(lambda: drained(log) and loop.handled == 10)
        log.append([event("a", 10)])
        wait(lambda: loop.handled == 11)
    assert handled == [f"a/{number}" for number in range(11)]
    assert (loop.failures, loop.rejected) == (5, 0)
    told = [record.message for record in caplog.records]
    assert len([each for each in told if "wait" in each]) == 1, told
    assert len([each for each in told if "again" in each]) == 1
    assert log.dead_letters() == []


def test_nothing_is_committed_by_a_loop_that_ends_in_a_failure(log: LocalLog) -> None:
    tried = threading.Event()

    def handle(events: Sequence[Event]) -> None:
        tried.set()
        raise StorageError("not reached")

    log.append(events_of(["a"], 4))
    loop = ConsumeLoop(log, "group", handle)
    with running(loop):
        assert tried.wait(60)
    assert log.lag("group").events == 4
    assert loop.handled == 0


def test_loops_of_one_group_hand_over_when_one_ends(log: LocalLog, tmp_path: Path) -> None:
    handled: list[str] = []
    loops = [
        ConsumeLoop(
            LocalLog(tmp_path), "group", lambda e: handled.extend(each.event_id for each in e)
        )
        for _ in range(3)
    ]
    number = 0
    for loop in loops:  # the one before has left, and the group goes on where it was
        with running(loop):
            log.append([event("a", n) for n in range(number, number + 20)])
            number += 20
            wait(lambda: drained(log))
    assert handled == [f"a/{n}" for n in range(60)]
    assert [loop.handled for loop in loops] == [20, 20, 20]


def test_a_silent_consumer_loses_its_group_and_is_told(
    log: LocalLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nextedge.events.logs.sqlite.consumer._LEASE_SECONDS", 0.2)
    log.append(events_of(["a"], 5))
    with log.consumer("group") as silent, LocalLog(tmp_path).consumer("group") as other:
        assert len(silent.poll(3)) == 3
        assert len(other.poll(5, 60)) == 5, "after a while without a sign"
        with pytest.raises(StorageError, match="another consumer"):
            silent.commit()
        assert silent.poll(5, 0) == []
        other.commit()
    assert drained(log)


def test_a_clock_that_goes_back_neither_frees_nor_blocks_a_group(
    log: LocalLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.append(events_of(["a"], 5))
    now = consume_clock(monkeypatch)
    with log.consumer("group") as first:
        assert len(first.poll(2)) == 2
        for hours in (-5, 5):
            now[0] += hours * 3_600 * 10**9
            with LocalLog(tmp_path).consumer("group") as other:
                assert other.poll(5, 0.1) == []
        first.commit()
        now[0] -= 10 * 3_600 * 10**9
        log.append([event("a", 9)])
        assert log.lag("group").seconds >= 0
        assert len(first.poll(10)) == 4
        first.commit()
    assert drained(log)


def consume_clock(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The time of day in nanoseconds, to be set."""
    now = [1_900_000_000 * 10**9]
    monkeypatch.setattr("time.time_ns", lambda: now[0])
    monkeypatch.setattr("time.time", lambda: now[0] / 1e9)
    return now


def test_a_rewind_takes_the_turn_from_whoever_reads(log: LocalLog) -> None:
    log.append(events_of(["a"], 6))
    with log.consumer("group") as consumer:
        consumer.poll(4)
        consumer.commit()
        consumer.poll(1)
        log.rewind("group", 0)
        with pytest.raises(StorageError, match="come again"):
            consumer.commit()
        again = consumer.poll(10)
        assert [each.event.event_id for each in again if each.event] == [f"a/{n}" for n in range(6)]
