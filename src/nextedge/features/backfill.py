"""The real-time features of a snapshot: the counts of its records, as arrays by position."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import reduce
from typing import Protocol

import numba
import numpy as np
import pyarrow as pa

from nextedge.cores import thread_count
from nextedge.features.counters import (
    BY_POSITION,
    CATEGORY,
    CONNECT,
    INTERACT,
    ITEM,
    KIND,
    LATEST,
    NEVER,
    TASTE,
    TIME,
    USER,
    VALUE,
    Counts,
    DecayedCounter,
)
from nextedge.graph.attributes import Attributes, Category
from nextedge.schema import ColumnKind
from nextedge.types import BoolArray, FloatArray, IndexArray, IntArray

_BATCH = 1_000_000
Arrays = dict[str, np.ndarray]


class Edges(Protocol):
    """Records of one relation in positions, with their times (microseconds, 0 where none)."""

    @property
    def source(self) -> IndexArray:
        """int32[n]: users."""

    @property
    def target(self) -> IndexArray:
        """int32[n]: users or items."""

    @property
    def time(self) -> IntArray:
        """int64[n]."""

    @property
    def kept(self) -> BoolArray | None:
        """bool[n]: records that count; None for all."""


@dataclass(frozen=True)
class Sizes:
    """Numbers of users and items, and the category of each item (int32[items], -1 for none)."""

    users: int
    items: int
    category: IndexArray | None


def item_category(items: Attributes) -> Category | None:
    """The column of the item's category: ``category``, or the first of that kind; or None."""
    names = items.of_kind(ColumnKind.CATEGORY)
    if not names:
        return None
    column = items.columns["category" if "category" in names else names[0]]
    return column if isinstance(column, Category) else None


def backfill(
    connections: Edges | None, interactions: Edges | None, sizes: Sizes, as_of: int
) -> Arrays:
    """Every declared counter as of an instant, by the names of the stored arrays.

    Args:
        connections, interactions: None where they have no times.

    Returns:
        ``{counter}`` float32[users or items]; of ``TASTE`` the users' rows as ``_indptr``,
        ``_codes`` ascending, and ``_values``; of ``LATEST`` ``_items`` int32[users, n], -1 after
        the last, and ``_times`` int64[users, n].
    """
    jobs = [
        (counter, kind, edges)
        for kind, edges in ((CONNECT, connections), (INTERACT, interactions))
        for counter in BY_POSITION
        if edges is not None and kind in counter.weights
    ]
    with ThreadPoolExecutor(thread_count(), thread_name_prefix="nextedge-backfill") as pool:
        values = pool.map(lambda job: _by_position(job[0], job[1], job[2], sizes, as_of), jobs)
        arrays = {job[0].name: array for job, array in zip(jobs, values, strict=True)}
    if interactions is not None:
        arrays |= _taste(interactions, sizes, as_of) | _latest(interactions, sizes)
    return arrays


def _by_position(
    counter: DecayedCounter, kind: str, edges: Edges, sizes: Sizes, as_of: int
) -> FloatArray:
    """float32[users or items]: the counter as its ``update`` computes it, bit for bit."""
    # The same sums in the same order, on arrays: ``update`` makes a table of all users anew with
    # every batch, which names few of them.
    size = sizes.items if counter.key == (ITEM,) else sizes.users
    value, batch = np.zeros(size), np.zeros(size)
    landmark = NEVER
    for source, target, times in _batches(edges):
        keys = target if counter.key == (ITEM,) else source
        if kind == CONNECT:  # a connection counts at both ends
            keys, times = np.concatenate((source, target)), np.concatenate((times, times))
        keys, times = keys[keys >= 0], times[keys >= 0]
        if not len(keys):
            continue
        before, newest = landmark, int(times.max())
        landmark = max(before, newest)
        gain = counter.weights[kind] * np.exp2((times - newest) / counter.half_life)
        if before != NEVER:
            value *= counter.factor(before, landmark)
        _add(keys, gain, counter.factor(newest, landmark), batch, value)
    return (value * counter.factor(landmark, as_of)).astype(np.float32)


@numba.njit(cache=True, nogil=True)
def _add(keys, gain, factor, batch, value):  # type: ignore[no-untyped-def]
    """Add the sums of a batch to ``value``, at its landmark; ``batch`` is scratch of zeros."""
    for fact in range(len(keys)):
        batch[keys[fact]] += gain[fact]
    for fact in range(len(keys)):
        key = keys[fact]
        if batch[key] != 0.0:
            value[key] += batch[key] * factor
            batch[key] = 0.0


def _batches(edges: Edges) -> Iterator[tuple[IndexArray, IndexArray, IntArray]]:
    """Sources, targets and times of the records that count and have a time, in batches."""
    # Each batch has ``_BATCH`` records that count, as in a table of these alone: the bounds of the
    # batches decide the order of the sums, and so their last bits.
    waiting = np.zeros(0, np.int64)
    for start in range(0, len(edges.source), _BATCH):
        part: slice | IntArray = slice(start, start + _BATCH)
        if edges.kept is not None:
            waiting = np.concatenate((waiting, np.flatnonzero(edges.kept[part]) + start))
            if len(waiting) < _BATCH and start + _BATCH < len(edges.source):
                continue
            part, waiting = waiting[:_BATCH], waiting[_BATCH:]
        yield _timed(edges, part)
    if len(waiting):
        yield _timed(edges, waiting)


def _timed(edges: Edges, part: slice | IntArray) -> tuple[IndexArray, IndexArray, IntArray]:
    time = np.asarray(edges.time[part])
    timed = time > 0
    return edges.source[part][timed], edges.target[part][timed], time[timed]


def _facts(interactions: Edges, sizes: Sizes) -> Iterator[pa.RecordBatch]:
    """Interactions as facts."""
    for source, target, time in _batches(interactions):
        columns = {USER: source, ITEM: target}
        if sizes.category is not None:
            columns[CATEGORY] = sizes.category[target]
        facts = {KIND: pa.repeat(INTERACT, len(time)), TIME: pa.array(time)}
        facts |= {name: pa.array(values, mask=values < 0) for name, values in columns.items()}
        yield pa.record_batch(facts)


def _taste(interactions: Edges, sizes: Sizes, as_of: int) -> Arrays:
    if sizes.category is None:
        return {}
    state = reduce(TASTE.update, _facts(interactions, sizes), Counts())
    none = np.zeros(0, np.int32)
    users, codes, values = none, none, np.zeros(0)
    if state.rows is not None:
        rows = TASTE.at(state, as_of)
        users, codes, values = (np.asarray(rows[name]) for name in (USER, CATEGORY, VALUE))
    order = np.lexsort((codes, users))
    indptr = np.concatenate(([0], np.cumsum(np.bincount(users, minlength=sizes.users))))
    return {
        f"{TASTE.name}_indptr": indptr.astype(np.int64),
        f"{TASTE.name}_codes": codes[order].astype(np.int32),
        f"{TASTE.name}_values": values[order].astype(np.float32),
    }


def _latest(interactions: Edges, sizes: Sizes) -> Arrays:
    items = np.full((sizes.users, LATEST.n), -1, np.int32)
    times = np.zeros((sizes.users, LATEST.n), np.int64)
    rows = reduce(LATEST.update, _facts(interactions, sizes), None)
    if rows is not None:
        cell = np.asarray(rows[USER]), LATEST.rank(rows)
        items[cell], times[cell] = np.asarray(rows[ITEM]), np.asarray(rows[TIME])
    return {f"{LATEST.name}_items": items, f"{LATEST.name}_times": times}


def without_user(arrays: Arrays, user: int) -> Arrays:
    """The arrays with the rows of one user empty; the counts of other users and items stay."""
    # Copies: arrays of a release are mapped read-only.
    copies: Arrays = {name: np.array(values) for name, values in arrays.items()}
    empty = {counter.name: 0 for counter in BY_POSITION if counter.key == (USER,)}
    for name, value in (empty | {f"{LATEST.name}_items": -1, f"{LATEST.name}_times": 0}).items():
        if name in copies:
            copies[name][user] = value
    if f"{TASTE.name}_indptr" in copies:
        indptr = copies[f"{TASTE.name}_indptr"]
        row = slice(int(indptr[user]), int(indptr[user + 1]))
        for part in ("codes", "values"):
            copies[f"{TASTE.name}_{part}"] = np.delete(copies[f"{TASTE.name}_{part}"], row)
        indptr[user + 1 :] -= row.stop - row.start
    return copies
