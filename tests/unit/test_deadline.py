"""Deadlines: a stage that would be late is left out, and tried again when it is quick again."""

from __future__ import annotations

import time

from nextedge.serving.rank_with_deadline import NO_DEADLINE, Deadline
from nextedge.serving.release.loaded import StageLatency


def test_a_stage_is_begun_only_if_it_and_what_follows_fit() -> None:
    pace = StageLatency({"slow": 900.0, "quick": 1.0, "after": 300.0})
    deadline = Deadline.after(time.perf_counter(), 1000.0, pace)
    assert deadline.allows("slow")
    assert deadline.allows("quick", reserve=("after",))
    assert not deadline.allows("slow", reserve=("after",))
    assert deadline.allows("never seen")


def test_nothing_is_late_without_a_deadline() -> None:
    pace = StageLatency({"slow": 1e9})
    assert Deadline.after(0.0, None, pace).allows("slow")
    assert Deadline.after(0.0, 0, pace).allows("slow")
    assert NO_DEADLINE.allows("slow")


def test_one_hiccup_counts_little_and_quick_runs_at_once() -> None:
    pace = StageLatency()
    for spent in (2.0, 2.0, 1000.0):
        pace.took("stage", spent)
    assert 50 < pace.expected_ms["stage"] < 150
    for _ in range(6):
        pace.took("stage", 2.0)
    assert pace.expected_ms["stage"] < 5


def test_what_was_left_out_is_tried_again() -> None:
    pace = StageLatency({"stage": 500.0, "after": 500.0})
    tries = 0
    while not Deadline.after(time.perf_counter(), 100.0, pace).allows("stage", reserve=("after",)):
        tries += 1
    assert 15 < tries < 40
