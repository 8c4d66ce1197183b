"""Real-time features: any division, order and merge of the facts gives the same; one at a time too."""

from __future__ import annotations

from collections import defaultdict
from functools import reduce
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nextedge.build.time_split.history import EdgeRecords
from nextedge.features.backfill import Sizes, backfill, without_user
from nextedge.features.counters import (
    BY_POSITION,
    CATEGORY,
    CONNECT,
    CONNECTIONS,
    INTERACT,
    ITEM,
    KIND,
    LATEST,
    POPULARITY,
    TASTE,
    TIME,
    USER,
    VALUE,
    Counts,
    DecayedCounter,
    LatestOf,
)
from nextedge.features.live import LiveCounters
from nextedge.types import MICROSECONDS_PER_DAY as DAY

START = 1_700_000_000_000_000
Fact = tuple[str, int, int, int, int | None]
facts = st.lists(
    st.tuples(
        st.sampled_from([INTERACT, CONNECT, "view"]),
        st.integers(0, 400 * DAY).map(lambda after: START + after),
        st.integers(0, 3),
        st.integers(0, 4),
        st.sampled_from([0, 1, None]),
    ),
    max_size=40,
)
WEIGHTED = DecayedCounter("weighted", (USER,), {INTERACT: 1.0, CONNECT: 2.5}, 3.0)


def batch(given_facts: list[Fact]) -> pa.RecordBatch:
    kind, time, user, item, category = zip(*given_facts, strict=True) if given_facts else [()] * 5
    return pa.record_batch(
        {
            KIND: pa.array(kind, pa.string()),
            TIME: pa.array(time, pa.int64()),
            USER: pa.array(user, pa.int32()),
            ITEM: pa.array(item, pa.int32()),
            CATEGORY: pa.array(category, pa.int32()),
        }
    )


def plain(aggregate: DecayedCounter | LatestOf, state: object, now: int) -> dict[object, object]:
    """What a state says at an instant, as plain values."""
    if isinstance(aggregate, DecayedCounter):
        assert isinstance(state, Counts)
        if state.rows is None:
            return {}
        rows = aggregate.at(state, now).to_pylist()
        return {tuple(row[name] for name in aggregate.key): row[VALUE] for row in rows}
    lists: dict[object, list[tuple[int, int]]] = defaultdict(list)
    for row in [] if state is None else state.to_pylist():  # type: ignore[attr-defined]
        lists[row[USER]].append((row[TIME], row[ITEM]))
    return dict(lists)


def oracle(
    aggregate: DecayedCounter | LatestOf, given_facts: list[Fact], now: int
) -> dict[object, object]:
    """The definition, fact by fact."""
    if isinstance(aggregate, DecayedCounter):
        sums: dict[object, float] = defaultdict(float)
        for kind, time, user, item, category in given_facts:
            named = {USER: user, ITEM: item, CATEGORY: category}
            key = tuple(named[name] for name in aggregate.key)
            if kind in aggregate.weights and None not in key:
                age = (now - time) / (aggregate.half_life_days * DAY)
                sums[key] += aggregate.weights[kind] * 2.0**-age
        return dict(sums)
    lists: dict[object, list[tuple[int, int]]] = defaultdict(list)
    for kind, time, user, item, _ in given_facts:
        if kind in aggregate.kinds:
            lists[user].append((time, item))
    return {user: sorted(own, reverse=True)[: aggregate.n] for user, own in lists.items()}


def same(one: dict[object, object], other: dict[object, object]) -> None:
    assert one.keys() == other.keys()
    for key, value in one.items():
        if isinstance(value, float):
            assert value == pytest.approx(other[key], rel=1e-9, abs=1e-30)
        else:
            assert value == other[key]


@pytest.mark.parametrize(
    "aggregate", [*BY_POSITION, TASTE, LATEST, WEIGHTED], ids=lambda each: each.name
)
@settings(max_examples=60, deadline=None)
@given(given_facts=facts, data=st.data())
def test_any_split_order_and_merge_tree_gives_the_same(
    aggregate: DecayedCounter | LatestOf, given_facts: list[Fact], data: st.DataObject
) -> None:
    now = START + 401 * DAY
    expected = oracle(aggregate, given_facts, now)
    shuffled = data.draw(st.permutations(given_facts))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(shuffled)), max_size=5)))
    parts = [
        shuffled[low:high] for low, high in zip([0, *cuts], [*cuts, len(shuffled)], strict=True)
    ]
    empty: Any = Counts() if isinstance(aggregate, DecayedCounter) else None
    same(plain(aggregate, reduce(aggregate.update, map(batch, parts), empty), now), expected)
    states = [aggregate.update(empty, batch(part)) for part in parts]
    while len(states) > 1:  # any tree: two of the states become one
        right = states.pop(data.draw(st.integers(0, len(states) - 1)))
        left = states.pop(data.draw(st.integers(0, len(states) - 1)))
        states.append(aggregate.merge(left, right))
    same(plain(aggregate, states[0], now), expected)


@settings(max_examples=60, deadline=None)
@given(given_facts=facts, data=st.data())
def test_backfill_and_one_fact_at_a_time_agree(
    given_facts: list[Fact], data: st.DataObject
) -> None:
    """A release of all facts is one of some, told of the rest in any order."""
    codes = np.array([0, 1, -1, 1, 0], np.int32)
    sizes = Sizes(4, 5, codes)
    # facts of one user at one instant order by the item, and the table holds each row once
    given_facts = [each for each in given_facts if each[0] != "view"]
    as_of = START + data.draw(st.integers(0, 400)) * DAY
    early = [each for each in given_facts if each[1] <= as_of]
    late = data.draw(st.permutations([each for each in given_facts if each[1] > as_of]))
    before = backfill(*tables(early), sizes, as_of)
    live = LiveCounters(4, 5, codes, as_of)
    for kind, time, user, item, _ in late:
        live.tick(time)
        if kind == INTERACT:
            live.interact(user, item, time)
        else:
            live.connect((user, (user + 1) % 4), time, 1)
    clock = live.clock
    whole = backfill(*tables(given_facts), sizes, clock)
    everybody, everything = np.arange(4, dtype=np.int32), np.arange(5, dtype=np.int32)
    for counter in (*POPULARITY.values(), *CONNECTIONS.values()):
        places = everything if counter.key == (ITEM,) else everybody
        now = before[counter.name] * counter.factor(as_of, clock)
        now = now + live.counts(counter.name, places, clock)
        np.testing.assert_allclose(now, whole[counter.name], rtol=1e-6, atol=1e-12)
    for user in range(4):
        taste = dense_taste(before, user) * TASTE.factor(as_of, clock)
        for code, value in live.taste(user, clock).items():
            taste[code] += value
        np.testing.assert_allclose(taste, dense_taste(whole, user), rtol=1e-6, atol=1e-12)
        old = zip(
            before[f"{LATEST.name}_times"][user], before[f"{LATEST.name}_items"][user], strict=True
        )
        joined = [*live.latest(user), *old][: LATEST.n]
        assert [item for _, item in joined] == whole[f"{LATEST.name}_items"][user].tolist()
        assert [time for time, _ in joined] == whole[f"{LATEST.name}_times"][user].tolist()


def tables(given_facts: list[Fact]) -> list[EdgeRecords]:
    """Connections (to the next user) and interactions."""
    found = []
    for kind in (CONNECT, INTERACT):
        rows = [each for each in given_facts if each[0] == kind]
        time = np.array([each[1] for each in rows], np.int64)
        source = np.array([each[2] for each in rows], np.int32)
        target = np.array([each[3] for each in rows], np.int32)
        target = (source + 1) % 4 if kind == CONNECT else target
        found.append(EdgeRecords(source, target, time, np.ones(len(rows), np.float32), time))
    return found


def dense_taste(arrays: dict[str, np.ndarray], user: int) -> np.ndarray:
    indptr, codes, values = (arrays[f"{TASTE.name}_{x}"] for x in ("indptr", "codes", "values"))
    out = np.zeros(2)
    own = slice(int(indptr[user]), int(indptr[user + 1]))
    out[codes[own]] = values[own]
    return out


def test_live_counters_hold_what_is_thousands_of_half_lives_later() -> None:
    """A release of data from long ago is told of today's events: nothing overflows."""
    live = LiveCounters(2, 2, None, START)
    name = POPULARITY["day"].name
    later = START + 9_000 * DAY
    live.interact(0, 1, START + DAY)
    live.interact(0, 1, later)
    live.interact(0, 1, START + 8_999 * DAY)
    found = live.counts(name, np.array([0, 1], np.int32), later)
    np.testing.assert_allclose(found, [0.0, 1.5], rtol=1e-12)


def test_a_connection_taken_back_leaves_nothing() -> None:
    live = LiveCounters(3, 0, None, START)
    live.connect((0, 1), START + 2 * DAY, 1)
    live.connect((0, 2), START + 3 * DAY, 1)
    live.connect((0, 1), START + 2 * DAY, -1)
    name = CONNECTIONS["day"].name
    found = live.counts(name, np.arange(3, dtype=np.int32), START + 4 * DAY)
    np.testing.assert_allclose(found, [0.5, 0.0, 0.5], atol=1e-12)


def test_untimed_records_count_nothing_and_a_forgotten_user_has_nothing() -> None:
    rows: list[Fact] = [
        (INTERACT, START, 0, 1, None),
        (INTERACT, 0, 1, 1, None),
        (INTERACT, START, 2, 0, None),
        (CONNECT, START, 0, 0, None),
    ]
    arrays = backfill(*tables(rows), Sizes(4, 5, np.zeros(5, np.int32)), START)
    assert arrays["user_interactions_day"].tolist() == [1, 0, 1, 0]
    assert backfill(None, None, Sizes(4, 5, None), START) == {}
    kept = without_user(arrays, 0)
    assert kept["user_interactions_day"].tolist() == [0, 0, 1, 0]
    assert kept["user_connections_week"].tolist() == [0, 1, 0, 0]
    assert kept[f"{LATEST.name}_items"][0].tolist() == [-1] * LATEST.n
    assert kept[f"{LATEST.name}_items"][2, 0] == 0
    assert dense_taste(kept, 0).tolist() == [0, 0]
    assert dense_taste(kept, 2).tolist() == [1, 0]
