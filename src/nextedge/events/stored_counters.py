"""Real-time features in a store: what each user and each item adds up to, one packed value each.

Values are totals: what a release counted, where the job began with one, and every later fact. Each
carries the job and the number of the batch that wrote it last, so that a batch that is written
again changes nothing: whoever has its number is passed over.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from nextedge.features.counters import (
    BY_POSITION,
    CATEGORY,
    ITEM,
    LATEST,
    TASTE,
    TIME,
    USER,
    VALUE,
    Counts,
    DecayedCounter,
    folded,
)
from nextedge.graph.snapshot import Snapshot
from nextedge.stores.packing import pack, unpack
from nextedge.stores.store import Key, Store
from nextedge.types import Identifier

PREFIX = "counters"
COUNTERS = {side: tuple(c for c in BY_POSITION if c.key == (side,)) for side in (USER, ITEM)}
"""Counters of a user, and of an item, in the order in which their values are packed."""
_SEEDED = -1
_BATCH = 5_000


def key_of(side: str, identifier: Identifier) -> str:
    """Under what a user (``USER``) or an item (``ITEM``) is kept."""
    return f"{PREFIX}/{side}/{identifier}"


@dataclass(frozen=True)
class Owned:
    """What one user or item adds up to.

    Attributes:
        landmark: microseconds at which the values stand.
        values: float64, one a counter of its side.
        taste: of a user: what each category counts, by its text.
        latest: of a user: (time, item) newest first.
    """

    landmark: int
    values: npt.NDArray[np.float64]
    taste: Mapping[str, float]
    latest: Sequence[tuple[int, str]]

    def at(self, side: str, name: str, clock: int) -> float:
        """What a counter says at an instant."""
        place = [counter.name for counter in COUNTERS[side]].index(name)
        counter = COUNTERS[side][place]
        return float(self.values[place]) * counter.factor(self.landmark, clock)

    def taste_at(self, clock: int) -> dict[str, float]:
        """What each category counts at an instant."""
        faded = TASTE.factor(self.landmark, clock)
        return {category: value * faded for category, value in self.taste.items()}


def packed(owned: Owned, job: str, batch: int) -> bytes:
    """One value of the store."""
    arrays = {
        "values": owned.values,
        "landmark": np.array([owned.landmark]),
        "taste": np.fromiter(owned.taste.values(), np.float64, len(owned.taste)),
        "times": np.array([time for time, _ in owned.latest], np.int64),
    }
    about = {
        "job": job,
        "batch": batch,
        "categories": list(owned.taste),
        "items": [item for _, item in owned.latest],
    }
    return pack(arrays, about)


def unpacked(value: bytes) -> tuple[Owned, str, int]:
    """What ``packed`` gave: the value, its job and its batch."""
    arrays, about = unpack(value)
    taste = dict(zip(about["categories"], arrays["taste"].tolist(), strict=True))
    latest = list(zip(arrays["times"].tolist(), about["items"], strict=True))
    owned = Owned(int(arrays["landmark"][0]), arrays["values"], taste, latest)
    return owned, about["job"], about["batch"]


class StoredCounters:
    """Reads what the stream job keeps."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def read(
        self, users: Sequence[Identifier], items: Sequence[Identifier]
    ) -> tuple[list[Owned | None], list[Owned | None]]:
        """Users and items in their order, None where nothing is known; one round trip."""
        keys = [key_of(USER, each) for each in users] + [key_of(ITEM, each) for each in items]
        found = [
            None if value is None else unpacked(value)[0] for value in self.store.get_many(keys)
        ]
        return found[: len(users)], found[len(users) :]


def add_batch(
    store: Store, facts: pa.RecordBatch, owners: Sequence[tuple[str, str]], job: str, batch: int
) -> int:
    """Add the facts of a batch to what owners have, each owner once; returns how many were written.

    Args:
        facts: with ``owner_side`` and ``owner`` beside the columns of facts; all of an owner's.
        owners: (side, id) of everybody in it, each once.
        batch: its number; numbers only grow while the job is the same.
    """
    stored = store.get_many([key_of(*owner) for owner in owners])
    before: dict[tuple[str, str], Owned] = {}
    done: set[tuple[str, str]] = set()
    for owner, value in zip(owners, stored, strict=True):
        if value is None:
            continue
        owned, writer, last = unpacked(value)
        if writer != job:
            continue  # of a job that is no more: this one counts from its own beginning
        if last >= batch:
            done.add(owner)
        before[owner] = owned
    written: dict[Key, bytes] = {}
    for side in COUNTERS:
        own = [
            identifier for of, identifier in owners if of == side and (of, identifier) not in done
        ]
        if not own:
            continue
        kept = pc.and_(
            pc.equal(facts.column("owner_side"), side),
            pc.is_in(facts.column("owner"), pa.array(own, pa.string())),
        )
        old = {
            identifier: before[side, identifier]
            for identifier in own
            if (side, identifier) in before
        }
        for identifier, owned in _merged(side, facts.filter(kept), old).items():
            written[key_of(side, identifier)] = packed(owned, job, batch)
    store.put_many(written)
    return len(written)


def _merged(side: str, facts: pa.RecordBatch, before: Mapping[str, Owned]) -> dict[str, Owned]:
    """What each owner of the facts adds up to with them, by the declarations' own merge."""
    counters = [*COUNTERS[side], *([TASTE] if side == USER else [])]
    states = {c.name: c.merge(_state(c, side, before), folded(c, [facts])) for c in counters}
    landmark = max(
        (state.landmark for state in states.values() if state.rows is not None), default=0
    )
    values: dict[str, npt.NDArray[np.float64]] = {}
    taste: dict[str, dict[str, float]] = {}
    latest: dict[str, list[tuple[int, str]]] = {}
    for place, counter in enumerate(counters):
        state = states[counter.name]
        for row in [] if state.rows is None else counter.at(state, landmark).to_pylist():
            owner = row[side]
            if counter is TASTE:
                taste.setdefault(owner, {})[row[CATEGORY]] = row[VALUE]
            else:
                own = values.setdefault(owner, np.zeros(len(COUNTERS[side])))
                own[place] = row[VALUE]
    if side == USER:
        rows = LATEST.merge(_lists(before), folded(LATEST, [facts]))
        for row in [] if rows is None else rows.to_pylist():
            latest.setdefault(row[USER], []).append((row[TIME], row[ITEM]))
    return {
        owner: Owned(landmark, own, taste.get(owner, {}), latest.get(owner, []))
        for owner, own in values.items()
    }


def _state(counter: DecayedCounter, side: str, before: Mapping[str, Owned]) -> Counts:
    """What owners have of one counter, as a state of its own, at one landmark."""
    if not before:
        return counter.prepare()
    landmark = max(owned.landmark for owned in before.values())
    rows: list[dict[str, Any]] = []
    for owner, owned in before.items():
        if counter is TASTE:
            read = owned.taste_at(landmark)
            rows += [{USER: owner, CATEGORY: each, VALUE: value} for each, value in read.items()]
        else:
            rows.append({side: owner, VALUE: owned.at(side, counter.name, landmark)})
    names = [*counter.key, VALUE]
    types = [pa.float64() if name == VALUE else pa.string() for name in names]
    table = pa.Table.from_pylist(rows, pa.schema(list(zip(names, types, strict=True))))
    return Counts(table, landmark) if rows else counter.prepare()


def _lists(before: Mapping[str, Owned]) -> pa.Table | None:
    rows = [
        {USER: owner, TIME: time, ITEM: item}
        for owner, owned in before.items()
        for time, item in owned.latest
    ]
    kinds = pa.schema([(USER, pa.string()), (TIME, pa.int64()), (ITEM, pa.string())])
    return pa.Table.from_pylist(rows, kinds) if rows else LATEST.prepare()


def seed(store: Store, snapshot: Snapshot, categories: Sequence[str] | None, job: str) -> int:
    """Keep what a release has counted, for a job to add to; returns how many values that is.

    Args:
        categories: the text of each category's code; None where items have none.
    """
    written = 0
    for values in _batches(_of_release(snapshot, categories)):
        store.put_many({key: packed(owned, job, _SEEDED) for key, owned in values.items()})
        written += len(values)
    return written


def _of_release(
    snapshot: Snapshot, categories: Sequence[str] | None
) -> Iterator[tuple[str, Owned]]:
    arrays, entities = snapshot.counters, snapshot.entities
    items = entities.items.identifiers(range(len(entities.items))).to_pylist()
    for side, ids in ((USER, entities.users), (ITEM, entities.items)):
        none = np.zeros(len(ids))
        counted = np.stack([arrays.get(c.name, none) for c in COUNTERS[side]], axis=1)
        lists = arrays.get(f"{LATEST.name}_items") if side == USER else None
        for place in np.flatnonzero(counted.any(axis=1)).tolist():
            name, taste, latest = ids.identifier(place), {}, []
            if name is None:
                continue
            if lists is not None:
                times = arrays[f"{LATEST.name}_times"][place].tolist()
                latest = [
                    (time, str(items[item]))
                    for time, item in zip(times, lists[place].tolist(), strict=True)
                    if item >= 0
                ]
                taste = _taste_of(arrays, place, categories)
            values = counted[place].astype(np.float64)
            yield key_of(side, name), Owned(snapshot.as_of, values, taste, latest)


def _taste_of(
    arrays: Mapping[str, np.ndarray], user: int, categories: Sequence[str] | None
) -> dict[str, float]:
    if categories is None or f"{TASTE.name}_indptr" not in arrays:
        return {}
    indptr, codes, values = (arrays[f"{TASTE.name}_{x}"] for x in ("indptr", "codes", "values"))
    own = slice(int(indptr[user]), int(indptr[user + 1]))
    return {
        categories[code]: value
        for code, value in zip(codes[own].tolist(), values[own].tolist(), strict=True)
    }


def _batches(values: Iterator[tuple[str, Owned]]) -> Iterator[dict[str, Owned]]:
    found: dict[str, Owned] = {}
    for key, owned in values:
        found[key] = owned
        if len(found) == _BATCH:
            yield found
            found = {}
    if found:
        yield found
