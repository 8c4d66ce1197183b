"""What events state of users and items becomes rows of their tables, typed as the tables are."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from nextedge.events.event import Event, parse_event
from nextedge.events.to_tables.entities import (
    UpdatedRows,
    with_items,
    with_newcomers,
    with_profiles,
)
from nextedge.events.to_tables.rows import event_rows

START = datetime(2026, 1, 1, tzinfo=UTC)
TIME = pa.timestamp("us", "UTC")


def event(kind: str, day: float, **fields: Any) -> Event:
    return parse_event({"type": kind, "timestamp": START + timedelta(days=day), **fields})


def items() -> pa.Table:
    return pa.table(
        {
            "item_id": [1, 2],
            "category": ["a", "b"],
            "price": [1.0, 2.0],
            "stock": [5, 6],
            "regions": pa.array([["eu"], None], pa.list_(pa.string())),
            "available": [True, False],
            "unsafe": [False, True],
            "created_at": pa.array([START, None], TIME),
        }
    )


def stated(events: list[Event], rows: pa.Table | None = None) -> UpdatedRows:
    found = with_items(items() if rows is None else rows, events, pa.int64())
    assert found is not None
    return found


def by_id(found: UpdatedRows) -> dict[Any, dict[str, Any]]:
    return {row["item_id"]: row for row in found.rows.to_pylist()}


def test_each_field_is_as_it_was_stated_last_by_event_time() -> None:
    events = [
        event("item_upsert", 3, item_id=1, price=7, category="z"),
        event("item_upsert", 5, item_id=1, price="9.5"),
        event("item_upsert", 4, item_id=1, price=8, regions=["us", "ca"], unknown="kept nowhere"),
        event(
            "item_upsert", 6, item_id="2", regions=["eu", "asia"], created_at="2020-01-02T00:00:00Z"
        ),
    ]
    for _ in range(5):
        random.Random(1).shuffle(events)
        rows = by_id(stated(events))
        assert (rows[1]["price"], rows[1]["category"], rows[1]["stock"]) == (9.5, "z", 5)
        assert rows[1]["regions"] == ["us", "ca"]
        assert rows[2]["regions"] == ["eu", "asia"]
        assert rows[2]["created_at"] == datetime(2020, 1, 2, tzinfo=UTC)
        assert rows[2]["unsafe"]
        assert list(rows[1]) == items().column_names


def test_new_items_appear_and_unknown_ones_are_not_made_by_their_availability() -> None:
    rows = by_id(
        stated(
            [
                event("item_upsert", 3, item_id=7, category="new"),
                event("item_upsert", 2, item_id=7, stock=4),
                event("item_upsert", 3, item_id="no number"),
                event("item_unavailable", 1, item_id=8),
            ]
        )
    )
    assert set(rows) == {1, 2, 7}
    assert rows[7] == {
        "item_id": 7,
        "category": "new",
        "price": None,
        "stock": 4,
        "regions": None,
        "available": True,
        "unsafe": False,
        "created_at": START + timedelta(days=2),
    }


def test_the_latest_word_on_availability_holds_whoever_gave_it() -> None:
    events = [
        event("item_unavailable", 3, item_id=1),
        event("item_available", 2, item_id=1),
        event("item_unavailable", 1, item_id=2),
        event("item_upsert", 4, item_id=2, available=True),
    ]
    rows = by_id(stated(events))
    assert (rows[1]["available"], rows[2]["available"]) == (False, True)


@pytest.mark.parametrize(
    ("column", "value", "left"),
    [
        ("price", "cheap", None),
        ("price", True, None),
        ("price", float("inf"), None),
        ("stock", 1.5, None),
        ("stock", 10**30, None),
        ("category", {"a": 1}, None),
        ("category", ["a", "b"], None),
        ("created_at", "yesterday", None),
        ("available", "maybe", True),
        ("unsafe", [True, False], False),
    ],
)
def test_values_of_another_type_are_counted_and_left_out(
    column: str, value: object, left: object
) -> None:
    raw = {"type": "item_upsert", "item_id": 1, "timestamp": START, column: value}
    found = stated([Event.model_validate(raw)])
    assert by_id(found)[1][column] == left
    assert found.unreadable == {column: 1}


def test_nothing_takes_a_value_back() -> None:
    row = by_id(
        stated([event("item_upsert", 1, item_id=2, category=None, unsafe=None, stock=None)])
    )[2]
    assert (row["category"], row["unsafe"], row["stock"]) == (None, False, None)


def test_upserts_alone_make_a_table_of_what_they_state() -> None:
    events = [event("item_upsert", 1, item_id=3, title="T", price=2, colour="red")]
    found = with_items(None, events, pa.int64())
    assert found is not None
    assert found.rows.to_pylist() == [
        {"item_id": 3, "title": "T", "price": 2.0, "available": True, "unsafe": False}
    ]
    assert with_items(None, [event("item_unavailable", 1, item_id=3)], pa.int64()) is None


def users() -> pa.Table:
    return pa.table(
        {
            "user_id": ["ann", "bob"],
            "city": ["x", "y"],
            "age": [30, None],
            "skills": pa.array([["go"], ["sql"]], pa.list_(pa.string())),
            "discoverable": [True, False],
            "latitude": [1.0, 2.0],
        }
    )


def test_profiles_are_as_their_users_stated_them_last() -> None:
    events = [
        event("profile_update", 2, user_id="ann", city="new", skills="rust", age="31"),
        event("profile_update", 1, user_id="ann", city="old", skills=["c"], shoe=44),
        event("profile_update", 1, user_id="bob", city=None, skills=[], latitude=200),
        event("profile_update", 1, user_id="stranger", city="z"),
    ]
    found = with_profiles(users(), events)
    assert found.rows.to_pylist() == [
        {
            "user_id": "ann",
            "city": "new",
            "age": 31,
            "skills": ["rust"],
            "discoverable": True,
            "latitude": 1.0,
        },
        {
            "user_id": "bob",
            "city": None,
            "age": None,
            "skills": None,
            "discoverable": False,
            "latitude": None,
        },
    ]
    assert found.unreadable == {"latitude": 1}


def test_everybody_whom_events_name_has_a_row() -> None:
    events = [
        event("connect", 2, user_id="new", candidate_id="bob"),
        event("impression", 1, user_id="ann", item_id="no person"),
        event("dismiss", 1, user_id="new", candidate_id="other"),
    ]
    found = with_newcomers(users(), event_rows(events)).to_pylist()
    assert [row["user_id"] for row in found] == ["ann", "bob", "new", "other"]
    assert found[2] == {
        "user_id": "new",
        "city": None,
        "age": None,
        "skills": None,
        "discoverable": True,
        "latitude": None,
    }
    assert found[:2] == users().to_pylist()
