"""A release over live edges has the graphs that a build of the same edges would have."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from nextedge.events.event import Event
from nextedge.events.live_edges import LiveEdges, latest_of_pair
from nextedge.graph.changes import Records, changed
from nextedge.graph.csr import Graph, build_graph

NODES = 9
_PART = st.integers(0, NODES - 1)
_RECORDS = st.lists(st.tuples(_PART, _PART, st.integers(1, 50)), max_size=30)


def records(rows: list[tuple[int, int, int]]) -> Records:
    table = np.array(rows, np.int64).reshape(-1, 3)
    ends = table[:, :2].astype(np.int32)
    return Records(ends[:, 0], ends[:, 1], np.ones(len(rows), np.float32), table[:, 2])


def built(rows: Records) -> Graph:
    return build_graph(rows.source, rows.target, NODES, NODES, rows.weight, rows.time)


def assert_equal(one: Graph, other: Graph) -> None:
    for part in ("indptr", "indices", "weight", "first", "last"):
        mine, theirs = getattr(one, part), getattr(other, part)
        assert mine.dtype == theirs.dtype
        np.testing.assert_array_equal(mine, theirs, err_msg=part)


@settings(max_examples=300, deadline=None)
@given(_RECORDS, _RECORDS, st.lists(st.tuples(_PART, _PART), max_size=8))
def test_changed_is_what_is_built_anew(
    before: list[tuple[int, int, int]], after: list[tuple[int, int, int]],
    gone: list[tuple[int, int]],
) -> None:  # fmt: skip
    graph = built(records(before))
    there = [pair for pair in gone if pair[1] in graph.row(pair[0])]
    removed = np.array(there, np.int32).reshape(-1, 2)
    found = changed(graph, records(after), (removed[:, 0], removed[:, 1]))
    kept = [row for row in before if row[:2] not in set(there)]
    assert_equal(found, built(records([*kept, *after])))


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(_PART, _PART, st.integers(1, 5), st.booleans()), max_size=30), st.randoms()
)
def test_the_latest_event_of_a_pair_holds_whatever_the_order(
    rows: list[tuple[int, int, int, bool]], random
) -> None:  # type: ignore[no-untyped-def]
    def held(rows: list[tuple[int, int, int, bool]]) -> set[tuple[int, int, bool]]:
        table = np.array(rows, np.int64).reshape(-1, 4)
        chosen = table[latest_of_pair(*table.T)]
        return {(min(a, b), max(a, b), bool(made)) for a, b, _, made in chosen.tolist()}

    expected: dict[tuple[int, int], tuple[int, bool]] = {}
    for a, b, time, made in rows:
        pair, fact = (min(a, b), max(a, b)), (time, not made)
        expected[pair] = max(expected.get(pair, (0, False)), fact)
    random.shuffle(rows)
    assert held(rows) == {(*pair, not ended) for pair, (_, ended) in expected.items()}


def test_a_fold_that_is_loaded_goes_on_as_the_one_that_was_dumped() -> None:
    events = [
        Event(type="connect", user_id="a", candidate_id="b"),
        Event(type="interact", user_id="a", item_id=7),
        Event(type="disconnect", user_id="b", candidate_id="a"),
        Event(type="click", user_id="a", item_id=7),
        Event(type="accept", user_id="c", candidate_id="ä", timestamp=datetime(2020, 1, 1, tzinfo=UTC)),
    ]  # fmt: skip
    whole, first, second = LiveEdges(), LiveEdges(), LiveEdges()
    for event in events:
        whole.apply(event)
    for event in events[:2]:
        first.apply(event)
    second.load(first.dump())
    for event in events[2:]:
        second.apply(event)
    assert second.dump() == whole.dump()
    assert whole.dump()["connections"]["made"] == [1, 0, 1]
    assert whole.dump()["users"] == ["a", "b", "c", "ä"]
