"""Recorded impressions and actions become rows of the impressions, whatever order they come in."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from nextedge import schema
from nextedge.events.event import Event, parse_event
from nextedge.events.to_tables.impressions import AGAINST, LOGGED, STRENGTH, with_impressions
from nextedge.events.to_tables.interactions import with_interactions
from nextedge.events.to_tables.rows import event_rows

START = datetime(2026, 1, 1, tzinfo=UTC)
DAY = 86_400_000_000
PATIENCE = {"people": 14 * DAY, "items": 14 * DAY}
TEXT = {"users": pa.string(), "items": pa.string()}


def event(kind: str, day: float, **fields: Any) -> Event:
    return parse_event({"type": kind, "timestamp": START + timedelta(days=day), **fields})


def seen(
    target: str, day: float = 0, rid: str | None = "r", user: str = "ann", **more: Any
) -> Event:
    kind = "item_id" if target.startswith("i") else "candidate_id"
    named = {} if rid is None else {"recommendation_id": rid}
    return event("impression", day, user_id=user, **{kind: target}, **named, **more)


def act(
    kind: str, target: str, day: float, rid: str | None = "r", user: str = "ann", **more: Any
) -> Event:
    of = "item_id" if target.startswith("i") else "candidate_id"
    named = {} if rid is None else {"recommendation_id": rid}
    return event(kind, day, user_id=user, **{of: target}, **named, **more)


def labels(
    events: Sequence[Event],
    given: pa.Table | None = None,
    logged: Sequence[tuple[Any, ...]] = (),
    types: dict[str, pa.DataType] | None = None,
) -> list[dict[str, Any]]:
    columns = zip(*logged, strict=True) if logged else ((),) * len(LOGGED)
    answers = pa.table(
        [pa.array(v, p.type) for v, p in zip(columns, LOGGED, strict=True)], schema=LOGGED
    )
    found = with_impressions(given, event_rows(events), answers, PATIENCE, types or TEXT)
    return [] if found is None else found.to_pylist()


def days(time: datetime | None) -> float | None:
    return None if time is None else (time - START) / timedelta(days=1)


def outcome(events: Sequence[Event]) -> tuple[str | None, float | None]:
    """What the only impression ends up with, and on which day."""
    (row,) = labels(events)
    return row["action"], days(row["action_timestamp"])


@pytest.mark.parametrize(
    ("actions", "expected"),
    [
        ([("click", 1), ("purchase", 5), ("click", 6)], ("purchase", 5)),  # the strongest
        ([("click", 3), ("click", 1)], ("click", 1)),  # of equal ones the first
        ([("click", 1), ("dismiss", 2)], ("dismiss", 2)),  # against after in favour
        ([("dismiss", 1), ("click", 2)], ("click", 2)),  # and taken after all
        ([("click", 2), ("dismiss", 2)], ("dismiss", 2)),  # at the same time: not taken
        ([("purchase", 1), ("dismiss", 2), ("click", 3)], ("click", 3)),
        ([("click", 13), ("purchase", 15)], ("click", 13)),  # too late to answer this
        ([("click", 15)], (None, None)),
        ([("click", 1), ("dismiss", 30)], ("dismiss", 30)),  # what was taken may be taken back
        ([("dismiss", 30)], (None, None)),
        ([], (None, None)),
    ],
)
def test_one_of_several_actions_tells(
    actions: list[tuple[str, float]], expected: tuple[str | None, float | None]
) -> None:
    assert outcome([seen("i1"), *(act(kind, "i1", day) for kind, day in actions)]) == expected


@pytest.mark.parametrize(
    ("actions", "expected"),
    [
        ([("accept", 1), ("block", 2)], ("block", 2)),
        ([("accept", 1), ("block", 40)], ("block", 40)),
        ([("block", 1), ("accept", 2)], ("accept", 2)),
        ([("dismiss", 1), ("click", 2)], ("dismiss", 1)),  # a look at a profile takes nobody
        ([("request", 1), ("accept", 3)], ("accept", 3)),
        ([("request", 1), ("click", 2)], ("request", 1)),
        ([("connect", 2), ("accept", 1)], ("accept", 1)),
    ],
)
def test_one_of_several_actions_on_a_person_tells(
    actions: list[tuple[str, float]], expected: tuple[str, float]
) -> None:
    assert outcome([seen("bob"), *(act(kind, "bob", day) for kind, day in actions)]) == expected


def test_the_other_end_answers_a_request() -> None:
    asked = [seen("bob"), act("request", "bob", 1)]
    answer = act("accept", "ann", 4, rid=None, user="bob")
    assert outcome([*asked, answer]) == ("accept", 4)
    assert outcome([seen("bob"), answer]) == (None, None)  # nothing that came of this showing
    assert outcome([*asked, act("accept", "ann", 20, rid=None, user="bob")]) == ("request", 1)
    assert outcome([*asked, answer, act("block", "ann", 9, rid=None, user="bob")]) == ("block", 9)


def test_without_an_id_the_latest_impression_before_is_answered() -> None:
    shown = [seen("i1", 0, "r0"), seen("i1", 5, "r5"), seen("i1", 9, "r9"), seen("i2", 6)]
    found = labels([*shown, act("click", "i1", 7, rid=None)])
    assert {r["recommendation_id"]: r["action"] for r in found} == {
        "r0": None,
        "r5": "click",
        "r9": None,
        "r": None,
    }
    assert {r["action"] for r in labels([seen("i1", 5), act("click", "i1", 4, rid=None)])} == {None}
    assert {r["action"] for r in labels([seen("i1", 5), act("click", "i1", 20, rid=None)])} == {
        None
    }


def test_an_action_answers_only_its_own_users_list_and_target() -> None:
    shown = [seen("i1"), seen("i2"), seen("i1", rid="other"), seen("i1", user="eve", rid="e")]
    found = labels([*shown, act("click", "i1", 1), act("click", "i1", 1, rid="r", user="eve")])
    taken = [(r["user_id"], r["item_id"], r["recommendation_id"]) for r in found if r["action"]]
    assert taken == [("ann", "i1", "r")]


def test_neither_order_nor_repeats_of_events_change_anything() -> None:
    draw = random.Random(7)
    targets, people = ["i1", "i2", "i3"], ["bob", "cy", "dee"]
    events = [seen(t, draw.choice([0, 3, 6]), draw.choice(["r", "s", None])) for t in targets * 3]
    events += [seen(p, draw.choice([0, 3]), draw.choice(["p", None])) for p in people * 2]
    events += [
        act(
            draw.choice(["click", "purchase", "dismiss"]),
            draw.choice(targets),
            draw.randint(0, 9),
            draw.choice(["r", "s", None]),
        )
        for _ in range(30)
    ] + [
        act(
            draw.choice(["request", "accept", "block", "click"]),
            draw.choice(people),
            draw.randint(0, 9),
            draw.choice(["p", None]),
        )
        for _ in range(30)
    ]
    events += [act("accept", "ann", draw.randint(0, 9), None, user=p) for p in people]
    expected = labels(events)
    assert sum(row["action"] is not None for row in expected) > 5
    for _ in range(10):
        shuffled = [*events, *draw.sample(events, 20)]
        draw.shuffle(shuffled)
        assert labels(shuffled) == expected


def test_one_impression_is_one_row_however_often_it_is_told() -> None:
    told = [seen("i1", 2, position=4), seen("i1", 1), seen("i1", 3, position=9)]
    (row,) = labels(told)
    assert (days(row["timestamp"]), row["position"], row["recommendation_id"]) == (1, 4, "r")
    assert len(labels([seen("i1", 1, None), seen("i1", 1, None), seen("i1", 2, None)])) == 2


def test_what_the_request_log_knows_is_filled_in() -> None:
    logged = [("r", "items", "ann", "i1", 3, 0.25, 0), ("r", "items", "ann", "i2", 4, 1.0, 0)]
    rows = {
        row["item_id"]: row
        for row in labels([seen("i1"), seen("i2", position=7), seen("i3")], logged=logged)
    }
    assert [(rows[i]["position"], rows[i]["propensity"]) for i in ("i1", "i2", "i3")] == [
        (3, 0.25),
        (7, 1.0),
        (None, None),
    ]


def logged_list(
    rid: str = "r", user: str = "ann", day: float = 0, kind: str = "items"
) -> list[tuple[Any, ...]]:
    at = int((START + timedelta(days=day)).timestamp() * 1e6)
    return [(rid, kind, user, f"i{n}", n, 1 / n, at) for n in range(1, 6)]


def test_an_action_tells_that_the_list_was_seen_down_to_its_place() -> None:
    found = labels([act("click", "i3", 2), act("dismiss", "i2", 1)], logged=logged_list())
    assert [(r["item_id"], r["position"], r["action"], days(r["timestamp"])) for r in found] == [
        ("i1", 1, None, 0),
        ("i2", 2, "dismiss", 0),
        ("i3", 3, "click", 0),
    ]
    # each is known from the first action on that tells of it
    assert [days(r["arrived_at"]) for r in found] == [1, 1, 2]
    assert [r["propensity"] for r in found] == [1.0, 0.5, pytest.approx(1 / 3)]


def test_a_list_is_not_taken_as_seen_where_it_was_not_or_the_client_says_what_was() -> None:
    assert labels([act("click", "i3", 2, user="eve")], logged=logged_list()) == []
    assert labels([act("click", "i9", 2)], logged=logged_list()) == []
    assert labels([act("click", "i3", 2, rid="unknown")], logged=logged_list()) == []
    told = labels([seen("i5", position=5), act("click", "i3", 2)], logged=logged_list())
    assert [(r["item_id"], r["action"]) for r in told] == [("i3", "click"), ("i5", None)]


def table(rows: list[dict[str, Any]]) -> pa.Table:
    time = pa.timestamp("us", "UTC")
    kinds = pa.schema(
        [
            ("user_id", pa.string()),
            ("item_id", pa.string()),
            ("timestamp", time),
            ("recommendation_id", pa.string()),
            ("position", pa.int64()),
            ("action", pa.string()),
            ("action_timestamp", time),
            ("device", pa.string()),
        ]
    )
    return pa.Table.from_pylist([{"user_id": "ann", **row} for row in rows], schema=kinds)


def test_rows_of_the_table_are_answered_and_otherwise_stay_as_they_are() -> None:
    given = table(
        [
            {"item_id": "i1", "timestamp": START, "recommendation_id": "r", "device": "tv"},
            {
                "item_id": "i2",
                "timestamp": START,
                "recommendation_id": "r",
                "action": "view",
                "action_timestamp": START,
                "position": 2,
            },
            {
                "item_id": "i3",
                "timestamp": START,
                "action": "purchase",
                "action_timestamp": START + timedelta(days=1),
            },
        ]
    )
    found = labels(
        [
            seen("i1"),
            seen("i4"),
            act("click", "i1", 3),
            act("click", "i3", 2, None),
            act("purchase", "i2", 1),
        ],
        given=given,
        logged=logged_list(),
    )
    assert [(r["item_id"], r["action"], days(r["action_timestamp"])) for r in found] == [
        ("i1", "click", 3),
        ("i2", "purchase", 1),
        ("i3", "purchase", 1),
        ("i4", None, None),
    ]
    assert [r["device"] for r in found] == ["tv", None, None, None]
    assert [r["position"] for r in found] == [1, 2, None, 4]
    unchanged = with_impressions(given, event_rows([]), LOGGED.empty_table(), PATIENCE, TEXT)
    assert unchanged is given


def test_ids_take_the_type_of_the_tables_and_others_make_no_row() -> None:
    events = [
        event("impression", 0, user_id=user, candidate_id=other)
        for user, other in ((1, 2), ("1", "3"), ("x", 4), (5, "07"))
    ]
    found = labels(events, types={"users": pa.int64(), "items": pa.string()})
    assert [(r["user_id"], r["candidate_id"]) for r in found] == [(1, 2), (1, 3)]


def test_every_action_in_favour_or_against_has_its_place() -> None:
    assert set(schema.ACTIONS) == set(STRENGTH)
    assert not {a for favours in schema.FAVOURS.values() for a in favours} & set(AGAINST)


def interactions(rows: list[tuple[str, str, str | None, float, datetime]]) -> pa.Table:
    names = ("user_id", "item_id", "event", "weight", "timestamp")
    columns = dict(zip(names, zip(*rows, strict=True), strict=True))
    time = pa.array(columns.pop("timestamp"), pa.timestamp("us", "UTC"))
    return pa.table({**columns, "timestamp": time})


def test_clicks_purchases_and_interactions_become_rows_once() -> None:
    given = interactions([("ann", "i1", "click", 1.0, START), ("bob", "i1", None, 2.0, START)])
    click = act("click", "i2", 1)
    events = [
        click,
        click,
        act("purchase", "i2", 2, weight=3),
        act("interact", "i3", 3, event="like"),
        act("interact", "i3", 4),
        act("click", "i1", 0),
        act("click", "i1", 0, user="cy"),
        act("interact", "i4", 5, event="dismiss"),
        act("dismiss", "i5", 5),
        act("click", "bob", 5),
        act("interact", "i1", 0, user="bob"),
    ]
    found = with_interactions(given, event_rows(events)).slice(2).to_pylist()
    rows = [
        (r["user_id"], r["item_id"], r["event"], r["weight"], days(r["timestamp"])) for r in found
    ]
    assert rows == [
        ("cy", "i1", "click", 1.0, 0),
        ("ann", "i2", "click", 1.0, 1),
        ("ann", "i2", "purchase", 3.0, 2),
        ("ann", "i3", "like", 1.0, 3),
        ("ann", "i3", None, 1.0, 4),
    ]
