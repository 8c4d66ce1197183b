"""Declarations of real-time features: counters that decay, and lists of the latest items.

A declaration is the one definition of its backfill and its online read. Their input is *facts*:
Arrow rows of a ``kind``, a ``time`` (int64 microseconds) and key columns (positions). The result
depends neither on the order of facts nor on how they are divided: ``merge`` of two parts equals the
whole. A fact must come once: the event id filters repeated deliveries before.

Counters have the form of G. Cormode, V. Shkapenyuk, D. Srivastava, B. Xu: "Forward Decay: A
Practical Time Decay Model for Streaming Systems", ICDE 2009: ``Σ w · 2^((t - L) / half-life)`` grows
with the time t of each fact after a landmark L, and a read divides it once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from nextedge.types import MICROSECONDS_PER_DAY

KIND, TIME, VALUE, USER, ITEM, CATEGORY = "kind", "time", "value", "user", "item", "category"
NEVER = np.iinfo(np.int64).min
"""Landmark of a sum without facts."""


@dataclass(frozen=True)
class Counts:
    """Sums by key, without facts by default.

    Attributes:
        rows: the key's columns, and ``value`` (float64) at the landmark.
        landmark: microseconds; the time of the latest fact.
    """

    rows: pa.Table | None = None
    landmark: int = NEVER


def _of_kinds(
    facts: pa.RecordBatch, kinds: Sequence[str], columns: Sequence[str]
) -> pa.RecordBatch:
    """The facts of some kinds that have a value in all of some columns."""
    counts = pc.is_in(facts.column(KIND), pa.array(kinds, pa.string()))
    for name in columns:
        counts = pc.and_(counts, pc.is_valid(facts.column(name)))
    return facts.filter(counts)


@dataclass(frozen=True)
class DecayedCounter:
    """A weighted count of facts by key, in which a fact fades with age.

    Attributes:
        name: unique, full words.
        key: columns of a fact; a fact without one of them does not count.
        weights: weight of a fact of each kind; other kinds do not count.
        half_life_days: age at which a fact counts half.
    """

    name: str
    key: tuple[str, ...]
    weights: Mapping[str, float]
    half_life_days: float

    @property
    def half_life(self) -> float:
        """In microseconds."""
        return self.half_life_days * MICROSECONDS_PER_DAY

    def factor(self, since: int, until: int) -> float:
        """The decay between two instants, above 1 where ``until`` is the earlier."""
        return float(np.exp2((since - until) / self.half_life))

    def update(self, state: Counts, facts: pa.RecordBatch) -> Counts:
        """The state with more facts."""
        kinds = list(self.weights)
        facts = _of_kinds(facts, kinds, self.key)
        if not len(facts):
            return state
        times = np.asarray(facts.column(TIME))
        landmark = int(times.max())
        kind = np.asarray(pc.index_in(facts.column(KIND), pa.array(kinds, pa.string())))
        weight = np.fromiter(self.weights.values(), np.float64)[kind]
        columns = {name: facts.column(name) for name in self.key}
        columns[VALUE] = weight * np.exp2((times - landmark) / self.half_life)
        return self.merge(state, Counts(self._summed(pa.table(columns)), landmark))

    def merge(self, left: Counts, right: Counts) -> Counts:
        """The sums of both."""
        if left.rows is None or right.rows is None:
            return right if left.rows is None else left
        # At the later landmark both factors are at most 1: no value can overflow.
        landmark = max(left.landmark, right.landmark)
        parts = [self.at(state, landmark) for state in (left, right)]
        return Counts(self._summed(pa.concat_tables(parts, promote_options="permissive")), landmark)

    def at(self, state: Counts, instant: int) -> pa.Table:
        """The rows of a state with values as of an instant."""
        assert state.rows is not None
        faded = pc.multiply(state.rows.column(VALUE), self.factor(state.landmark, instant))
        return state.rows.set_column(state.rows.schema.get_field_index(VALUE), VALUE, faded)

    def _summed(self, rows: pa.Table) -> pa.Table:
        # Threads would add in any order: the last bits would differ from run to run.
        summed = rows.group_by(list(self.key), use_threads=False).aggregate([(VALUE, "sum")])
        return summed.select([*self.key, f"{VALUE}_sum"]).rename_columns([*self.key, VALUE])


@dataclass(frozen=True)
class LatestOf:
    """The latest values of a column by key, newest first; of one instant the larger value first.

    Attributes:
        name: unique, full words.
        key: key columns of a fact.
        what: column of the values.
        kinds: facts that count.
        n: length of a list.
    """

    name: str
    key: tuple[str, ...]
    what: str
    kinds: tuple[str, ...]
    n: int

    def update(self, state: pa.Table | None, facts: pa.RecordBatch) -> pa.Table | None:
        """The state with more facts; None without facts."""
        columns = *self.key, TIME, self.what
        facts = _of_kinds(facts, self.kinds, columns)
        if not len(facts):
            return state
        rows = pa.table({name: facts.column(name) for name in columns})
        return self.merge(state, self._latest(rows))

    def merge(self, left: pa.Table | None, right: pa.Table | None) -> pa.Table | None:
        """The latest of both."""
        if left is None or right is None:
            return right if left is None else left
        return self._latest(pa.concat_tables([left, right], promote_options="permissive"))

    def _latest(self, rows: pa.Table) -> pa.Table:
        keys = [(name, "ascending") for name in self.key]
        # Ties by value: the list must not depend on the order of the facts.
        keys += [(TIME, "descending"), (self.what, "descending")]
        rows = rows.take(pc.sort_indices(rows, sort_keys=keys)).combine_chunks()
        return rows.filter(pa.array(self.rank(rows) < self.n))

    def rank(self, rows: pa.Table) -> npt.NDArray[np.int64]:
        """int64[n]: rank of each row in the list of its key; rows of a key are neighbours."""
        changes = np.zeros(len(rows), bool)
        for name in self.key:
            codes = np.asarray(rows.column(name).combine_chunks().dictionary_encode().indices)
            changes[1:] |= codes[1:] != codes[:-1]
        changes[:1] = True
        starts = np.flatnonzero(changes)
        number = np.cumsum(changes) - 1
        return np.arange(len(rows)) - starts[number] if len(rows) else np.zeros(0, np.int64)


DAY, WEEK = 1.0, 7.0
INTERACT, CONNECT = "interact", "connect"
POPULARITY = {
    "day": DecayedCounter("item_interactions_day", (ITEM,), {INTERACT: 1.0}, DAY),
    "week": DecayedCounter("item_interactions_week", (ITEM,), {INTERACT: 1.0}, WEEK),
}
ACTIVITY = {
    "day": DecayedCounter("user_interactions_day", (USER,), {INTERACT: 1.0}, DAY),
    "week": DecayedCounter("user_interactions_week", (USER,), {INTERACT: 1.0}, WEEK),
}
CONNECTIONS = {
    "day": DecayedCounter("user_connections_day", (USER,), {CONNECT: 1.0}, DAY),
    "week": DecayedCounter("user_connections_week", (USER,), {CONNECT: 1.0}, WEEK),
}
TASTE = DecayedCounter("user_category_week", (USER, CATEGORY), {INTERACT: 1.0}, WEEK)
LATEST = LatestOf("user_latest_items", (USER,), ITEM, (INTERACT,), 10)
BY_POSITION = (*POPULARITY.values(), *ACTIVITY.values(), *CONNECTIONS.values())
"""Counters by one user or one item."""
