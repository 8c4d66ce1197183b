"""The contract of every log: events are read as they were appended."""

from __future__ import annotations

from functools import partial

from nextedge.events.logs.log import BEGINNING, Log
from nextedge.testing.checks import in_threads
from nextedge.testing.logs.access import (
    PATIENCE_SECONDS,
    OpenLog,
    collect,
    read_ids,
    recorded,
    users_of,
)
from nextedge.testing.logs.concurrency import append_in_batches, append_many, other_process
from nextedge.testing.logs.sample_events import UNREADABLE, assert_ordered, event, events_of, id_of

# Numbers and texts that look alike, and characters that a key or a query may not hold.
_ODD_IDS: tuple[int | str, ...] = (
    *(1, "1", -7, 2**62, "ü/日本", "' OR 1=1 --", "line\nend", "{a}:b", "*", "tab\tend", " ", "🙂"),
)


class ReadingContract:
    """Events are read as they were appended, in each user's order."""

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
        assert sorted(read, key=id_of) == sorted(events, key=id_of)
        assert_ordered(read)

    def test_reading_goes_on_after_any_position(self, open_log: OpenLog) -> None:
        log: Log = open_log()
        recorded(log, ["a", "b"], 4)
        read = list(log.read())
        assert len({position for position, _ in read} - {BEGINNING}) == 8
        for number, (position, _) in enumerate(read, 1):
            assert read_ids(log, position) == [id_of(event) for _, event in read[number:]]

    def test_the_last_position_is_the_end(self, open_log: OpenLog) -> None:
        log: Log = open_log()
        recorded(log, ["a", "b"], 4)
        last = log.last_position()
        assert list(log.read(last)) == []
        log.append([event("a", 9)])
        assert read_ids(log, last) == ["a/9"]
        assert log.last_position() != last

    def test_a_limit_bounds_what_is_read(self, open_log: OpenLog) -> None:
        log: Log = open_log()
        recorded(log, ["a", "b"], 4)
        read = list(log.read())
        assert read_ids(log, read[2][0], 2) == [id_of(event) for _, event in read[3:5]]
        assert [len(read_ids(log, BEGINNING, limit)) for limit in (0, 3, 100)] == [0, 3, 8]

    def test_unknown_fields_and_any_id_are_kept(self, open_log: OpenLog) -> None:
        log: Log = open_log()
        more = {"note": "ü 🙂 \x00", "score": 0.1, "deep": {"list": [1, None, {"x": True}]}}
        events = [
            event(user, 0, event_id=f"odd {number} ü", candidate_id=f"c{user}", **more)
            for number, user in enumerate(_ODD_IDS)
        ]
        assert log.append(events) == len(events)
        read = {id_of(event): event for _, event in log.read()}
        for expected in events:
            actual = read[expected.event_id]
            assert actual == expected
            assert type(actual.user_id) is type(expected.user_id), "an id stays a number or a text"
            assert actual.model_extra == expected.model_extra

    def test_large_batches_and_large_events(self, open_log: OpenLog) -> None:
        log: Log = open_log()
        large = event("large", 0, note="x" * 200_000)
        assert log.append([*events_of([f"u{n}" for n in range(30)], 100), large]) == 3001
        read = [event for _, event in log.read()]
        assert len(read) == 3001
        assert_ordered(read)
        assert large in read

    def test_tenants_read_only_their_own_events(self, open_log: OpenLog) -> None:
        logs: dict[str, Log] = {name: open_log(name) for name in ("a", "ab", "a.b", "a-b", "A")}
        for name, log in logs.items():
            recorded(log, [name], 2)
        for name, log in logs.items():
            assert {id_of(event) for _, event in log.read()} == {f"{name}/0", f"{name}/1"}
            with log.consumer("group") as consumer:
                assert users_of(collect(consumer, 2)) == {name}

    def test_groups_of_tenants_are_apart(self, open_log: OpenLog) -> None:
        one, other = open_log("a"), open_log("a-b")
        for log in (one, other):
            recorded(log, ["user"], 2)
        with one.consumer("group") as consumer:
            consumer.reject(collect(consumer, 2)[0], "of a")
            consumer.commit()
        assert (one.lag("group").events, other.lag("group").events) == (0, 2)
        assert (len(one.dead_letters()), other.dead_letters()) == (1, [])

    def test_reading_leaves_unreadable_events_out(self, open_log: OpenLog) -> None:
        log: Log = open_log()
        log.append([event("a", 0), UNREADABLE, event("a", 1)])
        assert read_ids(log) == ["a/0", "a/1"]
        assert list(log.read(log.last_position())) == []

    def test_concurrent_appends_lose_nothing(self, open_log: OpenLog) -> None:
        def work(name: str) -> None:
            log: Log = open_log()
            append_in_batches(log, name)
            log.close()

        log: Log = open_log()
        log.append([event("first", 0)])
        with other_process(append_many, open_log) as (child, _):
            in_threads([partial(work, name) for name in "abcd"])
            child.join(PATIENCE_SECONDS)
            assert child.exitcode == 0
        read = [event for _, event in log.read()]
        assert len(read) == 1 + 4 * 60 + 60
        assert len({id_of(event) for event in read}) == len(read)
        assert_ordered(read)

    def test_a_closed_log_connects_anew(self, open_log: OpenLog) -> None:
        log: Log = open_log()
        recorded(log, ["a"], 6)
        position = log.last_position()
        log.close()
        log.close()  # again: no error
        assert log.append([event("a", 6)]) == 1
        assert read_ids(open_log(), position) == ["a/6"]
