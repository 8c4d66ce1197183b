"""A release over live edges has the graphs that a build of the same edges would have."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from nextedge.events.event import Event
from nextedge.events.interaction import interaction_weight
from nextedge.events.projections.live_edges import LiveEdges
from nextedge.events.to_tables.interactions import with_interactions
from nextedge.events.to_tables.rows import event_rows
from nextedge.graph.changes import EdgeChanges, changed
from nextedge.graph.csr import Graph, build_graph

NODES = 9
_PART = st.integers(0, NODES - 1)
_RECORDS = st.lists(st.tuples(_PART, _PART, st.integers(1, 50)), max_size=30)


def records(rows: list[tuple[int, int, int]]) -> EdgeChanges:
    table = np.array(rows, np.int64).reshape(-1, 3)
    ends = table[:, :2].astype(np.int32)
    return EdgeChanges(ends[:, 0], ends[:, 1], np.ones(len(rows), np.float32), table[:, 2])


def built(rows: EdgeChanges) -> Graph:
    return build_graph(rows.source, rows.target, NODES, NODES, rows.weight, rows.time)


def assert_equal(one: Graph, other: Graph) -> None:
    for part in ("indptr", "indices", "weight", "first", "last"):
        mine, theirs = getattr(one, part), getattr(other, part)
        assert mine.dtype == theirs.dtype
        np.testing.assert_array_equal(mine, theirs, err_msg=part)


@settings(max_examples=300, deadline=None)
@given(_RECORDS, _RECORDS, st.lists(st.tuples(_PART, _PART), max_size=8))
def test_changed_is_what_is_built_anew(
    before: list[tuple[int, int, int]],
    after: list[tuple[int, int, int]],
    gone: list[tuple[int, int]],
) -> None:
    graph = built(records(before))
    there = [pair for pair in gone if pair[1] in graph.row(pair[0])]
    removed = np.array(there, np.int32).reshape(-1, 2)
    found = changed(graph, records(after), (removed[:, 0], removed[:, 1]))
    kept = [row for row in before if row[:2] not in set(there)]
    assert_equal(found, built(records([*kept, *after])))


def test_a_fold_that_is_loaded_goes_on_as_the_one_that_was_dumped() -> None:
    events = [
        Event(type="connect", user_id="a", candidate_id="b"),
        Event(type="interact", user_id="a", item_id=7),
        Event(type="disconnect", user_id="b", candidate_id="a"),
        Event(type="click", user_id="a", candidate_id="b"),
        Event(
            type="accept", user_id="c", candidate_id="ä", timestamp=datetime(2020, 1, 1, tzinfo=UTC)
        ),
    ]
    whole, first, second = LiveEdges(), LiveEdges(), LiveEdges()
    for event in events:
        whole.apply(event)
    for event in events[:2]:
        first.apply(event)
    second.load(first.dump())
    for event in events[2:]:
        second.apply(event)
    assert second.dump() == whole.dump()
    assert whole.dump()["users"] == ["a"]
    assert whole.changes == 4


_KINDS = ("interact", "click", "purchase", "impression", "dismiss", "connect")


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(_KINDS),
            st.sampled_from([None, "like", "dismiss", "block"]),
            st.sampled_from([None, 0, 0.5, 3]),
            st.booleans(),
        ),
        max_size=20,
    )
)
def test_an_interaction_is_the_same_alone_and_in_a_table(
    given_events: list[tuple[str, str | None, float | None, bool]],
) -> None:
    events = []
    for number, (kind, what, weight, of_item) in enumerate(given_events):
        of_item = of_item or kind in ("interact", "purchase")
        target = (
            {"item_id": f"i{number}"} if of_item and kind != "connect" else {"candidate_id": "b"}
        )
        more = {"event": what, "weight": weight}
        stated = {name: value for name, value in more.items() if value is not None}
        events.append(Event(type=kind, user_id="a", **target, **stated))
    kinds = {"user_id": pa.string(), "item_id": pa.string(), "weight": pa.float64()}
    table = pa.table({name: pa.array([], kind) for name, kind in kinds.items()})
    rows = with_interactions(table, event_rows(events))
    one_by_one = {
        e.item_id: weight for e in events if (weight := interaction_weight(e)) is not None
    }
    assert (
        dict(zip(*(rows[n].to_pylist() for n in ("item_id", "weight")), strict=True)) == one_by_one
    )
