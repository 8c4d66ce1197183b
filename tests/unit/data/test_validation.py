"""What is used, what is dropped and why, for every kind of fault in the data."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nextedge.config import Config, load_config, parse_config
from nextedge.data.report import TableReport
from nextedge.data.validation import Validated, inspect_data, validate
from nextedge.engines.duckdb.engine import LocalEngine
from nextedge.errors import DataError

US_UTC = pa.timestamp("us", "UTC")


@pytest.fixture(scope="module")
def engine() -> Iterator[LocalEngine]:
    with LocalEngine(threads=1) as opened:
        yield opened


def config(raw: dict[str, Any] | None = None, base: Path = Path(".")) -> Config:
    return parse_config({"surfaces": {}, **(raw or {})}, base=base, origin="test")


def check(engine: LocalEngine, raw: dict[str, Any] | None = None, **frames: Any) -> Validated:
    tables = {n: pa.table(f) if isinstance(f, dict) else f for n, f in frames.items()}
    return validate(config(raw), engine, tables)


def rows(engine: LocalEngine, found: Validated, table: str) -> list[dict[str, Any]]:
    return list(engine.to_arrow(found.tables[table]).to_pylist())


def report(found: Validated, table: str) -> TableReport:
    return next(entry for entry in found.report.tables if entry.table == table)


def counts(found: Validated, table: str) -> dict[str, int]:
    return {f.code: f.rows for f in report(found, table).findings if f.rows}


def test_what_is_absent_has_its_type_and_default(engine: LocalEngine) -> None:
    found = check(
        engine,
        users={"user_id": [1], "mine": ["x"]},
        connections={"src": [1], "dst": [1 + 0]},
        items={"item_id": ["a"]},
        interactions={"user_id": [1], "item_id": ["a"]},
        impressions={"user_id": [1], "item_id": ["a"], "timestamp": [5]},
        blocks=pa.table(
            {"user_id": pa.array([], pa.int64()), "other_id": pa.array([], pa.int64())}
        ),
    )
    expected = {
        "users": {"user_id": pa.int64(), "mine": pa.string(), "discoverable": pa.bool_()},
        "connections": {
            "src": pa.int64(),
            "dst": pa.int64(),
            "weight": pa.float64(),
            "timestamp": US_UTC,
        },
        "items": {"item_id": pa.string(), "available": pa.bool_(), "unsafe": pa.bool_()},
        "interactions": {
            "user_id": pa.int64(),
            "item_id": pa.string(),
            "weight": pa.float64(),
            "timestamp": US_UTC,
            "event": pa.string(),
        },
        "impressions": {
            "user_id": pa.int64(),
            "candidate_id": pa.int64(),
            "item_id": pa.string(),
            "timestamp": US_UTC,
            "recommendation_id": pa.string(),
            "position": pa.int64(),
            "action": pa.string(),
            "action_timestamp": US_UTC,
        },
        "blocks": {"user_id": pa.int64(), "other_id": pa.int64()},
    }
    for table, columns in expected.items():
        schema = engine.to_arrow(found.tables[table]).schema
        assert dict(zip(schema.names, schema.types, strict=True)) == columns, table
    assert rows(engine, found, "users")[0]["discoverable"] is True
    assert rows(engine, found, "interactions")[0]["weight"] == 1.0
    assert report(found, "blocks").rows_used == 0


def test_connections_lose_what_cannot_be_an_edge(engine: LocalEngine) -> None:
    nan, inf = float("nan"), float("inf")
    found = check(
        engine,
        users={"user_id": [1, 2, 3]},
        connections={
            "src": [1, 1, 2, 3, 1, None, 2, 2, 3, 3, 1],
            "dst": [2, 2, 1, 3, 9, 1, 3, 3, 2, 2, 3],
            "timestamp": [100, 100, 200, 5, 5, 5, 5, 5, None, None, 7],
            "weight": [1.0, 1.0, 2.0, 1.0, 1.0, 1.0, -1.0, nan, 2.0, 2.0, inf],
            "via": ["a"] * 11,
        },
    )
    assert counts(found, "connections") == {
        "missing_src": 1,
        "bad_weight": 3,
        "self_loop": 1,
        "dangling_dst": 1,
        "duplicate_row": 1,
        "repeated_pair": 2,
        "missing_time": 2,
    }
    used = sorted((r["src"], r["dst"], r["weight"]) for r in rows(engine, found, "connections"))
    assert used == [(1, 2, 1.0), (2, 1, 2.0), (3, 2, 2.0), (3, 2, 2.0)]
    loop = next(f for f in report(found, "connections").findings if f.code == "self_loop")
    assert loop.examples == ("row 4: src=3, dst=3",)
    assert report(found, "connections").rows_read == 11


def test_without_times_repeated_pairs_are_kept(engine: LocalEngine) -> None:
    edges = {"src": [1, 1, 2], "dst": [2, 2, 1]}
    both_ways = check(engine, connections=edges)
    assert counts(both_ways, "connections") == {"repeated_pair": 2}
    assert len(rows(engine, both_ways, "connections")) == 3
    directed = check(engine, {"data": {"directed": True}}, connections=edges)
    assert counts(directed, "connections") == {"repeated_pair": 1}
    assert any(f.code == "no_timestamp" for f in report(directed, "connections").findings)


def test_dangling_ids_are_dropped_or_kept(engine: LocalEngine) -> None:
    frames: dict[str, Any] = {
        "users": {"user_id": ["a", "b"]},
        "items": {"item_id": [1]},
        "interactions": {"user_id": ["a", "z", "b"], "item_id": [1, 1, 2]},
        "blocks": {"user_id": ["a", "z"], "other_id": ["z", "a"]},
    }
    dropped = check(engine, **frames)
    assert counts(dropped, "interactions") == {"dangling_user_id": 1, "dangling_item_id": 1}
    assert counts(dropped, "blocks") == {"dangling_user_id": 1, "dangling_other_id": 1}
    kept = check(engine, {"data": {"dangling": "keep"}}, **frames)
    assert report(kept, "interactions").rows_used == 3
    alone = check(engine, interactions=frames["interactions"])
    assert report(alone, "interactions").rows_used == 3


def test_an_empty_users_table_is_taken_as_not_given(engine: LocalEngine) -> None:
    none = pa.table({"user_id": pa.array([], pa.string())})
    found = check(engine, users=none, connections={"src": ["a"], "dst": ["b"]})
    assert report(found, "connections").rows_used == 1
    assert [f.code for f in report(found, "users").findings] == ["empty"]


@pytest.mark.parametrize(
    ("users", "src", "expected"),
    [
        ([1, 2], [2], "int64"),
        (["1", "2"], [2], "string"),
        ([1, 2], ["2"], "string"),
        ([1.0, 2.0], [2], "int64"),
        (pa.array([1, 2], pa.uint64()), [2], "int64"),
        (pa.array([2**63, 2], pa.uint64()), [2], "string"),
        (pa.array([1, 2], pa.decimal128(20, 0)), [2], "int64"),
        (pa.array([1, 2], pa.int8()), pa.array([2], pa.int32()), "int64"),
        (["李", "2"], [2.0], "string"),
    ],
)
def test_ids_of_one_kind_are_one_type(
    engine: LocalEngine, users: Any, src: Any, expected: str
) -> None:
    found = check(
        engine, users={"user_id": users}, connections={"src": src, "dst": pa.array(users)[:1]}
    )
    for table, column in (("users", "user_id"), ("connections", "src"), ("connections", "dst")):
        assert str(found.tables[table].schema()[column]) == expected
    assert report(found, "connections").rows_used == 1, "2 is 2 in every spelling of its type"
    said = [f.code for t in found.report.tables for f in t.findings]
    assert ("id_as_text" in said) == (expected == "string")


@pytest.mark.parametrize("ids", [[True], [{"a": 1}], [[1]], [1.5], [b"x"]])
def test_ids_of_other_types_stop(engine: LocalEngine, ids: list[Any]) -> None:
    with pytest.raises(DataError, match=r"users: memory: column 'user_id'.*expected ids as whole"):
        check(engine, users={"user_id": ids})


def test_missing_and_empty_ids_are_dropped(engine: LocalEngine) -> None:
    found = check(engine, users={"user_id": ["a", "", None]})
    assert counts(found, "users") == {"missing_user_id": 2}
    found = check(engine, users={"user_id": [1.0, float("nan")]})
    assert rows(engine, found, "users") == [{"user_id": 1, "discoverable": True}]


def test_of_users_with_one_id_the_last_is_used(engine: LocalEngine) -> None:
    found = check(
        engine,
        users={"user_id": [3, 1, 3, 2, 3], "city": ["a", "b", "c", "d", "東京"]},
        items={"item_id": ["x", "x"], "available": ["yes", "no"], "unsafe": [None, "1"]},
    )
    assert [(r["user_id"], r["city"]) for r in rows(engine, found, "users")] == [
        (1, "b"),
        (2, "d"),
        (3, "東京"),
    ]
    assert counts(found, "users") == {"duplicate_id": 2}
    assert rows(engine, found, "items") == [{"item_id": "x", "available": False, "unsafe": True}]


def test_attributes_that_cannot_be_read_do_not_cost_the_user(engine: LocalEngine) -> None:
    found = check(
        engine,
        users={
            "user_id": [1, 2, 3],
            "discoverable": ["no", "perhaps", None],
            "created_at": ["2020-01-01", "yesterday", None],
            "latitude": ["52.5", "95", "north"],
            "skills": ["a|b", '["c", "d"]', None],
        },
    )
    assert counts(found, "users") == {
        "unreadable_discoverable": 1,
        "unreadable_created_at": 1,
        "unreadable_latitude": 2,
    }
    used = rows(engine, found, "users")
    assert [user["discoverable"] for user in used] == [False, True, True]
    assert [user["latitude"] for user in used] == [52.5, None, None]
    assert [user["skills"] for user in used] == [["a", "b"], ["c", "d"], None]
    assert used[0]["created_at"] == datetime(2020, 1, 1, tzinfo=UTC)


def test_impressions_show_one_thing_at_one_time(engine: LocalEngine) -> None:
    found = check(
        engine,
        impressions={
            "user_id": [1, 1, 1, 1, 1],
            "candidate_id": [2, None, 2, None, 2],
            "item_id": [None, "a", "a", None, None],
            "timestamp": [5, 6, 7, 8, None],
            "position": [1.0, 2.0, None, None, None],
        },
    )
    assert counts(found, "impressions") == {"missing_timestamp": 1, "shown_not_one": 2}
    assert [r["position"] for r in rows(engine, found, "impressions")] == [1, 2]


NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
SECONDS = int(NOON.timestamp())
TIMES = {
    "zoned": pa.array(
        [NOON.astimezone(timezone(timedelta(hours=9)))], pa.timestamp("ms", "Asia/Tokyo")
    ),
    "naive": pa.array([NOON.replace(tzinfo=None)], pa.timestamp("s")),
    "nanosecond type": pa.array([SECONDS * 10**9], pa.timestamp("ns")),
    "seconds": [SECONDS],
    "milliseconds": [SECONDS * 1000],
    "microseconds": [SECONDS * 10**6],
    "nanoseconds": [SECONDS * 10**9],
    "float seconds": [float(SECONDS)],
    "32 bits": pa.array([SECONDS], pa.int32()),
    "iso zulu": ["2024-05-01T12:00:00Z"],
    "iso zone": ["2024-05-01T14:30:00+02:30"],
    "iso short zone": ["2024-05-01 05:00:00-07"],
    "iso naive": ["2024-05-01 12:00:00"],
    "text seconds": [str(SECONDS)],
}


@pytest.mark.parametrize("form", TIMES)
def test_times_of_every_form_are_one_instant(engine: LocalEngine, form: str) -> None:
    found = check(engine, connections={"src": [1], "dst": [2], "timestamp": TIMES[form]})
    assert rows(engine, found, "connections")[0]["timestamp"] == NOON
    assert report(found, "connections").first == NOON.isoformat()


def test_dates_mixed_zones_and_small_numbers(engine: LocalEngine) -> None:
    def times(values: Any) -> list[datetime]:
        edges = {"src": [-1] * len(values), "dst": list(range(len(values))), "timestamp": values}
        used = rows(engine, check(engine, connections=edges), "connections")
        return sorted(row["timestamp"] for row in used)

    assert times([date(2024, 5, 1)]) == [datetime(2024, 5, 1, tzinfo=UTC)]
    mixed = ["2024-05-01T12:00:00Z", "2024-05-01T12:00:00+02:00", "2024-05-01T12:00:00"]
    assert [time.hour for time in times(mixed)] == [10, 12, 12]
    # Places in an order are moved up by one: 0 stands for no time.
    assert [time.second for time in times([2, 0, 1])] == [1, 2, 3]
    before = times([-86_400, 0])
    assert before[0] == datetime(1969, 12, 31, 0, 0, 1, tzinfo=UTC)
    assert (before[1] - before[0]).total_seconds() == 86_400


@settings(
    deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(st.datetimes(datetime(2001, 9, 10), datetime(2200, 1, 1)), min_size=1, max_size=5),
    st.sampled_from([1, 1000, 10**6, 10**9]),
)
def test_numbers_are_read_in_the_unit_they_count(
    engine: LocalEngine, times: list[datetime], unit: int
) -> None:
    """Oracle: Python's own arithmetic on whole seconds."""
    whole = [time.replace(microsecond=0, tzinfo=UTC) for time in times]
    numbers = [int(time.timestamp()) * unit for time in whole]
    edges = {"src": list(range(len(whole))), "dst": [-1] * len(whole), "timestamp": numbers}
    found = check(engine, connections=edges)
    used = {r["src"]: r["timestamp"] for r in rows(engine, found, "connections")}
    assert used == dict(enumerate(whole))


def test_unreadable_times_are_dropped_unless_all_are(engine: LocalEngine) -> None:
    edges = {"src": [1, 2, 3], "dst": [2, 3, 1]}
    found = check(engine, connections={**edges, "timestamp": ["2024-05-01", "soon", "2024-99-99"]})
    assert counts(found, "connections") == {"unreadable_timestamp": 2}
    with pytest.raises(DataError, match="column 'timestamp': none of its 3 values can be read"):
        check(engine, connections={**edges, "timestamp": ["soon", "later", "never"]})


FAR_TIMES = {
    "year 20000": (pa.array([569 * 10**15, 5], pa.timestamp("us")), "row 1: timestamp='20000-"),
    "before the year 1": (pa.array([-23 * 10**16, 5], pa.timestamp("us")), "(BC)"),
    "smallest number": ([-(2**63), 5], "row 1: timestamp=-9223372036854775808"),
    "largest number": (pa.array([2**64 - 1, 5], pa.uint64()), "=18446744073709551615"),
    "huge float": ([1e300, 5.0], "row 1: timestamp=1e+300"),
    "not a number": ([float("nan"), 5.0], "row 1: timestamp=nan"),
    "text": (["-9223372036854775808", "5"], "='-9223372036854775808'"),
    "infinity": (["infinity", "2024-01-01"], "='infinity'"),
}


@pytest.mark.parametrize("case", FAR_TIMES)
def test_times_that_no_calendar_holds_are_dropped(engine: LocalEngine, case: str) -> None:
    values, example = FAR_TIMES[case]
    edges = {"src": [1, 2], "dst": [2, 3], "timestamp": values}
    found = check(engine, connections=edges)
    assert counts(found, "connections") == {"unreadable_timestamp": 1}
    assert [row["src"] for row in rows(engine, found, "connections")] == [2]
    (finding,) = (f for f in report(found, "connections").findings if f.rows)
    assert example in finding.examples[0]


def test_blank_text_is_a_missing_value(engine: LocalEngine) -> None:
    found = check(
        engine,
        users={"user_id": [1, 2], "discoverable": ["", "no"], "created_at": ["", "2024-01-01"]},
        connections={"src": [1], "dst": [2], "timestamp": [""], "weight": [""]},
    )
    assert counts(found, "users") == {}
    assert counts(found, "connections") == {"missing_time": 1}
    assert rows(engine, found, "connections")[0]["weight"] == 1.0


def test_columns_of_nothing_have_a_type(engine: LocalEngine) -> None:
    found = check(
        engine,
        users=pa.table(
            {"user_id": [1], "skills": pa.nulls(1), "bio": pa.nulls(1), "x": pa.nulls(1)}
        ),
        connections={"src": [1], "dst": [2], "timestamp": [None], "weight": [None]},
        impressions={"user_id": [1], "candidate_id": [None], "item_id": [1], "timestamp": [1]},
    )
    users = found.tables["users"].schema()
    assert [str(users[name]) for name in ("skills", "bio", "x")] == [
        "array<string>",
        "string",
        "string",
    ]
    assert str(found.tables["impressions"].schema()["candidate_id"]) == "int64"
    assert report(found, "impressions").rows_used == 1


def test_positions_that_are_no_places_are_left_empty(engine: LocalEngine) -> None:
    shown = {"user_id": [1] * 3, "item_id": [1] * 3, "timestamp": [1, 2, 3]}
    found = check(engine, impressions={**shown, "position": [float("inf"), 1e30, 4.0]})
    assert sorted(str(r["position"]) for r in rows(engine, found, "impressions")) == [
        "4",
        "None",
        "None",
    ]


def test_future_times_are_kept_with_a_warning(engine: LocalEngine) -> None:
    later = datetime.now(UTC) + timedelta(days=2)
    found = check(engine, connections={"src": [1], "dst": [2], "timestamp": [later]})
    assert counts(found, "connections") == {"future_timestamp": 1}
    assert report(found, "connections").rows_used == 1


def test_columns_are_renamed(engine: LocalEngine) -> None:
    names = {"data": {"columns": {"connections": {"src": "from_user", "dst": "to_user"}}}}
    frame = {"from_user": [1], "to_user": [2], "src": ["other"]}
    found = check(engine, names, connections=frame)
    assert rows(engine, found, "connections")[0]["src"] == 1
    with pytest.raises(
        DataError, match=r"connections\.dst names the column 'to_user'.*did you mean"
    ):
        check(engine, names, connections={"from_user": [1], "to_usr": [2]})


def test_one_column_may_stand_for_two_and_two_may_change_places(engine: LocalEngine) -> None:
    names = {"user_id": "login", "name": "login"}
    found = check(engine, {"data": {"columns": {"users": names}}}, users={"login": ["ada"]})
    assert rows(engine, found, "users") == [{"user_id": "ada", "name": "ada", "discoverable": True}]
    swapped = {"data": {"columns": {"connections": {"src": "dst", "dst": "src"}}}}
    found = check(engine, swapped, connections={"src": [1], "dst": [2]})
    assert rows(engine, found, "connections")[0]["src"] == 2


def test_own_columns_of_any_name_are_kept(engine: LocalEngine) -> None:
    own = {'a"b c': ["x"], "ünï 😀": [1], "rows": [1], "__row": [9], "select": [1]}
    found = check(engine, users={"user_id": [1], **own})
    assert set(own) < set(rows(engine, found, "users")[0])


def test_the_report_says_what_each_column_is_used_as(engine: LocalEngine) -> None:
    found = check(
        engine,
        {"features": {"users": {"text": ["city"], "ignore": ["plan"]}}},
        users={"user_id": [1], "city": ["x"], "plan": ["a"], "nested": [{"a": 1}]},
        connections={"src": [1], "dst": [2], "via": ["a"]},
    )
    assert report(found, "users").kinds == {
        "user_id": "identifier",
        "city": "text",
        "plan": "ignored",
        "nested": "ignored",
        "discoverable": "flag",
    }
    assert report(found, "connections").kinds["via"] == "ignored"
    with pytest.raises(DataError, match=r"features\.users\.text names.*'cty'.*did you mean 'city'"):
        check(
            engine, {"features": {"users": {"text": ["cty"]}}}, users={"user_id": [1], "city": [1]}
        )


def test_faults_of_reading_and_of_cleaning_are_named_together(engine: LocalEngine) -> None:
    with pytest.raises(DataError) as caught:
        check(
            engine,
            users={"ID": [1]},
            connections={"src": [1], "dst": [2], "timestamp": ["soon"]},
            items={"item_id": [1.5]},
        )
    message = str(caught.value)
    assert "users: memory: required column missing: 'user_id'" in message
    assert "items: memory: column 'item_id': 1.5 is no whole number" in message
    with pytest.raises(DataError, match=r"(?s)did you mean 'USER_ID'.*none of its 1 values"):
        check(
            engine,
            users={"USER_ID": [1]},
            connections={"src": [1], "dst": [2], "timestamp": ["soon"]},
        )


def test_every_fault_of_every_table_is_named_at_once(engine: LocalEngine, tmp_path: Path) -> None:
    (tmp_path / "users.csv").write_text("user,city\n1,x\n")
    (tmp_path / "items.csv").write_text("item_id,x\n1,2,3\n")
    settings = {
        "data": {"users": "users.csv", "items": "items.csv", "connections": "none.csv"},
        "surfaces": {"people": {}},
    }
    with pytest.raises(DataError) as caught:
        validate(config(settings, tmp_path), engine)
    users, connections, items = str(caught.value).splitlines()
    assert users.startswith(
        "users: users.csv: required column missing: 'user_id' (did you mean 'user'"
    )
    assert '[data.columns.users] user_id = "your name"' in users
    assert "none.csv: no such file" in connections
    assert "items.csv, line 2: expected 2 values, found 3" in items
    assert caught.value.exit_code == 2


def test_wrong_types_are_named_per_column(engine: LocalEngine) -> None:
    with pytest.raises(DataError) as caught:
        check(engine, users={"user_id": [1], "created_at": [True], "latitude": [[1.0]]})
    lines = str(caught.value).splitlines()
    assert len(lines) == 2
    assert any("'created_at' has type boolean; expected dates, ISO 8601" in line for line in lines)
    with pytest.raises(DataError, match="expected candidate_id or item_id"):
        check(engine, impressions={"user_id": [1], "timestamp": [1]})
    with pytest.raises(DataError, match="no table 'user'; did you mean 'users'"):
        check(engine, user={"user_id": [1]})


@pytest.mark.parametrize(
    ("edges", "why"),
    [
        ({"src": pa.array([], pa.int64()), "dst": pa.array([], pa.int64())}, "the table is empty"),
        ({"src": [1, 2], "dst": [1, 2]}, "2: src and dst are the same"),
    ],
)
def test_a_surface_without_a_usable_row_stops(
    engine: LocalEngine, edges: dict[str, Any], why: str
) -> None:
    with pytest.raises(DataError, match=f"no usable row of .*{why}.*surface 'people' needs"):
        check(engine, {"surfaces": {"people": {}}}, connections=edges)
    with pytest.raises(DataError, match="surface 'items' needs the table 'interactions'"):
        check(engine, {"surfaces": {"items": {}}}, connections={"src": [1], "dst": [2]})


def test_the_report_of_a_fault_can_be_had_without_the_error(engine: LocalEngine) -> None:
    found = inspect_data(config(), engine, {"users": pa.table({"id": [1]})})
    assert len(found.report.fatal) == 1
    assert json.loads(json.dumps(found.report.to_json()))["fatal"] == list(found.report.fatal)


def test_a_folder_of_text_files(engine: LocalEngine, tmp_path: Path) -> None:
    (tmp_path / "users.csv").write_text(
        "user_id,school\n007,東京大学\n8,Zürich 😀\n8,later\n", encoding="utf-8-sig"
    )
    (tmp_path / "connections.jsonl").write_text('{"src": "007", "dst": 8}\n{"src": 7, "dst": 8}\n')
    found = validate(load_config(tmp_path), engine)
    assert rows(engine, found, "users")[0]["school"] == "東京大学"
    assert counts(found, "connections") == {"dangling_src": 1}, "7 is not 007"
    assert counts(found, "users") == {"duplicate_id": 1}
    assert json.loads(json.dumps(found.report.to_json()))["tables"][0]["rows_read"] == 3


EDGE = st.tuples(
    st.one_of(st.none(), st.integers(0, 4)),
    st.one_of(st.none(), st.integers(0, 6)),
    st.one_of(st.none(), st.integers(0, 2)),
    st.sampled_from([None, 1.0, 2.0, -1.0, float("nan")]),
)


@settings(
    deadline=None, max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(EDGE, min_size=1, max_size=30))
def test_cleaning_equals_a_plain_loop(
    engine: LocalEngine, edges: list[tuple[Any, Any, Any, Any]]
) -> None:
    src, dst, time, weight = (list(column) for column in zip(*edges, strict=True))
    found = check(
        engine,
        users={"user_id": list(range(5))},
        connections={
            "src": pa.array(src, pa.int64()),
            "dst": pa.array(dst, pa.int64()),
            "timestamp": pa.array(time, pa.int64()),
            "weight": pa.array(weight, pa.float64()),
        },
    )
    # Where all times lie in the first year they are places in an order, counted from 1.
    order_only = max((at for at in time if at is not None), default=0) < 365 * 86_400
    expected: list[tuple[Any, ...]] = []
    for a, b, at, value in edges:
        if a is None or b is None or a == b or b > 4:
            continue
        if value is not None and not value >= 0:
            continue
        instant = None if at is None else datetime.fromtimestamp(at + order_only, UTC)
        row = (a, b, instant, 1.0 if value is None else value)
        if at is None or row not in expected:
            expected.append(row)
    used = [
        tuple(row[name] for name in ("src", "dst", "timestamp", "weight"))
        for row in rows(engine, found, "connections")
    ]
    assert sorted(used, key=str) == sorted(expected, key=str)
    told = report(found, "connections")
    lost = sum(f.rows for f in told.findings if f.action in ("dropped", "merged"))
    assert told.rows_read == len(edges) == told.rows_used + lost
    assert told.rows_used == len(used)
