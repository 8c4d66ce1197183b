"""Occasions: who was at one item at one time, by date or by the order of an undated log."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from nextedge.build.tables_to_graph.co_occurrence import occasions

HOUR = 3_600_000_000
START = 400_000 * HOUR


def of(rows: pa.Table, user: list[int], item: list[int], time: list[int]) -> list[int]:
    return occasions(
        rows, np.array(user, np.int32), np.array(item, np.int32), np.array(time, np.int64)
    ).tolist()


def test_dated_rows_meet_within_an_hour_at_one_item() -> None:
    rows = pa.table({"user_id": [0, 1, 2, 3, 0, 0]})
    time = [START, START + HOUR // 2, START + 3 * HOUR, START, START + 9 * HOUR, START + 9 * HOUR]
    found = of(rows, [0, 1, 2, 3, 0, 0], [7, 7, 7, 8, 7, 7], time)
    assert found[0] == found[1] >= 0
    assert found[2:] == [-1, -1, -1, -1], "another time, another item, and nobody but oneself"


def test_undated_rows_meet_in_runs_that_agree() -> None:
    hours = [5, 5, 6, 5, 5, 6] * 20
    rows = pa.table({"user_id": list(range(120)), "hour": hours})
    found = of(rows, list(range(120)), [1] * 120, [0] * 120)
    assert found[0] == found[1] >= 0
    assert found[2] == -1
    assert found[3] == found[4] != found[0], "the hour came again later: another occasion"


def test_undated_rows_without_columns_of_their_own_never_meet() -> None:
    assert of(pa.table({"user_id": [0, 1]}), [0, 1], [1, 1], [0, 0]) == [-1, -1]


def test_columns_that_tell_rows_apart_are_not_times() -> None:
    rows = pa.table({"user_id": [0] * 50, "serial": list(range(50))})
    assert set(of(rows, list(range(50)), [1] * 50, [0] * 50)) == {-1}


def test_no_rows() -> None:
    assert (
        of(
            pa.table({"user_id": pa.array([], pa.int64()), "hour": pa.array([], pa.int64())}),
            [],
            [],
            [],
        )
        == []
    )
