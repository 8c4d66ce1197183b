"""The request log: nothing waits for it, a clean stop loses nothing, what is lost is counted."""

from __future__ import annotations

import sqlite3
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from nextedge.config import ServingConfig
from nextedge.events.request_log import FILE, LoggedRequest, RequestLog, fingerprint


def request(
    number: int, features: np.ndarray | None = None, micros: int | None = None
) -> LoggedRequest:
    return LoggedRequest(
        f"r{number}",
        int(time.time() * 1e6) if micros is None else micros,
        "release",
        "people",
        "ünï",
        2,
        {"context": "mobile"},
        ["a", 7],
        [0.5, 0.25],
        [1.0, 0.1],
        [],
        "f",
        [0, 1] if features is not None else [],
        features,
    )


def test_what_was_logged_is_read_back(tmp_path: Path) -> None:
    log = RequestLog(tmp_path, ServingConfig())
    features = np.float32([[1.5, np.nan], [-0.0, np.inf]])
    given = [request(0, features), request(1)]
    for each in given:
        log.append(each)
    log.close()
    found = list(RequestLog(tmp_path, ServingConfig()).read())
    assert found[1] == given[1]
    assert found[0].user_id == "ünï"
    assert found[0].candidates == ["a", 7]
    assert found[0].features is not None
    assert found[0].features.tobytes() == features.tobytes()
    assert [each.recommendation_id for each in log.read(features=True)] == ["r0"]


def test_a_clean_stop_loses_nothing_of_many_threads(tmp_path: Path) -> None:
    log = RequestLog(tmp_path, ServingConfig())

    def work(part: int) -> None:
        for number in range(500):
            log.append(request(part * 500 + number))

    threads = [threading.Thread(target=work, args=(part,)) for part in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close()
    assert log.lost == 0
    assert len({each.recommendation_id for each in log.read()}) == 2000
    log.append(request(9999))  # and it may be used again
    log.close()
    assert sum(1 for _ in log.read()) == 2001


def test_a_full_queue_never_waits_and_is_counted(tmp_path: Path) -> None:
    holder = sqlite3.connect(tmp_path / FILE)
    holder.execute("PRAGMA journal_mode = WAL")
    holder.execute("BEGIN IMMEDIATE")  # the disk is busy: nothing can be written
    log = RequestLog(tmp_path, ServingConfig(log_queue=10))
    started = time.perf_counter()
    for number in range(2000):
        log.append(request(number))
    assert time.perf_counter() - started < 5
    assert log.lost > 0
    holder.rollback()
    holder.close()
    log.close()
    assert sum(1 for _ in log.read()) + log.lost == 2000


def test_a_disk_that_refuses_is_counted_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = RequestLog(tmp_path, ServingConfig())
    (tmp_path / FILE).mkdir()
    log.append(request(0))
    log.close()
    assert log.lost == 1
    assert "were not logged" in caplog.text


def test_old_requests_are_let_go(tmp_path: Path) -> None:
    log = RequestLog(tmp_path, ServingConfig(log_days=1))
    log.append(request(0, micros=1))
    log.append(request(1))
    log.close()
    assert [each.recommendation_id for each in log.read()] == ["r1"]


def test_a_fingerprint_tells_any_bit() -> None:
    one = np.float32([[1.0, 2.0]])
    assert fingerprint(one) == fingerprint(one.copy())
    assert fingerprint(one) != fingerprint(np.nextafter(one, np.float32(9)))


def test_answers_are_found_by_the_ids_they_were_sent_under(tmp_path: Path) -> None:
    log = RequestLog(tmp_path, ServingConfig())
    assert log.answers(["r0"]) == []  # nothing was ever written
    first, again, other = request(0, micros=int(time.time() * 1e6) - 5), "ab" * 16, "cd" * 16
    log.append(first)
    log.append(request(1))
    for repeat in (again, other):
        log.repeat(repeat, "r0")
    log.close()
    found = {rid: (micros, answer) for rid, micros, answer in log.answers([again, "r0", "ef" * 16])}
    assert found.keys() == {again, "r0"}
    assert found["r0"] == (first.micros, first)
    assert found[again][1] == first
    assert found[again][0] >= first.micros  # it was sent later
    assert log.answers([]) == []
