"""The contract of every log: its groups, dead letters and lags, besides reading."""

from __future__ import annotations

import contextlib
import threading
import time
from datetime import UTC, datetime
from multiprocessing.synchronize import Event as Signal
from pathlib import Path

from nextedge.errors import StorageError
from nextedge.events.event import Event
from nextedge.events.logs.log import Log
from nextedge.testing.checks import assert_raises, in_threads
from nextedge.testing.logs.access import (
    PATIENCE_SECONDS,
    OpenLog,
    collect,
    ids_of,
    recorded,
    users_of,
)
from nextedge.testing.logs.concurrency import other_process
from nextedge.testing.logs.reading import ReadingContract
from nextedge.testing.logs.sample_events import UNREADABLE, assert_ordered, event, id_of


class LogContract(ReadingContract):
    """Append, read, groups, dead letters, lag: what brokers and live logs have in common."""

    def test_an_empty_log_delivers_nothing(self, open_log: OpenLog) -> None:
        with open_log().consumer("empty") as consumer:
            assert consumer.poll(10, 0.05) == []

    def test_every_group_gets_every_event_once(self, open_log: OpenLog) -> None:
        log: Log = open_log()
        events = recorded(log, ["a", "b", "c"], 20)
        for group in ("one", "two"):
            with log.consumer(group) as consumer:
                deliveries = collect(consumer, 60)
                consumer.commit()
                assert_ordered(delivery.event for delivery in deliveries)
                assert sorted(ids_of(deliveries)) == sorted(map(id_of, events))
                assert all(row.fault is None and row.position for row in deliveries)
        assert {"one", "two"} <= set(log.groups())

    def test_uncommitted_events_come_again(self, open_log: OpenLog) -> None:
        log: Log = open_log()
        recorded(log, ["a", "b"], 10)
        with log.consumer("group") as consumer:
            first = consumer.poll(5, PATIENCE_SECONDS)
            assert 0 < len(first) <= 5
            consumer.commit()
            second = collect(consumer, 20 - len(first))
        with log.consumer("group") as consumer:
            again = collect(consumer, 20 - len(first))
            assert sorted(ids_of(again)) == sorted(ids_of(second))
            assert_ordered(delivery.event for delivery in again)

    def test_committed_events_do_not_come_again(self, open_log: OpenLog) -> None:
        log: Log = open_log()
        recorded(log, ["a"], 3)
        with log.consumer("group") as consumer:
            collect(consumer, 3)
            consumer.commit()
            log.append([event("a", 10)])
            assert ids_of(collect(consumer, 1)) == ["a/10"]
            consumer.commit()
        with log.consumer("group") as consumer:
            assert consumer.poll(10, 0.2) == []

    def test_a_consumer_that_waits_gets_what_comes(self, open_log: OpenLog) -> None:
        log: Log = open_log()
        log.append([event("a", 0)])
        with log.consumer("group") as consumer:
            assert ids_of(collect(consumer, 1)) == ["a/0"]
            # The consumer waits by then.
            later = threading.Timer(0.3, lambda: open_log().append([event("a", 1)]))
            later.start()
            assert ids_of(collect(consumer, 1)) == ["a/1"]
            later.join()
            consumer.commit()

    def test_events_of_a_killed_consumer_go_to_the_next(self, open_log: OpenLog) -> None:
        log: Log = open_log()
        events = recorded(log, ["a", "b"], 10)
        with other_process(_poll_and_stay, open_log) as (child, polled):
            assert polled.wait(PATIENCE_SECONDS)
            child.kill()
            child.join()
        with log.consumer("group") as consumer:
            deliveries = collect(consumer, 20)
            assert sorted(ids_of(deliveries)) == sorted(map(id_of, events))
            assert_ordered(delivery.event for delivery in deliveries)
            consumer.commit()
        assert log.lag("group").events == 0

    def test_a_user_is_with_one_consumer_at_a_time(self, open_log: OpenLog) -> None:
        log: Log = open_log()
        recorded(log, [f"u{n}" for n in range(8)], 5)
        with log.consumer("group") as first, open_log().consumer("group") as second:
            of_first = first.poll(20, PATIENCE_SECONDS)
            of_second = second.poll(40, 1.0)
            if users_of(of_first) & users_of(of_second):
                assert_raises(StorageError, first.commit)
                return
            # A broker may rebalance the group at any time: it then refuses the commit and delivers
            # again, until everything is done.
            until = time.monotonic() + PATIENCE_SECONDS
            while True:
                for consumer in (first, second):
                    with contextlib.suppress(StorageError):
                        consumer.commit()
                if log.lag("group").events == 0:
                    break
                assert time.monotonic() < until, "events are left that nobody can commit"
                for consumer in (first, second):
                    consumer.poll(40, 0.2)

    def test_members_share_events_and_lose_none(self, open_log: OpenLog) -> None:
        log: Log = open_log()
        expected = set(map(id_of, recorded(log, [f"u{n}" for n in range(10)], 40)))
        done: list[Event] = []
        lock, until = threading.Lock(), time.monotonic() + PATIENCE_SECONDS

        def work() -> None:
            log: Log = open_log()
            with log.consumer("group") as consumer:
                while time.monotonic() < until and set(map(id_of, done)) != expected:
                    deliveries = consumer.poll(25, 0.2)
                    with contextlib.suppress(StorageError), lock:
                        consumer.commit()
                        done.extend(row.event for row in deliveries if row.event)
            log.close()

        in_threads([work, work, work])
        assert set(map(id_of, done)) == expected
        # Delivery is at least once: an event that comes again keeps its first place.
        assert_ordered({id_of(event): event for event in done}.values())
        assert log.lag("group").events == 0

    def test_a_dead_letter_has_reason_position_and_body(self, open_log: OpenLog) -> None:
        log: Log = open_log()
        assert log.dead_letters() == []
        recorded(log, ["a"], 3)
        before = time.time_ns() // 1000
        with log.consumer("group") as consumer:
            rejected = collect(consumer, 3)[1]
            consumer.reject(rejected, "no such user: ü")
            consumer.commit()
        log.close()
        (letter,) = open_log().dead_letters()
        assert (letter.group, letter.reason) == ("group", "no such user: ü")
        assert (letter.position, letter.body) == (rejected.position, rejected.body)
        assert before - 10_000_000 < letter.micros < time.time_ns() // 1000 + 10_000_000

    def test_a_commit_passes_rejected_events_of_its_group_alone(self, open_log: OpenLog) -> None:
        log: Log = open_log()
        recorded(log, ["a"], 3)
        with log.consumer("group") as consumer:
            consumer.reject(collect(consumer, 3)[1], "for a test")
            consumer.commit()
        with log.consumer("group") as consumer:
            assert consumer.poll(10, 0.2) == []
        with log.consumer("other") as consumer:
            assert len(collect(consumer, 3)) == 3

    def test_an_unreadable_event_is_delivered_with_its_fault(self, open_log: OpenLog) -> None:
        log: Log = open_log()
        log.append([event("a", 0), UNREADABLE, event("a", 1)])
        with log.consumer("group") as consumer:
            first, unreadable, last = collect(consumer, 3)
            assert ids_of([first, last]) == ["a/0", "a/1"]
            assert unreadable.event is None
            assert b"teleport" in unreadable.body
            assert unreadable.fault
            assert "type" in unreadable.fault, "the fault names the field"
            consumer.reject(unreadable, unreadable.fault)
            consumer.commit()
        assert b"teleport" in log.dead_letters()[0].body

    def test_lag_is_the_number_of_uncommitted_events(self, open_log: OpenLog) -> None:
        log: Log = open_log()
        assert log.lag("group").events == 0
        recorded(log, ["a"], 10)
        with log.consumer("group") as consumer:
            polled = consumer.poll(4, PATIENCE_SECONDS)
            assert log.lag("group").events == 10
            consumer.commit()
            assert log.lag("group").events == 10 - len(polled)
            collect(consumer, 10 - len(polled))
            consumer.commit()
        assert (log.lag("group").events, log.lag("group").seconds) == (0, 0)
        assert log.lag("another").events == 10

    def test_lag_has_the_age_of_the_oldest_event(self, open_log: OpenLog) -> None:
        log: Log = open_log()
        log.append([event("a", 0, timestamp=datetime.now(UTC))])
        time.sleep(0.01)  # an age above 0
        with log.consumer("group") as consumer:
            collect(consumer, 1)
            assert 0 < log.lag("group").seconds < 600

    def test_a_rewound_group_has_events_again(self, open_log: OpenLog) -> None:
        log: Log = open_log()
        events = recorded(log, ["a", "b"], 10)
        _consume(log, 20)
        log.rewind("group", events[10].micros)
        assert log.lag("group").events == 10
        with log.consumer("group") as consumer:
            assert sorted(ids_of(collect(consumer, 10))) == sorted(map(id_of, events[10:]))

    def test_a_rewind_finds_events_out_of_order(self, open_log: OpenLog) -> None:
        log: Log = open_log()
        recorded(log, ["a", "b"], 10)
        _consume(log, 20)
        log.append([event("a", 3, event_id="late"), event("b", 20)])
        log.rewind("group", 0)
        with log.consumer("group") as consumer:
            assert len(collect(consumer, 22)) == 22

    def test_a_rewind_skips_no_uncommitted_event(self, open_log: OpenLog) -> None:
        log: Log = open_log()
        events = recorded(log, ["a", "b"], 10)
        with log.consumer("group") as consumer:
            collect(consumer, 20)
        log.rewind("group", events[-1].micros)
        assert log.lag("group").events == 20

    def test_events_and_groups_outlive_the_object(self, open_log: OpenLog) -> None:
        log: Log = open_log()
        recorded(log, ["a"], 6)
        with log.consumer("group") as consumer:
            polled = consumer.poll(2, PATIENCE_SECONDS)
            consumer.commit()
        position = log.last_position()
        log.close()
        again: Log = open_log()
        assert again.last_position() == position
        assert len(list(again.read())) == 6
        assert again.lag("group").events == 6 - len(polled)
        assert "group" in again.groups()


def _consume(log: Log, count: int) -> None:
    """Let the group ``group`` commit so many events."""
    with log.consumer("group") as consumer:
        collect(consumer, count)
        consumer.commit()


def _poll_and_stay(url: str | None, folder: Path, polled: Signal) -> None:
    consumer = OpenLog(url, folder)().consumer("group")
    while not consumer.poll(5, 0.5):
        pass
    polled.set()
    time.sleep(PATIENCE_SECONDS)  # until the test kills this process
