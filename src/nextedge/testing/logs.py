"""What every event log must keep, wherever its events lie.

A log is checked by a test class that derives from ``LogContract``, or from ``LiveLogContract`` if
it is a live log, and has a fixture ``open_log`` that gives an ``OpenLog``::

    class TestMyLog(LiveLogContract):
        @pytest.fixture
        def open_log(self, tmp_path):
            opened = OpenLog("mine://host", tmp_path)
            yield opened
            opened.close()
"""

from __future__ import annotations

import contextlib
import multiprocessing
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event as Signal
from pathlib import Path
from typing import Any

from nextedge.config import Config, EventsConfig
from nextedge.errors import LogFullError, StorageError
from nextedge.events.event import Event
from nextedge.events.logs.log import BEGINNING, Consumer, Delivery, LiveLog, Log, Position, open_log

_PATIENCE_SECONDS = 90.0
"""How long a test waits for leases to end and groups to settle."""
_START = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
_ODD_IDS: tuple[int | str, ...] = (
    *(1, "1", -7, 2**62, "ü/日本", "' OR 1=1 --", "line\nend", "{a}:b", "*", "tab\tend", " ", "🙂"),
)


class OpenLog:
    """Opens logs by the tenant's name; the same name again is the same log, in another object.

    Args:
        url: as in ``[events] log``; None is the local log.
        folder: each tenant's state is in a folder of its name.
    """

    def __init__(self, url: str | None, folder: Path) -> None:
        self.url = url
        self.folder = folder
        self._opened: list[Log] = []

    def config(self, tenant: str = "acme", max_backlog: int = 1_000_000) -> Config:
        """What a log of a tenant is opened with."""
        events = EventsConfig(max_backlog=max_backlog)
        return Config(tenant=tenant, state=str(self.folder / tenant), events=events)

    def __call__(self, tenant: str = "acme", max_backlog: int = 1_000_000) -> Any:
        """A log; ``close`` closes it."""
        self._opened.append(open_log(self.url, self.config(tenant, max_backlog)))
        return self._opened[-1]

    def close(self) -> None:
        """Close every log that was opened."""
        for log in self._opened:
            log.close()


def event(user: int | str, number: int, **more: Any) -> Event:
    """The ``number``-th event of a user, a second after the one before."""
    when = _START + timedelta(seconds=number)
    given = {"type": "interact", "item_id": f"i{number}", "event_id": f"{user}/{number}", **more}
    return Event(user_id=user, timestamp=given.pop("timestamp", when), number=number, **given)


def events_of(users: Sequence[int | str], count: int) -> list[Event]:
    """So many events of each user, taking turns."""
    return [event(user, number) for number in range(count) for user in users]


class LaterEvent(Event):
    """An event of a type that a later version records, and this one cannot read."""

    type: str


def recorded(log: Log, users: Sequence[int | str], count: int) -> list[Event]:
    """Append so many events of each user; returns them."""
    events = events_of(users, count)
    log.append(events)
    return events


class LogContract:
    """Append, read, groups, dead letters, lag: what brokers and live logs have in common."""

    def test_an_empty_log_has_no_event_and_no_position(self, open_log: OpenLog) -> None:
        log: Log = open_log()
        assert log.append([]) == 0
        assert not log.last_position()
        assert list(log.read()) == []

    def test_events_are_read_as_they_were_recorded(self, open_log: OpenLog) -> None:
        log: Log = open_log()
        events = events_of(["a", "b", 3], 5)
        assert log.append(events[:1]) == 1
        assert log.append(events[1:]) == 14
        read = [event for _, event in log.read()]
        assert sorted(read, key=_id) == sorted(events, key=_id)
        assert_ordered(read)

    def test_reading_goes_on_after_any_position(self, open_log: OpenLog) -> None:
        log: Log = open_log()
        recorded(log, ["a", "b"], 4)
        read = list(log.read())
        assert len({position for position, _ in read} - {BEGINNING}) == 8
        for number, (position, _) in enumerate(read, 1):
            assert _read_ids(log, position) == [_id(event) for _, event in read[number:]]

    def test_the_last_position_is_the_end(self, open_log: OpenLog) -> None:
        log: Log = open_log()
        recorded(log, ["a", "b"], 4)
        last = log.last_position()
        assert list(log.read(last)) == []
        log.append([event("a", 9)])
        assert _read_ids(log, last) == ["a/9"]
        assert log.last_position() != last

    def test_a_limit_bounds_what_is_read(self, open_log: OpenLog) -> None:
        log: Log = open_log()
        recorded(log, ["a", "b"], 4)
        read = list(log.read())
        assert _read_ids(log, read[2][0], 2) == [_id(event) for _, event in read[3:5]]
        assert [len(_read_ids(log, BEGINNING, limit)) for limit in (0, 3, 100)] == [0, 3, 8]

    def test_unknown_fields_and_any_id_are_kept(self, open_log: OpenLog) -> None:
        log: Log = open_log()
        more = {"note": "ü 🙂 \x00", "score": 0.1, "deep": {"list": [1, None, {"x": True}]}}
        events = [
            event(user, 0, event_id=f"odd {number} ü", candidate_id=f"c{user}", **more)
            for number, user in enumerate(_ODD_IDS)
        ]
        assert log.append(events) == len(events)
        read = {_id(found): found for _, found in log.read()}
        for expected in events:
            found = read[expected.event_id]
            assert found == expected
            assert type(found.user_id) is type(expected.user_id), "an id stays a number or a text"
            assert found.model_extra == expected.model_extra

    def test_large_batches_and_large_events(self, open_log: OpenLog) -> None:
        log: Log = open_log()
        large = event("large", 0, note="x" * 200_000)
        assert log.append([*events_of([f"u{n}" for n in range(30)], 100), large]) == 3001
        read = [found for _, found in log.read()]
        assert len(read) == 3001
        assert_ordered(read)
        assert large in read

    def test_tenants_read_only_their_own_events(self, open_log: OpenLog) -> None:
        logs: dict[str, Log] = {name: open_log(name) for name in ("a", "ab", "a.b", "a-b", "A")}
        for name, log in logs.items():
            recorded(log, [name], 2)
        for name, log in logs.items():
            assert {_id(found) for _, found in log.read()} == {f"{name}/0", f"{name}/1"}
            with log.consumer("group") as consumer:
                assert _users(collect(consumer, 2)) == {name}

    def test_groups_of_tenants_are_apart(self, open_log: OpenLog) -> None:
        one, other = open_log("a"), open_log("a-b")
        for log in (one, other):
            recorded(log, ["user"], 2)
        with one.consumer("group") as consumer:
            consumer.reject(collect(consumer, 2)[0], "of a")
            consumer.commit()
        assert (one.lag("group").events, other.lag("group").events) == (0, 2)
        assert (len(one.dead_letters()), other.dead_letters()) == (1, [])

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
                assert sorted(_ids(deliveries)) == sorted(map(_id, events))
                assert all(found.fault is None and found.position for found in deliveries)
        assert {"one", "two"} <= set(log.groups())

    def test_uncommitted_events_come_again(self, open_log: OpenLog) -> None:
        log: Log = open_log()
        recorded(log, ["a", "b"], 10)
        with log.consumer("group") as consumer:
            first = consumer.poll(5, _PATIENCE_SECONDS)
            assert 0 < len(first) <= 5
            consumer.commit()
            second = collect(consumer, 20 - len(first))
        with log.consumer("group") as consumer:
            again = collect(consumer, 20 - len(first))
            assert sorted(_ids(again)) == sorted(_ids(second))
            assert_ordered(delivery.event for delivery in again)

    def test_committed_events_do_not_come_again(self, open_log: OpenLog) -> None:
        log: Log = open_log()
        recorded(log, ["a"], 3)
        with log.consumer("group") as consumer:
            collect(consumer, 3)
            consumer.commit()
            log.append([event("a", 10)])
            assert _ids(collect(consumer, 1)) == ["a/10"]
            consumer.commit()
        with log.consumer("group") as consumer:
            assert consumer.poll(10, 0.2) == []

    def test_a_consumer_that_waits_gets_what_comes(self, open_log: OpenLog) -> None:
        log: Log = open_log()
        log.append([event("a", 0)])
        with log.consumer("group") as consumer:
            assert _ids(collect(consumer, 1)) == ["a/0"]
            later = threading.Timer(0.3, lambda: open_log().append([event("a", 1)]))
            later.start()
            assert _ids(collect(consumer, 1)) == ["a/1"]
            later.join()
            consumer.commit()

    def test_events_of_a_killed_consumer_go_to_the_next(self, open_log: OpenLog) -> None:
        log: Log = open_log()
        events = recorded(log, ["a", "b"], 10)
        with _process(_poll_and_stay, open_log) as (child, polled):
            assert polled.wait(_PATIENCE_SECONDS)
            child.kill()
            child.join()
        with log.consumer("group") as consumer:
            deliveries = collect(consumer, 20)
            assert sorted(_ids(deliveries)) == sorted(map(_id, events))
            assert_ordered(delivery.event for delivery in deliveries)
            consumer.commit()
        assert log.lag("group").events == 0

    def test_a_user_is_with_one_consumer_at_a_time(self, open_log: OpenLog) -> None:
        log: Log = open_log()
        recorded(log, [f"u{n}" for n in range(8)], 5)
        with log.consumer("group") as first, open_log().consumer("group") as second:
            of_first = first.poll(20, _PATIENCE_SECONDS)
            of_second = second.poll(40, 1.0)
            if _users(of_first) & _users(of_second):
                _assert_raises(StorageError, first.commit)
            else:
                first.commit()
                second.commit()

    def test_members_share_events_and_lose_none(self, open_log: OpenLog) -> None:
        log: Log = open_log()
        expected = set(map(_id, recorded(log, [f"u{n}" for n in range(10)], 40)))
        done: list[Event] = []
        lock, until = threading.Lock(), time.monotonic() + _PATIENCE_SECONDS

        def work() -> None:
            own: Log = open_log()
            with own.consumer("group") as consumer:
                while time.monotonic() < until and set(map(_id, done)) != expected:
                    deliveries = consumer.poll(25, 0.2)
                    with contextlib.suppress(StorageError), lock:
                        consumer.commit()
                        done.extend(found.event for found in deliveries if found.event)
            own.close()

        _in_threads([work, work, work])
        assert set(map(_id, done)) == expected
        assert_ordered({_id(found): found for found in done}.values())
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

    def test_reading_leaves_unreadable_events_out(self, open_log: OpenLog) -> None:
        log: Log = open_log()
        log.append([event("a", 0), _unreadable(), event("a", 1)])
        assert _read_ids(log) == ["a/0", "a/1"]
        assert list(log.read(log.last_position())) == []

    def test_an_unreadable_event_is_delivered_with_its_fault(self, open_log: OpenLog) -> None:
        log: Log = open_log()
        log.append([event("a", 0), _unreadable(), event("a", 1)])
        with log.consumer("group") as consumer:
            first, unreadable, last = collect(consumer, 3)
            assert _ids([first, last]) == ["a/0", "a/1"]
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
            polled = consumer.poll(4, _PATIENCE_SECONDS)
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
        time.sleep(0.01)
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
            assert sorted(_ids(collect(consumer, 10))) == sorted(map(_id, events[10:]))

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

    def test_concurrent_appends_lose_nothing(self, open_log: OpenLog) -> None:
        def work(name: str) -> None:
            own: Log = open_log()
            _append_in_batches(own, name)
            own.close()

        log: Log = open_log()
        log.append([event("first", 0)])
        with _process(_append_many, open_log) as (child, _):
            _in_threads([partial(work, name) for name in "abcd"])
            child.join(_PATIENCE_SECONDS)
            assert child.exitcode == 0
        read = [found for _, found in log.read()]
        assert len(read) == 1 + 4 * 60 + 60
        assert len({_id(found) for found in read}) == len(read)
        assert_ordered(read)

    def test_events_and_groups_outlive_the_object(self, open_log: OpenLog) -> None:
        log: Log = open_log()
        recorded(log, ["a"], 6)
        with log.consumer("group") as consumer:
            polled = consumer.poll(2, _PATIENCE_SECONDS)
            consumer.commit()
        position = log.last_position()
        log.close()
        again: Log = open_log()
        assert again.last_position() == position
        assert len(list(again.read())) == 6
        assert again.lag("group").events == 6 - len(polled)
        assert "group" in again.groups()

    def test_a_closed_log_connects_anew(self, open_log: OpenLog) -> None:
        log: Log = open_log()
        recorded(log, ["a"], 6)
        position = log.last_position()
        log.close()
        log.close()
        assert log.append([event("a", 6)]) == 1
        assert _read_ids(open_log(), position) == ["a/6"]


class LiveLogContract(LogContract):
    """What a log keeps besides if every process folds it into its overlay."""

    def test_positions_are_one_order_for_all(self, open_log: OpenLog) -> None:
        log: LiveLog = open_log()
        events = recorded(log, ["a", "b", "c"], 20)
        for reader in (log, open_log()):
            assert [found for _, found in reader.read()] == events
        assert list(log.read())[-1][0] == log.last_position()

    def test_pages_follow_one_another(self, open_log: OpenLog) -> None:
        log: LiveLog = open_log()
        events = recorded(log, ["a", "b", "c"], 20)
        page = list(log.read(BEGINNING, 7))
        assert [found for _, found in page] == events[:7]
        assert [found for _, found in log.read(page[-1][0])] == events[7:]

    def test_an_event_id_counts_once(self, open_log: OpenLog) -> None:
        log: LiveLog = open_log()
        assert log.append([event("a", 0), event("a", 0), event("a", 1)]) == 2
        last = log.last_position()
        assert log.append([event("a", 1), event("a", 0)]) == 0
        assert log.append([event("z", 9, event_id="a/1")]) == 0
        assert open_log().append([event("a", 1), event("a", 2)]) == 1
        assert _read_ids(log) == ["a/0", "a/1", "a/2"]
        assert _read_ids(log, last) == ["a/2"]

    def test_of_appends_at_the_same_time_one_counts(self, open_log: OpenLog) -> None:
        stored: list[int] = []

        def work() -> None:
            stored.append(open_log().append(events_of(["many"], 50)))

        _in_threads([work] * 6)
        assert sum(stored) == 50
        assert len(_read_ids(open_log())) == 50

    def test_changes_differ_only_after_an_append(self, open_log: OpenLog) -> None:
        log: LiveLog = open_log()
        for quick in (False, True):
            before = log.changes(quick=quick)
            assert log.changes(quick=quick) == before
            log.append([event("own", int(quick))])
            assert log.changes(quick=quick) != before

    def test_changes_tell_of_other_objects_and_threads(self, open_log: OpenLog) -> None:
        log: LiveLog = open_log()
        other: LiveLog = open_log()
        for quick in (False, True):
            before = log.changes(quick=quick)
            other.append([event("other", int(quick))])
            between = log.changes(quick=quick)
            assert between != before
            _in_threads([partial(other.append, [event("thread", int(quick))])])
            assert log.changes(quick=quick) != between

    def test_changes_tell_of_other_processes(self, open_log: OpenLog) -> None:
        log: LiveLog = open_log()
        before = log.changes(quick=True)
        with _process(_append_many, open_log) as (child, _):
            child.join(_PATIENCE_SECONDS)
        assert log.changes(quick=True) != before

    def test_who_recorded_an_event_first_is_remembered(self, open_log: OpenLog) -> None:
        log: LiveLog = open_log()
        log.append([event("a", 0)])
        assert log.append([event("a", 0), event("a", 1)], relayed=True) == 1
        log.append([event("a", 1), event("a", 2)])
        log.close()
        with open_log().consumer("group") as consumer:
            relayed = [delivery.relayed for delivery in collect(consumer, 3)]
        assert relayed == [False, True, False]
        assert [found for _, found in log.read()] == events_of(["a"], 3), "unchanged by the mark"

    def test_a_purge_changes_the_generation(self, open_log: OpenLog) -> None:
        log: LiveLog = open_log()
        recorded(log, ["a"], 2)
        generation, changes = log.generation(), log.changes()
        log.purge([log.last_position()])
        assert log.generation() != generation
        assert open_log().generation() == log.generation()
        assert log.changes() != changes

    def test_purged_events_leave_nothing(self, open_log: OpenLog) -> None:
        log, secret = _with_purged_events(open_log)
        assert _read_ids(log) == ["a/0"]
        assert [secret in letter.body.decode() for letter in log.dead_letters()] == [False]
        for path in open_log.folder.rglob("*"):
            assert not path.is_file() or secret.encode() not in path.read_bytes(), path

    def test_purged_events_are_not_delivered(self, open_log: OpenLog) -> None:
        log, _ = _with_purged_events(open_log)
        with log.consumer("new") as consumer:
            assert _ids(consumer.poll(10, _PATIENCE_SECONDS)) == ["a/0"]
            assert consumer.poll(10, 0.1) == []

    def test_a_position_is_not_given_twice_after_a_purge(self, open_log: OpenLog) -> None:
        log, _ = _with_purged_events(open_log)
        log.append([event("a", 3)])
        with log.consumer("group") as consumer:
            assert _ids(collect(consumer, 1)) == ["a/3"]
            consumer.commit()
        assert log.lag("group").events == 0

    def test_a_full_log_takes_events_after_a_commit(self, open_log: OpenLog) -> None:
        log: LiveLog = open_log(max_backlog=10)
        log.append(events_of(["before"], 30))  # no group waits for them yet
        with log.consumer("group") as consumer:
            collect(consumer, 30)
            _assert_full(log, event("a", 0))
            consumer.commit()
            assert log.append(events_of(["a"], 10)) == 10
            _assert_full(log, event("a", 10))
            collect(consumer, 10)
            _assert_full(log, event("a", 10))
            consumer.commit()
            assert log.append(events_of(["b"], 10)) == 10
        assert len(_read_ids(log)) == 50, "refused events are not stored"

    def test_a_full_log_is_full_for_its_tenant_alone(self, open_log: OpenLog) -> None:
        log = _full(open_log)
        _assert_full(open_log(max_backlog=10), event("a", 10))
        assert open_log("other", max_backlog=10).append(events_of(["b"], 11)) == 11
        assert len(_read_ids(log)) == 10

    def test_a_full_log_takes_relayed_events(self, open_log: OpenLog) -> None:
        log = _full(open_log)
        assert log.append([event("a", 11), event("a", 12)], relayed=True) == 2
        _assert_full(log, event("a", 13))

    def test_nothing_waits_for_a_dropped_group(self, open_log: OpenLog) -> None:
        log = _full(open_log)
        log.drop("group")
        log.drop("group")
        assert log.groups() == []
        assert log.append([event("a", 13)]) == 1
        assert log.lag("group").events == 11


def _unreadable() -> Event:
    return LaterEvent(type="teleport", user_id="a", event_id="poison", item_id="x")


def _consume(log: Log, count: int) -> None:
    """Let the group ``group`` commit so many events."""
    with log.consumer("group") as consumer:
        collect(consumer, count)
        consumer.commit()


def _full(open_log: OpenLog) -> LiveLog:
    """A log for whose group so many events wait that it takes no more."""
    log: LiveLog = open_log(max_backlog=10)
    with log.consumer("group") as consumer:
        consumer.poll(1, 0.1)
        log.append(events_of(["a"], 10))
        collect(consumer, 10)
    _assert_full(log, event("a", 10))
    return log


def _with_purged_events(open_log: OpenLog) -> tuple[LiveLog, str]:
    """A log out of which two of three events, rejected by a group, were taken; their secret."""
    log: LiveLog = open_log()
    secret = "0f47ac10b58cc4372a5670e02b2c3d479"
    log.append([event("a", 0), event("a", 1, note=secret), event("b", 2, note=secret)])
    with log.consumer("group") as consumer:
        for delivery in collect(consumer, 3):
            consumer.reject(delivery, "for a test")
        consumer.commit()
    log.purge([position for position, found in log.read() if found.given("note")])
    return log, secret


def collect(consumer: Consumer, count: int) -> list[Delivery]:
    """Poll until so many were delivered; fails if they do not come, or more do."""
    deliveries: list[Delivery] = []
    until = time.monotonic() + _PATIENCE_SECONDS
    while len(deliveries) < count:
        assert time.monotonic() < until, f"{len(deliveries)} of {count} events came"
        deliveries += consumer.poll(1000, 0.5)
    assert len(deliveries) == count
    return deliveries


def assert_ordered(events: Iterable[Event | None]) -> None:
    """Each user's events are in the order of their numbers."""
    last: dict[Any, int] = {}
    for found in events:
        assert found is not None
        number = found.given("number")
        assert last.get(found.user_id, -1) < number, f"{found.user_id}: out of order"
        last[found.user_id] = number


def _append_in_batches(log: Log, user: str) -> None:
    for start in range(0, 60, 6):
        log.append([event(user, number) for number in range(start, start + 6)])


def _append_many(url: str | None, folder: Path, _: Signal) -> None:
    log = OpenLog(url, folder)()
    _append_in_batches(log, "child")
    log.close()


def _poll_and_stay(url: str | None, folder: Path, polled: Signal) -> None:
    consumer = OpenLog(url, folder)().consumer("group")
    while not consumer.poll(5, 0.5):
        pass
    polled.set()
    time.sleep(_PATIENCE_SECONDS)


@contextlib.contextmanager
def _process(
    work: Callable[[str | None, Path, Signal], None], opened: OpenLog
) -> Iterator[tuple[BaseProcess, Signal]]:
    """Another process that works on the same logs, and what it signals with."""
    context = multiprocessing.get_context("spawn")
    signal = context.Event()
    child = context.Process(target=work, args=(opened.url, opened.folder, signal))
    child.start()
    try:
        yield child, signal
    finally:
        if child.is_alive():
            child.kill()
        child.join()
        child.close()


def _in_threads(works: Sequence[Callable[[], object]]) -> None:
    faults: list[BaseException] = []

    def run(work: Callable[[], object]) -> None:
        try:
            work()
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if faults:
        raise faults[0]


def _id(event: Event) -> str:
    return event.event_id


def _ids(deliveries: Iterable[Delivery]) -> list[str]:
    return [found.event.event_id for found in deliveries if found.event is not None]


def _read_ids(log: Log, after: Position = BEGINNING, limit: int | None = None) -> list[str]:
    return [_id(event) for _, event in log.read(after, limit)]


def _users(deliveries: Iterable[Delivery]) -> set[Any]:
    return {found.event.user_id for found in deliveries if found.event is not None}


def _assert_full(log: Log, refused: Event) -> None:
    try:
        log.append([refused])
    except LogFullError as error:
        if error.retry_after_seconds > 0:
            return
    raise AssertionError("expected LogFullError with seconds to wait")


def _assert_raises(expected: type[Exception], call: Callable[[], object]) -> None:
    try:
        call()
    except expected:
        return
    raise AssertionError(f"expected {expected.__name__}")
