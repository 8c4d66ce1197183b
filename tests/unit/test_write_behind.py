"""The queue in front of a slow store: callers never wait, order holds, nothing is lost unseen."""

from __future__ import annotations

import threading
import time

import pytest

from nextedge.storage.write_behind import WriteBehind


def test_rows_are_written_in_order_by_another_thread() -> None:
    written: list[int] = []
    threads: set[str] = set()

    def write(rows: list[int]) -> None:
        threads.add(threading.current_thread().name)
        written.extend(rows)

    queue = WriteBehind("rows", write, limit=1000, batch=7)
    assert all(queue.put(number) for number in range(100))
    ends = time.monotonic() + 20
    while len(written) < 100 and time.monotonic() < ends:
        time.sleep(0.01)
    assert written == list(range(100))
    assert threads == {"rows"}
    queue.close()


def test_a_batch_has_the_size_that_is_given() -> None:
    sizes: list[int] = []
    queue = WriteBehind("rows", lambda rows: sizes.append(len(rows)), limit=1000, batch=40)
    with queue.writing:
        for number in range(100):
            queue.put(number)
    queue.close()
    assert sizes == [40, 40, 20]


def test_a_full_queue_drops_and_counts_without_waiting() -> None:
    written: list[int] = []
    queue = WriteBehind("rows", written.extend, limit=3)
    with queue.writing:
        taken = [queue.put(number) for number in range(10)]
    queue.close()
    assert taken == [True] * 3 + [False] * 7
    assert queue.dropped == 7
    assert written == [0, 1, 2]


def test_after_a_stop_it_may_be_used_again() -> None:
    written: list[int] = []
    queue = WriteBehind("rows", written.extend, limit=10)
    for number in range(3):
        queue.put(number)
        queue.close()
        assert written == list(range(number + 1))


def test_a_batch_that_fails_stops_no_later_one(caplog: pytest.LogCaptureFixture) -> None:
    written: list[int] = []

    def write(rows: list[int]) -> None:
        if rows == [0]:
            raise RuntimeError("planted")
        written.extend(rows)

    queue = WriteBehind("rows", write, limit=10, batch=1)
    for number in range(3):
        queue.put(number)
    queue.close()
    assert written == [1, 2]
    assert "rows: 1 rows were not written" in caplog.text


def test_rows_that_arrive_during_a_write_wait_for_the_next_look(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A thread that wrote them at once would never leave the interpreter to the requests."""
    batches: list[list[int]] = []

    def write(rows: list[int]) -> None:
        batches.append(rows)
        queue._rows.append(rows[-1] + 1)  # a request goes on while the batch is written

    class ThreeLooks:
        left = 3

        def wait(self, seconds: float) -> bool:
            self.left -= 1
            return self.left < 0

    queue = WriteBehind("rows", write, limit=100)
    queue._rows.append(0)
    monkeypatch.setattr(queue, "_closing", ThreeLooks())
    queue._run()
    assert batches == [[0], [1], [2]]
