"""What is the local log's own: its files, threads that write together, a full disk."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest

from nextedge.errors import LogFullError, StorageError
from nextedge.events.logs.sqlite import log as local_log
from nextedge.events.logs.sqlite.log import LocalLog
from nextedge.testing.logs import event, events_of


def test_a_log_of_the_first_version_is_read_and_goes_on(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / local_log.FILE) as old:
        old.execute(
            "CREATE TABLE events (position INTEGER PRIMARY KEY AUTOINCREMENT, "
            "event_id TEXT NOT NULL UNIQUE, micros INTEGER NOT NULL, body TEXT NOT NULL)"
        )
        before = event("a", 0)
        row = (before.event_id, before.micros, before.model_dump_json())
        old.execute("INSERT INTO events (event_id, micros, body) VALUES (?, ?, ?)", row)
    old.close()
    log = LocalLog(tmp_path)
    assert log.append([before, event("a", 1)]) == 1
    assert [each for _, each in log.read()] == [before, event("a", 1)]
    assert 0 < log.lag("group").seconds < 10 * 86_400
    with log.consumer("group") as consumer:
        assert [each.relayed for each in consumer.poll()] == [False, False]
    log.close()


def test_a_slow_reader_holds_nothing_and_sees_what_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_log, "_CHUNK", 3)
    log = LocalLog(tmp_path)
    log.append(events_of(["a"], 7))
    reading = log.read()
    first = [next(reading) for _ in range(4)]
    log.append([event("a", 7)])
    log.purge([first[1][0], str(int(first[3][0]) + 3)])  # one that was read, and one that was not
    rest = list(reading)
    assert [each.event_id for _, each in first + rest] == [f"a/{n}" for n in (0, 1, 2, 3, 4, 5, 7)]
    assert [each.event_id for _, each in log.read("", 4)] == ["a/0", "a/2", "a/3", "a/4"]
    log.close()


def test_threads_that_write_together_each_learn_what_became_of_theirs(tmp_path: Path) -> None:
    log = LocalLog(tmp_path, max_backlog=30)
    with log.consumer("group") as consumer:
        consumer.poll(1, 0)
    stored: dict[int, int] = {}
    refused: list[int] = []
    begin = threading.Barrier(20)

    def work(number: int) -> None:
        begin.wait()
        try:
            stored[number] = log.append([event(number, n) for n in range(number % 4 + 1)])
        except LogFullError:
            refused.append(number)

    with log._writer:  # so that they wait, and the first of them writes for all
        threads = [threading.Thread(target=work, args=(number,)) for number in range(20)]
        for thread in threads:
            thread.start()
        while len(log._batches) < 20:
            pass
    for thread in threads:
        thread.join()
    assert stored == {number: number % 4 + 1 for number in stored}
    assert sorted([*stored, *refused]) == list(range(20))
    kept = [each.user_id for _, each in log.read()]
    assert {number: kept.count(number) for number in stored} == stored
    assert 30 <= len(kept) < 34
    log.close()


def test_a_full_disk_stores_nothing_of_a_batch(tmp_path: Path) -> None:
    log = LocalLog(tmp_path)
    log.append([event("a", 0)])
    log._connection().execute("PRAGMA max_page_count = 12")
    with pytest.raises(StorageError, match="full"):
        log.append([event("a", 1), event("a", 2, note="x" * 100_000)])
    assert log.append([event("a", 3)]) == 1
    assert [each.event_id for _, each in log.read()] == ["a/0", "a/3"]
    log.close()


def test_a_new_file_waits_while_another_connection_has_it_locked(tmp_path: Path) -> None:
    path = tmp_path / local_log.FILE
    locked = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    locked.execute("BEGIN IMMEDIATE")  # SQLite refuses at once to change the mode meanwhile
    release = threading.Timer(0.2, locked.commit)
    release.start()
    log = LocalLog(tmp_path)
    assert log.append(events_of(["a"], 3)) == 3
    release.join()
    log.close()
    locked.close()
