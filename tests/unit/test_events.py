"""Events are validated one by one by their declared schemas, and read back as they were."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nextedge import schema
from nextedge.errors import EventError
from nextedge.events.clock import Clock
from nextedge.events.event import Event, parse_event, stored_event
from nextedge.events.schemas import EVENTS, documented, json_schema
from nextedge.events.state import folded_state

DOCS = Path(__file__).parents[2] / "docs"
IDS = {"user_id": 1, "candidate_id": "b", "item_id": 7}


def smallest(name: str) -> dict[str, Any]:
    """The least that an event of a type needs."""
    declared = EVENTS[name]
    event = {"type": name, **{each: IDS[each] for each in declared.needs}}
    return {
        **event,
        **({"candidate_id": "b"} if declared.either else {}),
        **({"school": "MIT"} if declared.states else {}),
    }


@pytest.mark.parametrize("name", EVENTS)
def test_what_a_type_needs_is_enough_and_no_less(name: str) -> None:
    event = smallest(name)
    assert parse_event(event).type == name
    for missing in set(event) - {"type"}:
        with pytest.raises(EventError, match=f"{missing}|exactly one|0 attributes"):
            parse_event({key: value for key, value in event.items() if key != missing})


def test_every_type_has_a_handler_and_a_place_in_the_documents() -> None:
    assert folded_state._HANDLERS.keys() == EVENTS.keys()
    page = (DOCS / "events.md").read_text(encoding="utf-8")
    assert documented(page) == page
    assert all(f"| `{name}` |" in page for name in EVENTS)


def test_the_json_schema_says_the_same() -> None:
    branches = {each["properties"]["type"]["const"]: each for each in json_schema()["oneOf"]}
    assert branches.keys() == EVENTS.keys()
    for name, declared in EVENTS.items():
        branch = branches[name]
        assert set(branch["required"]) == {"type", *declared.needs}
        assert branch["properties"].keys() >= {"timestamp", "event_id", *declared.fields}
        assert branch["properties"]["schema_version"]["maximum"] == declared.version
        assert ("oneOf" in branch) == declared.either


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"type": "dismis"}, "did you mean 'dismiss'"),
        ({"type": None}, "type"),
        ({"user_id": True}, "user_id: True is no id"),
        ({"user_id": 1.5}, "user_id: 1.5 is no id"),
        ({"user_id": [1]}, "is no id"),
        ({"user_id": ""}, "user_id: an id must not be empty"),
        ({"user_id": "\ud800"}, "user_id: expected text that UTF-8"),
        ({"candidate_id": 2**63}, "candidate_id: 9223372036854775808 does not fit 64 bits"),
        ({"candidate_id": "1"}, "other than its user_id"),
        ({"weight": "heavy"}, "weight: "),
        ({"weight": float("nan")}, "weight: Input should be a finite number"),
        ({"weight": -1}, "weight: "),
        ({"position": 1.5}, "position: "),
        ({"timestamp": "yesterday"}, "timestamp: "),
        ({"timestamp": float("nan")}, "timestamp: "),
        ({"timestamp": 1e30}, "timestamp: .*9999"),
        ({"timestamp": "9999-12-31T23:59:59-05:00"}, "years 1 to 9999"),
        ({"timestamp": "0001-01-01T00:00:00+05:00"}, "years 1 to 9999"),
        ({"timestamp": "2999-01-01"}, r"300 s ahead of the clock \(events.future_seconds\)"),
        ({"schema_version": 2}, "schema_version: 2 of 'connect' is newer"),
        ({"schema_version": 0}, "schema_version: "),
        ({"event_id": ""}, "event_id: "),
        ({"event_id": "x" * 129}, "event_id: "),
        ({"note": object()}, "cannot be kept as JSON"),
        ({"note": "\ud800"}, "cannot be kept as JSON"),
    ],
)
def test_a_fault_is_named_with_its_field(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(EventError, match=reason):
        parse_event({"type": "connect", "user_id": 1, "candidate_id": 2, **fields})


def test_actions_and_attributes_are_typed() -> None:
    for action in schema.ACTIONS:
        assert parse_event({**smallest("interact"), "event": action}).given("event") == action
    with pytest.raises(EventError, match="event: "):
        parse_event({**smallest("interact"), "event": "stare"})
    with pytest.raises(EventError, match="regions: "):
        parse_event({**smallest("item_upsert"), "regions": "de"})
    item = parse_event({**smallest("item_upsert"), "price": "2.5", "available": "false", "own": 1})
    assert (item.given("price"), item.given("available"), item.given("own")) == (2.5, False, 1)


@given(
    st.datetimes(datetime(1, 1, 2), datetime(2026, 1, 1), timezones=st.just(UTC)),
    st.dictionaries(
        st.sampled_from(["a", "note", "é"]),
        st.none()
        | st.integers()
        | st.text('a\n"é\u0000', max_size=4)
        | st.lists(st.booleans(), max_size=2),
    ),
)
def test_what_is_stored_is_read_back(when: datetime, unknown: dict[str, Any]) -> None:
    event = parse_event({**smallest("purchase"), **unknown, "timestamp": when, "price": 3})
    again = stored_event(event.model_dump_json())
    assert again.model_dump() == event.model_dump()
    assert again.model_dump_json() == event.model_dump_json()
    assert again.micros == event.micros
    assert datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=event.micros) == when
    assert {**again.model_extra, **unknown} == again.model_extra  # type: ignore[dict-item]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"7",
        b"{}",
        b'{"type": "connect"}',
        b'{"type": "new", "timestamp": "2026-01-01T00:00:00Z", "event_id": "a"}',
        b'{"type": "leave", "timestamp": "2026-01-01T00:00:00Z", "event_id": "a", "schema_version": 9}',
        b'{"type": "leave", "timestamp": "soon", "event_id": "a"}',
    ],
)
def test_a_body_that_cannot_be_read_is_refused(body: bytes) -> None:
    with pytest.raises(EventError, match="cannot be read"):
        stored_event(body)


def test_stamps_never_go_back(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, now = Clock(), 10**18
    monkeypatch.setattr("time.time_ns", lambda: now)
    first = parse_event({"type": "opt_in", "user_id": 1}, clock=clock)
    now -= 3600 * 10**9
    second = parse_event(Event(type="opt_out", user_id=1), clock=clock)
    assert second.micros == first.micros + 1
    clock.observe(second.micros + 1_000_000)
    assert (
        parse_event({"type": "opt_out", "user_id": 1}, clock=clock).micros
        == second.micros + 1_000_001
    )
    given = first.timestamp + timedelta(seconds=200)  # not in the future of the log
    assert parse_event({"type": "opt_out", "user_id": 1, "timestamp": given}, clock=clock)


def test_the_table_is_printed_as_json() -> None:
    assert json.loads(json.dumps(json_schema()))["title"] == "NextEdge event"
