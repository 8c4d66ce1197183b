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
from nextedge.events.logs.log import BEGINNING, Consumer, Delivery, LiveLog, Log, open_log

_PATIENCE_SECONDS = 90.0
"""How long a check waits for what must happen at some time: leases end, groups settle."""
_START = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
_ODD_IDS: tuple[int | str, ...] = (
    1,
    "1",
    -7,
    2**62,
    "ü/日本",
    "' OR 1=1 --",
    "line\nend",
    "{a}:b",
    "*",
    "tab\tend",
    " ",
    "🙂",
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


class LogContract:
    """Append, read, groups, dead letters, lag: what brokers and live logs have in common."""

    def test_events_are_read_as_they_were_recorded(self, open_log: OpenLog) -> None:
        log: Log = open_log()
        assert not log.last_position()
        assert list(log.read()) == []
        assert log.append([]) == 0
        given = events_of(["a", "b", 3], 5)
        assert log.append(given[:1]) == 1
        assert log.append(given[1:]) == 14
        read = [each for _, each in log.read()]
        assert sorted(read, key=_id) == sorted(given, key=_id)
        assert_ordered(read)

    def test_positions_say_where_to_go_on(self, open_log: OpenLog) -> None:
        log: Log = open_log()
        log.append(events_of(["a", "b"], 4))
        read = list(log.read())
        positions = [position for position, _ in read]
        assert len(set(positions)) == 8
        assert BEGINNING not in positions
        for place, position in enumerate(positions):
            rest = {_id(each) for _, each in log.read(position)}
            assert rest == {_id(each) for _, each in read[place + 1 :]}
        last = log.last_position()
        assert list(log.read(last)) == []
        log.append([event("a", 9)])
        assert [_id(each) for _, each in log.read(last)] == ["a/9"]
        assert log.last_position() != last
        assert len(list(log.read(BEGINNING, 3))) == 3
        assert [_id(each) for _, each in log.read(positions[2], 2)] == [
            _id(each) for _, each in read[3:5]
        ]
        assert len(list(log.read(BEGINNING, 100))) == 9
        assert list(log.read(BEGINNING, 0)) == []

    def test_unknown_fields_and_any_id_are_kept(self, open_log: OpenLog) -> None:
        log: Log = open_log()
        more = {"note": "ü 🙂 \x00", "score": 0.1, "deep": {"list": [1, None, {"x": True}]}}
        given = [
            event(user, 0, event_id=f"odd {place} ü", candidate_id=f"c{user}", **more)
            for place, user in enumerate(_ODD_IDS)
        ]
        assert log.append(given) == len(given)
        read = {_id(each): each for _, each in log.read()}
        for each in given:
            found = read[each.event_id]
            assert found == each
            assert type(found.user_id) is type(each.user_id), "an id stays a number or a text"
            assert found.model_extra == each.model_extra

    def test_large_batches_and_large_events(self, open_log: OpenLog) -> None:
        log: Log = open_log()
        large = event("large", 0, note="x" * 200_000)
        assert log.append([*events_of([f"u{n}" for n in range(30)], 100), large]) == 3001
        read = [each for _, each in log.read()]
        assert len(read) == 3001
        assert_ordered(read)
        assert large in read

    def test_tenants_see_nothing_of_each_other(self, open_log: OpenLog) -> None:
        names = ("a", "ab", "a.b", "a-b", "A")
        logs: dict[str, Log] = {name: open_log(name) for name in names}
        for name, log in logs.items():
            log.append([event(name, 0), event(name, 1)])
        for name, log in logs.items():
            assert {_id(each) for _, each in log.read()} == {f"{name}/0", f"{name}/1"}
            with log.consumer("group") as consumer:
                got = collect(consumer, 2)
                assert {each.event.user_id for each in got if each.event} == {name}
                if name == "a":
                    consumer.reject(got[0], "of a")
                    consumer.commit()
        assert logs["a"].lag("group").events == 0
        assert len(logs["a"].dead_letters()) == 1
        for name in names[1:]:
            assert logs[name].lag("group").events == 2
            assert logs[name].dead_letters() == []

    def test_groups_get_everything_each(self, open_log: OpenLog) -> None:
        log: Log = open_log()
        with log.consumer("empty") as consumer:
            assert consumer.poll(10, 0.05) == []
        given = events_of(["a", "b", "c"], 20)
        log.append(given)
        for group in ("one", "two"):
            with log.consumer(group) as consumer:
                got = collect(consumer, 60)
                consumer.commit()
                assert_ordered(each.event for each in got)
                assert sorted(_ids(got)) == sorted(map(_id, given)), "each once"
                assert all(each.fault is None and each.position for each in got)
        assert {"one", "two"} <= set(log.groups())

    def test_what_is_not_committed_comes_again(self, open_log: OpenLog) -> None:
        log: Log = open_log()
        log.append(events_of(["a", "b"], 10))
        with log.consumer("group") as consumer:
            first = consumer.poll(5, _PATIENCE_SECONDS)
            assert 0 < len(first) <= 5
            consumer.commit()
            second = collect(consumer, 20 - len(first))
        with log.consumer("group") as consumer:
            again = collect(consumer, 20 - len(first))
            assert sorted(_ids(again)) == sorted(_ids(second))
            assert_ordered(each.event for each in again)
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

    def test_a_dead_consumers_events_go_to_the_next(self, open_log: OpenLog) -> None:
        log: Log = open_log()
        log.append(events_of(["a", "b"], 10))
        with _process(_poll_and_stay, open_log) as (child, polled):
            assert polled.wait(_PATIENCE_SECONDS)
            child.kill()
            child.join()
        with log.consumer("group") as consumer:
            got = collect(consumer, 20)
            assert sorted(_ids(got)) == sorted(f"{u}/{n}" for u in "ab" for n in range(10))
            assert_ordered(each.event for each in got)
            consumer.commit()
        assert log.lag("group").events == 0

    def test_a_user_is_with_one_consumer_at_a_time(self, open_log: OpenLog) -> None:
        log: Log = open_log()
        log.append(events_of([f"u{n}" for n in range(8)], 5))
        with log.consumer("group") as first, open_log().consumer("group") as second:
            mine = first.poll(20, _PATIENCE_SECONDS)
            theirs = second.poll(40, 1.0)
            if _users(mine) & _users(theirs):
                _assert_raises(StorageError, first.commit)
            else:
                first.commit()
                second.commit()

    def test_members_share_and_lose_nothing(self, open_log: OpenLog) -> None:
        given = events_of([f"u{n}" for n in range(10)], 40)
        log: Log = open_log()
        log.append(given)
        done: list[Event | None] = []
        wanted, lock = set(map(_id, given)), threading.Lock()
        until = time.monotonic() + _PATIENCE_SECONDS

        def work() -> None:
            own: Log = open_log()
            with own.consumer("group") as consumer:
                while time.monotonic() < until and {_id(e) for e in done if e} != wanted:
                    got = consumer.poll(25, 0.2)
                    with contextlib.suppress(StorageError), lock:
                        consumer.commit()
                        done.extend(each.event for each in got)
            own.close()

        _in_threads([work, work, work])
        assert {_id(each) for each in done if each} == wanted
        assert_ordered({_id(each): each for each in done if each}.values())
        assert log.lag("group").events == 0

    def test_dead_letters_keep_the_reason(self, open_log: OpenLog) -> None:
        log: Log = open_log()
        assert log.dead_letters() == []
        log.append(events_of(["a"], 3))
        before = time.time_ns() // 1000
        with log.consumer("group") as consumer:
            got = collect(consumer, 3)
            consumer.reject(got[1], "no such user: ü")
            consumer.commit()
        with log.consumer("group") as consumer:
            assert consumer.poll(10, 0.2) == [], "a commit passes what was rejected"
        log.close()
        (letter,) = open_log().dead_letters()
        assert (letter.group, letter.reason) == ("group", "no such user: ü")
        assert (letter.position, letter.body) == (got[1].position, got[1].body)
        assert before - 10_000_000 < letter.micros < time.time_ns() // 1000 + 10_000_000
        with log.consumer("other") as consumer:
            assert len(collect(consumer, 3)) == 3, "another group has its own opinion"

    def test_what_cannot_be_read_is_delivered_as_a_fault(self, open_log: OpenLog) -> None:
        log: Log = open_log()
        poison = LaterEvent(type="teleport", user_id="a", event_id="poison", item_id="x")
        log.append([event("a", 0), poison, event("a", 1)])
        assert [_id(each) for _, each in log.read()] == ["a/0", "a/1"]
        assert list(log.read(log.last_position())) == []
        with log.consumer("group") as consumer:
            got = collect(consumer, 3)
            assert [each.event and each.event.event_id for each in got] == ["a/0", None, "a/1"]
            assert b"teleport" in got[1].body
            assert got[1].fault
            assert "type" in got[1].fault, "the fault names the field"
            consumer.reject(got[1], got[1].fault)
            consumer.commit()
        assert b"teleport" in log.dead_letters()[0].body

    def test_lag_is_what_is_not_committed(self, open_log: OpenLog) -> None:
        log: Log = open_log()
        assert log.lag("group").events == 0
        now = datetime.now(UTC)
        log.append([event("a", n, timestamp=now) for n in range(10)])
        assert log.lag("group").events == 10
        time.sleep(0.01)
        with log.consumer("group") as consumer:
            got = consumer.poll(4, _PATIENCE_SECONDS)
            behind = log.lag("group")
            assert behind.events == 10
            assert 0 < behind.seconds < 600
            consumer.commit()
            assert log.lag("group").events == 10 - len(got)
            collect(consumer, 10 - len(got))
            consumer.commit()
        assert (log.lag("group").events, log.lag("group").seconds) == (0, 0)
        assert log.lag("another").events == 10

    def test_a_group_can_have_events_again(self, open_log: OpenLog) -> None:
        log: Log = open_log()
        given = events_of(["a", "b"], 10)
        log.append(given)
        with log.consumer("group") as consumer:
            collect(consumer, 20)
            consumer.commit()
        since = given[10].micros
        log.rewind("group", since)
        assert log.lag("group").events == 10
        with log.consumer("group") as consumer:
            got = collect(consumer, 10)
            assert sorted(_ids(got)) == sorted(map(_id, given[10:]))
            consumer.commit()
        log.append([event("a", 3, event_id="late"), event("b", 20)])  # out of order
        log.rewind("group", 0)
        with log.consumer("group") as consumer:
            assert len(collect(consumer, 22)) == 22
            consumer.poll(10, 0.1)
        log.rewind("group", given[-1].micros)
        assert log.lag("group").events == 22, "nothing that was not committed is skipped"

    def test_concurrent_appends_lose_nothing(self, open_log: OpenLog) -> None:
        def work(name: str) -> None:
            own: Log = open_log()
            for start in range(0, 60, 6):
                own.append([event(name, number) for number in range(start, start + 6)])
            own.close()

        log: Log = open_log()
        log.append([event("first", 0)])
        with _process(_append_many, open_log) as (child, _):
            _in_threads([partial(work, name) for name in "abcd"])
            child.join(_PATIENCE_SECONDS)
            assert child.exitcode == 0
        read = [each for _, each in log.read()]
        assert len(read) == 1 + 4 * 60 + 60
        assert len({_id(each) for each in read}) == len(read)
        assert_ordered(read)

    def test_everything_outlives_the_object(self, open_log: OpenLog) -> None:
        log: Log = open_log()
        log.append(events_of(["a"], 6))
        with log.consumer("group") as consumer:
            got = consumer.poll(2, _PATIENCE_SECONDS)
            consumer.commit()
        position = log.last_position()
        log.close()
        log.close()
        again: Log = open_log()
        assert again.last_position() == position
        assert len(list(again.read())) == 6
        assert again.lag("group").events == 6 - len(got)
        assert "group" in again.groups()
        assert log.append([event("a", 6)]) == 1, "a log that was closed connects anew"
        assert len(list(again.read(position))) == 1


class LiveLogContract(LogContract):
    """What a log keeps besides if every process folds it into its overlay."""

    def test_positions_are_one_order_for_all(self, open_log: OpenLog) -> None:
        log: LiveLog = open_log()
        given = events_of(["a", "b", "c"], 20)
        log.append(given)
        assert [each for _, each in log.read()] == given
        assert [each for _, each in open_log().read()] == given
        read = list(log.read(BEGINNING, 7))
        assert [each for _, each in read] == given[:7]
        assert [each for _, each in log.read(read[-1][0])] == given[7:]
        assert list(log.read())[-1][0] == log.last_position()

    def test_an_event_id_counts_once(self, open_log: OpenLog) -> None:
        log: LiveLog = open_log()
        assert log.append([event("a", 0), event("a", 0), event("a", 1)]) == 2
        last = log.last_position()
        assert log.append([event("a", 1), event("a", 0)]) == 0
        assert log.append([event("z", 9, event_id="a/1")]) == 0
        assert open_log().append([event("a", 1), event("a", 2)]) == 1
        assert [_id(each) for _, each in log.read()] == ["a/0", "a/1", "a/2"]
        assert next(each for _, each in log.read(last)).event_id == "a/2"
        stored: list[int] = []

        def work() -> None:
            stored.append(open_log().append([event("many", n) for n in range(50)]))

        _in_threads([work] * 6)
        assert sum(stored) == 50, "of appends at the same time one counts"
        assert len(list(log.read())) == 53

    def test_changes_tell_of_every_append(self, open_log: OpenLog) -> None:
        log: LiveLog = open_log()
        other: LiveLog = open_log()
        for quick in (False, True):
            seen = log.changes(quick=quick)
            assert log.changes(quick=quick) == seen
            log.append([event("own", int(quick))])
            own = log.changes(quick=quick)
            assert own != seen
            other.append([event("other", int(quick))])
            others = log.changes(quick=quick)
            assert others != own
            _in_threads([partial(other.append, [event("thread", int(quick))])])
            assert log.changes(quick=quick) != others
        seen = log.changes(quick=True)
        with _process(_append_many, open_log) as (child, _):
            child.join(_PATIENCE_SECONDS)
        assert log.changes(quick=True) != seen

    def test_what_came_from_a_broker_is_remembered(self, open_log: OpenLog) -> None:
        log: LiveLog = open_log()
        log.append([event("a", 0)])
        assert log.append([event("a", 0), event("a", 1)], relayed=True) == 1
        log.append([event("a", 1), event("a", 2)])
        log.close()
        with open_log().consumer("group") as consumer:
            got = [(each.event and _id(each.event), each.relayed) for each in collect(consumer, 3)]
        assert got == [("a/0", False), ("a/1", True), ("a/2", False)], "who was first counts"
        read = [each for _, each in log.read()]
        assert read == [event("a", 0), event("a", 1), event("a", 2)], "an event is kept as it was"

    def test_purged_events_leave_nothing(self, open_log: OpenLog) -> None:
        log: LiveLog = open_log()
        secret = "0f47ac10b58cc4372a5670e02b2c3d479"
        given = [event("a", 0), event("a", 1, note=secret), event("b", 2, note=secret)]
        log.append(given)
        with log.consumer("group") as consumer:
            for each in collect(consumer, 3):
                consumer.reject(each, "for a test")
            consumer.commit()
        generation, changes = log.generation(), log.changes()
        doomed = [position for position, each in log.read() if (each.model_extra or {}).get("note")]
        log.purge(doomed)
        assert log.generation() != generation
        assert open_log().generation() == log.generation()
        assert log.changes() != changes
        assert [_id(each) for _, each in log.read()] == ["a/0"]
        assert [secret in each.body.decode() for each in log.dead_letters()] == [False]
        with log.consumer("new") as consumer:
            assert _ids(consumer.poll(10, _PATIENCE_SECONDS)) == ["a/0"]
            assert consumer.poll(10, 0.1) == []
        for path in open_log.folder.rglob("*"):
            assert not path.is_file() or secret.encode() not in path.read_bytes(), path
        log.append([event("a", 3)])
        with log.consumer("group") as consumer:
            assert _ids(collect(consumer, 1)) == ["a/3"], "a position is not given twice"
            consumer.commit()
        assert log.lag("group").events == 0

    def test_more_is_refused_while_too_much_waits(self, open_log: OpenLog) -> None:
        log: LiveLog = open_log(max_backlog=10)
        log.append([event("before", n) for n in range(30)])  # nobody waits for them
        with log.consumer("group") as consumer:
            collect(consumer, 30)
            _assert_full(log, event("a", 0))
            consumer.commit()
            assert log.append(events_of(["a"], 10)) == 10
            _assert_full(log, event("a", 10))
            _assert_full(open_log(max_backlog=10), event("a", 10))
            collect(consumer, 10)
            _assert_full(log, event("a", 10))
            consumer.commit()
            assert log.append(events_of(["b"], 10)) == 10
            given = [event("a", n, event_id=f"relayed {n}") for n in (11, 12)]
            assert log.append(given, relayed=True) == 2, "what came from a broker is taken"
            _assert_full(log, event("a", 13))
        assert len(list(log.read())) == 52, "what was refused is not stored"
        log.drop("group")
        log.drop("group")
        assert log.groups() == []
        assert log.append([event("a", 13)]) == 1, "nothing waits for a group that was dropped"
        assert log.lag("group").events == 53
        assert open_log("other", max_backlog=10).append(events_of(["b"], 11)) == 11


def collect(consumer: Consumer, count: int) -> list[Delivery]:
    """Poll until so many were delivered; fails if they do not come, or more do."""
    found: list[Delivery] = []
    until = time.monotonic() + _PATIENCE_SECONDS
    while len(found) < count:
        assert time.monotonic() < until, f"{len(found)} of {count} events came"
        found += consumer.poll(1000, 0.5)
    assert len(found) == count
    return found


def assert_ordered(events: Iterable[Event | None]) -> None:
    """Each user's events are in the order of their numbers."""
    last: dict[Any, int] = {}
    for each in events:
        assert each is not None
        number = (each.model_extra or {})["number"]
        assert last.get(each.user_id, -1) < number, f"{each.user_id}: out of order"
        last[each.user_id] = number


def _append_many(url: str | None, folder: Path, _: Signal) -> None:
    log = OpenLog(url, folder)()
    for start in range(0, 60, 6):
        log.append([event("child", number) for number in range(start, start + 6)])
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


def _id(each: Event) -> str:
    return each.event_id


def _ids(deliveries: Iterable[Delivery]) -> list[str]:
    return [each.event.event_id for each in deliveries if each.event is not None]


def _users(deliveries: Iterable[Delivery]) -> set[Any]:
    return {each.event.user_id for each in deliveries if each.event is not None}


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
