"""The contract of live logs, besides that of every log."""

from __future__ import annotations

from functools import partial

from nextedge.events.logs.log import BEGINNING, LiveLog
from nextedge.testing.checks import in_threads
from nextedge.testing.logs.access import (
    PATIENCE_SECONDS,
    OpenLog,
    assert_full,
    collect,
    ids_of,
    read_ids,
    recorded,
)
from nextedge.testing.logs.concurrency import append_many, other_process
from nextedge.testing.logs.groups import LogContract
from nextedge.testing.logs.sample_events import event, events_of


class LiveLogContract(LogContract):
    """What a log keeps besides if every process folds it into its overlay."""

    def test_positions_are_one_order_for_all(self, open_log: OpenLog) -> None:
        log: LiveLog = open_log()
        events = recorded(log, ["a", "b", "c"], 20)
        for reader in (log, open_log()):
            assert [event for _, event in reader.read()] == events
        assert list(log.read())[-1][0] == log.last_position()

    def test_pages_follow_one_another(self, open_log: OpenLog) -> None:
        log: LiveLog = open_log()
        events = recorded(log, ["a", "b", "c"], 20)
        page = list(log.read(BEGINNING, 7))
        assert [event for _, event in page] == events[:7]
        assert [event for _, event in log.read(page[-1][0])] == events[7:]

    def test_an_event_id_counts_once(self, open_log: OpenLog) -> None:
        log: LiveLog = open_log()
        assert log.append([event("a", 0), event("a", 0), event("a", 1)]) == 2
        last = log.last_position()
        assert log.append([event("a", 1), event("a", 0)]) == 0
        assert log.append([event("z", 9, event_id="a/1")]) == 0
        assert open_log().append([event("a", 1), event("a", 2)]) == 1
        assert read_ids(log) == ["a/0", "a/1", "a/2"]
        assert read_ids(log, last) == ["a/2"]

    def test_of_appends_at_the_same_time_one_counts(self, open_log: OpenLog) -> None:
        stored: list[int] = []

        def work() -> None:
            stored.append(open_log().append(events_of(["many"], 50)))

        in_threads([work] * 6)
        assert sum(stored) == 50
        assert len(read_ids(open_log())) == 50

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
            in_threads([partial(other.append, [event("thread", int(quick))])])
            assert log.changes(quick=quick) != between

    def test_changes_tell_of_other_processes(self, open_log: OpenLog) -> None:
        log: LiveLog = open_log()
        before = log.changes(quick=True)
        with other_process(append_many, open_log) as (child, _):
            child.join(PATIENCE_SECONDS)
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
        assert [event for _, event in log.read()] == events_of(["a"], 3), "unchanged by the mark"

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
        assert read_ids(log) == ["a/0"]
        assert [secret in letter.body.decode() for letter in log.dead_letters()] == [False]
        for path in open_log.folder.rglob("*"):
            # Deleted rows may stay in free pages of a file.
            assert not path.is_file() or secret.encode() not in path.read_bytes(), path

    def test_purged_events_are_not_delivered(self, open_log: OpenLog) -> None:
        log, _ = _with_purged_events(open_log)
        with log.consumer("new") as consumer:
            assert ids_of(consumer.poll(10, PATIENCE_SECONDS)) == ["a/0"]
            assert consumer.poll(10, 0.1) == []

    def test_a_position_is_not_given_twice_after_a_purge(self, open_log: OpenLog) -> None:
        log, _ = _with_purged_events(open_log)
        log.append([event("a", 3)])
        with log.consumer("group") as consumer:
            assert ids_of(collect(consumer, 1)) == ["a/3"]
            consumer.commit()
        assert log.lag("group").events == 0

    def test_a_full_log_takes_events_after_a_commit(self, open_log: OpenLog) -> None:
        log: LiveLog = open_log(max_backlog=10)
        log.append(events_of(["before"], 30))  # no group waits for them yet
        with log.consumer("group") as consumer:
            collect(consumer, 30)
            assert_full(log, event("a", 0))
            consumer.commit()
            assert log.append(events_of(["a"], 10)) == 10
            assert_full(log, event("a", 10))
            collect(consumer, 10)
            assert_full(log, event("a", 10))
            consumer.commit()
            assert log.append(events_of(["b"], 10)) == 10
        assert len(read_ids(log)) == 50, "refused events are not stored"

    def test_a_full_log_is_full_for_its_tenant_alone(self, open_log: OpenLog) -> None:
        log = _full(open_log)
        assert_full(open_log(max_backlog=10), event("a", 10))
        assert open_log("other", max_backlog=10).append(events_of(["b"], 11)) == 11
        assert len(read_ids(log)) == 10

    def test_a_full_log_takes_relayed_events(self, open_log: OpenLog) -> None:
        log = _full(open_log)
        assert log.append([event("a", 11), event("a", 12)], relayed=True) == 2
        assert_full(log, event("a", 13))

    def test_nothing_waits_for_a_dropped_group(self, open_log: OpenLog) -> None:
        log = _full(open_log)
        log.drop("group")
        log.drop("group")  # again: no error
        assert log.groups() == []
        assert log.append([event("a", 13)]) == 1
        assert log.lag("group").events == 11


def _full(open_log: OpenLog) -> LiveLog:
    """A log for whose group so many events wait that it takes no more."""
    log: LiveLog = open_log(max_backlog=10)
    with log.consumer("group") as consumer:
        consumer.poll(1, 0.1)
        log.append(events_of(["a"], 10))
        collect(consumer, 10)
    assert_full(log, event("a", 10))
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
    log.purge([position for position, event in log.read() if event.given("note")])
    return log, secret
