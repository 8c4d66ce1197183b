"""What the stream job keeps: each fact once, whatever is done again; the same as in the process."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_counters import DAY, START, Fact, facts, tables

from nextedge.config import parse_config
from nextedge.errors import CorruptValueError
from nextedge.events.stored_counters import COUNTERS, StoredCounters, add_batch, key_of
from nextedge.events.stream import _SCHEMA, counters_store, forget_counted
from nextedge.features.backfill import Sizes, backfill
from nextedge.features.counters import CONNECT, INTERACT, ITEM, LATEST, TASTE, USER
from nextedge.stores.memory import MemoryStore
from nextedge.stores.store import open_store

CODES = np.array([0, 1, -1, 1, 0], np.int32)
CATEGORIES = ["red", "green"]
Owner = tuple[str, str]


def rows_of(given_facts: list[Fact]) -> pa.RecordBatch:
    """Facts as the job has them: one a user or item that counts it, ids as text."""
    rows = []
    for kind, time, user, item, _ in given_facts:
        fact = {"kind": kind, "time": time}
        if kind == CONNECT:
            ends = (str(user), str((user + 1) % 4))
            rows += [{**fact, "owner_side": USER, "owner": each, USER: each} for each in ends]
        else:
            code = int(CODES[item])
            named = {USER: str(user), ITEM: str(item)}
            fact |= {**named, "category": CATEGORIES[code] if code >= 0 else None}
            rows += [{**fact, "owner_side": side, "owner": named[side]} for side in named]
    return pa.RecordBatch.from_pylist(rows, _SCHEMA)


def owners_of(batch: pa.RecordBatch) -> list[Owner]:
    pairs = zip(*(batch.column(n).to_pylist() for n in ("owner_side", "owner")), strict=True)
    return list(dict.fromkeys(pairs))


def check(store: MemoryStore, given_facts: list[Fact]) -> None:
    """The store says what a backfill of all facts does."""
    clock = START + 401 * DAY
    whole = backfill(*tables(given_facts), Sizes(4, 5, CODES), clock)
    users, items = StoredCounters(store).read(range(4), range(5))
    for side, found in ((USER, users), (ITEM, items)):
        for place, owned in enumerate(found):
            for counter in COUNTERS[side]:
                value = 0.0 if owned is None else owned.at(side, counter.name, clock)
                assert value == pytest.approx(whole[counter.name][place], rel=1e-6, abs=1e-20)
    for user, owned in enumerate(users):
        indptr, codes, values = (whole[f"{TASTE.name}_{x}"] for x in ("indptr", "codes", "values"))
        own = slice(int(indptr[user]), int(indptr[user + 1]))
        expected = {CATEGORIES[code]: values[own][n] for n, code in enumerate(codes[own])}
        taste = {} if owned is None else owned.taste_at(clock)
        assert taste == pytest.approx(expected, rel=1e-6, abs=1e-20)
        latest = [] if owned is None else owned.latest
        listed = whole[f"{LATEST.name}_items"][user]
        assert [item for _, item in latest] == [str(item) for item in listed if item >= 0]


@settings(max_examples=40, deadline=None)
@given(given_facts=facts, data=st.data())
def test_batches_that_are_cut_off_and_done_again_count_once(
    given_facts: list[Fact], data: st.DataObject
) -> None:
    given_facts = [each for each in given_facts if each[0] != "view"]
    store = MemoryStore("test")
    cuts = sorted(data.draw(st.lists(st.integers(0, len(given_facts)), max_size=4)))
    bounds = zip([0, *cuts], [*cuts, len(given_facts)], strict=True)
    for number, (low, high) in enumerate(bounds):
        batch = rows_of(given_facts[low:high])
        owners = owners_of(batch)
        reached = data.draw(st.lists(st.integers(0, max(len(owners) - 1, 0)), unique=True))
        before = [owners[each] for each in reached if owners]
        add_batch(store, batch, before, "job", number)  # some were written when it was killed
        add_batch(store, batch, owners, "job", number)
        assert add_batch(store, batch, owners, "job", number) == 0
    check(store, given_facts)


def test_another_job_begins_anew() -> None:
    """With a new checkpoint everything is read again: what an older job counted is as none."""
    once: list[Fact] = [(INTERACT, START, 0, 1, 1), (CONNECT, START + 1, 2, 0, None)]
    store = MemoryStore("test")
    for job in ("first", "second"):
        batch = rows_of(once)
        assert add_batch(store, batch, owners_of(batch), job, 0) == 4
    check(store, once)


def test_values_are_shared_and_tenants_apart(tmp_path: Path) -> None:
    url = "sqlite:///counters.sqlite"
    one, other = (open_store(url, tenant, base=tmp_path) for tenant in ("one", "other"))
    batch = rows_of([(INTERACT, START, 0, 1, 1)])
    add_batch(one, batch, owners_of(batch), "job", 0)
    assert StoredCounters(other).read([0], [1]) == ([None], [None])
    users, items = StoredCounters(open_store(url, "one", base=tmp_path)).read([0, 3], [1])
    assert users[0] is not None
    assert users[1] is None
    assert users[0].latest == [(START, "1")]
    assert items[0] is not None
    assert items[0].at(ITEM, "item_interactions_day", START + DAY) == pytest.approx(0.5)


def test_a_forgotten_user_has_no_value(tmp_path: Path) -> None:
    config = parse_config({"tenant": "acme", "state": "."}, base=tmp_path, origin="test")
    forget_counted(config, 0)
    assert list(tmp_path.iterdir()) == []  # there was no job, and there is no file of one
    store = counters_store(config)
    batch = rows_of([(INTERACT, START, 0, 1, 1), (INTERACT, START, 3, 1, 1)])
    add_batch(store, batch, owners_of(batch), "job", 0)
    forget_counted(config, 0)
    users, items = StoredCounters(store).read([0, 3], [1])
    assert [each is None for each in (*users, *items)] == [True, False, False]
    store.close()


def test_a_damaged_value_is_named() -> None:
    store = MemoryStore("test")
    batch = rows_of([(INTERACT, START, 0, 1, 1)])
    add_batch(store, batch, owners_of(batch), "job", 0)
    (value,) = store.get_many([key_of(USER, 0)])
    assert value is not None
    store.put_many({key_of(USER, 0): value[:-1]})
    with pytest.raises(CorruptValueError):
        StoredCounters(store).read([0], [])
