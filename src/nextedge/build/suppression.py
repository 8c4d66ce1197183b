"""Suppression: users who left and hidden connections, removed from the clean tables.

Hidden connections go before anything is computed, so that no candidate, feature, label, reason or
count can come from them. What remains is a table of pairs that are not recommended to each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from nextedge import schema
from nextedge.events.event import Event
from nextedge.events.state.folded_state import FoldedState
from nextedge.types import BoolArray, IntArray

_FAVOURS = ("accept", "connect")
_SUPPRESSING = ("leave", "opt_out", "opt_in", "hide_connection", "unhide_connection")
_USER_COLUMNS = {
    schema.USERS: (schema.USER_ID,),
    schema.CONNECTIONS: (schema.SRC, schema.DST),
    schema.INTERACTIONS: (schema.USER_ID,),
    schema.IMPRESSIONS: (schema.USER_ID, schema.CANDIDATE_ID),
    schema.BLOCKS: (schema.USER_ID, schema.OTHER_ID),
}


def suppress(tables: Path, events: Iterable[Event]) -> None:
    """Remove users who left and hidden connections from a folder of clean tables."""
    departed, opted_out, hidden = _fold(events)
    for name, columns in _USER_COLUMNS.items():
        if departed:
            _rewrite(tables, name, partial(_without, columns=columns, ids=departed))
    if opted_out:
        _rewrite(tables, schema.USERS, lambda rows: _undiscoverable(rows, opted_out))
    _hide(tables, hidden)


@dataclass(frozen=True)
class SuppressedUsers:
    """Users and pairs of which recorded events must leave no trace, ids as text.

    Attributes:
        departed: users who left.
        pairs: ends of hidden connections.
        answered: the pairs with an event of a request or a connection.
    """

    departed: frozenset[str]
    pairs: frozenset[frozenset[str]]
    answered: frozenset[frozenset[str]]

    def mask(self, rows: pa.Table) -> BoolArray:
        """bool[n]: which rows (of ``event_rows``, or with the same ends) are suppressed."""
        departed = pa.array(sorted(self.departed), pa.string())
        people = np.asarray(pc.equal(rows["kind"], "people"), dtype=bool)
        gone = np.asarray(pc.is_in(rows["usr"], value_set=departed), dtype=bool)
        gone |= people & np.asarray(pc.is_in(rows["target"], value_set=departed), dtype=bool)
        return gone | (people & _in_pairs(_ends(rows, "usr", "target"), _pairs_table(self.pairs)))

    def without_answered(self, impressions: pa.Table) -> pa.Table:
        """Impressions without those that ended in a hidden connection."""
        if not self.answered or schema.CANDIDATE_ID not in impressions.column_names:
            return impressions
        ends = _ends(impressions, schema.USER_ID, schema.CANDIDATE_ID)
        return impressions.filter(pa.array(~_in_pairs(ends, _pairs_table(self.answered))))


def suppressed_users(tables: Path, events: Sequence[Event]) -> SuppressedUsers:
    """The users and pairs to suppress, read before ``suppress`` takes the flags.

    Beside the hidden pairs, every pair with a request or a connection of a user who hides the
    whole list, whether or not the connection still exists.
    """
    departed, _, hidden = _fold(events)
    pairs = {frozenset(pair) for pair in hidden}
    path = tables / f"{schema.CONNECTIONS}.parquet"
    if path.exists() and schema.HIDDEN in pq.read_schema(path).names:
        rows = pq.read_table(path, columns=[schema.SRC, schema.DST, schema.HIDDEN])
        rows = rows.filter(pc.fill_null(rows[schema.HIDDEN], False))
        ends = (rows[name].cast(pa.string()).to_pylist() for name in (schema.SRC, schema.DST))
        pairs |= {frozenset(pair) for pair in zip(*ends, strict=True)}
    private = _private(tables) or set()
    answered = {
        frozenset((str(event.user_id), str(event.candidate_id)))
        for event in events
        if event.type in (*_FAVOURS, "request")
    }
    pairs |= {pair for pair in answered if pair & private}
    return SuppressedUsers(frozenset(departed), frozenset(pairs), frozenset(pairs & answered))


def _ends(rows: pa.Table, left: str, right: str) -> pa.Table:
    """Two columns of ids as text, named as the ends of pairs."""
    text = (rows[name].cast(pa.string()) for name in (left, right))
    return pa.table(dict(zip((schema.SRC, schema.DST), text, strict=True)))


def _pairs_table(pairs: Iterable[frozenset[str]]) -> pa.Table:
    """Pairs as a table for ``_in_pairs``."""
    # Without pairs zip gives no columns.
    ends = tuple(zip(*(sorted(pair) for pair in pairs if len(pair) == 2), strict=True)) or ((), ())
    return pa.table([pa.array(side, pa.string()) for side in ends], [schema.SRC, schema.DST])


def _fold(events: Iterable[Event]) -> tuple[set[str], set[str], list[tuple[str, str]]]:
    """Users who left, users who opted out, and the hidden pairs, after all events."""
    state = FoldedState.of(events, _SUPPRESSING)
    hidden = [(by, other) for by, other, _ in state.hidden_connections.pairs()]
    return state.departed, state.opted_out, hidden


def _rewrite(tables: Path, name: str, change: Callable[[pa.Table], pa.Table]) -> None:
    path = tables / f"{name}.parquet"
    if path.exists():
        pq.write_table(change(pq.read_table(path)), path, compression="zstd")


def _named(rows: pa.Table, column: str, ids: set[str]) -> BoolArray:
    """bool[n]: whether the column names one of the ids."""
    mask = pc.is_in(rows.column(column).cast(pa.string()), value_set=pa.array(sorted(ids)))
    return np.asarray(mask, dtype=bool)


def _without(rows: pa.Table, columns: tuple[str, ...], ids: set[str]) -> pa.Table:
    present = [name for name in columns if name in rows.column_names]
    gone = np.any([_named(rows, name, ids) for name in present], axis=0)
    return rows.filter(pa.array(~gone))


def _undiscoverable(rows: pa.Table, ids: set[str]) -> pa.Table:
    """Users with ``discoverable`` off where they opted out; an opt-in changes no table."""
    index = rows.column_names.index("discoverable")
    values = pc.and_(rows.column(index), pa.array(~_named(rows, schema.USER_ID, ids)))
    return rows.set_column(index, "discoverable", values)


def _hide(tables: Path, pairs: list[tuple[str, str]]) -> None:
    """Move hidden connections into their own table, and drop the columns that mark them."""
    path = tables / f"{schema.CONNECTIONS}.parquet"
    if not path.exists():
        return
    # Read before the column goes.
    private = _private(tables)
    if private is not None:
        _rewrite(tables, schema.USERS, lambda r: r.drop_columns([schema.CONNECTIONS_HIDDEN]))
    # Saves a rewrite of the connections where none is hidden.
    if not pairs and not private and schema.HIDDEN not in pq.read_schema(path).names:
        return
    rows = pq.read_table(path)
    ends = _ends(rows, schema.SRC, schema.DST)
    hidden = np.zeros(len(rows), bool)
    if schema.HIDDEN in rows.column_names:
        hidden |= np.asarray(pc.fill_null(rows.column(schema.HIDDEN), False), dtype=bool)
        rows = rows.drop_columns([schema.HIDDEN])
    if private:
        hidden |= np.any([_named(rows, name, private) for name in (schema.SRC, schema.DST)], axis=0)
    # A user who hides the whole list is a pair with themselves: it covers connections to come.
    more = [*pairs, *((user, user) for user in sorted(private or ()))]
    sides = tuple(zip(*more, strict=True)) or ((), ())
    added = pa.table([pa.array(side, pa.string()) for side in sides], ends.column_names)
    marked = pa.concat_tables([ends.filter(pa.array(hidden)), added])
    taken = _in_pairs(ends, marked)
    pq.write_table(rows.filter(pa.array(~taken)), path, compression="zstd")
    pq.write_table(marked, tables / f"{schema.HIDDEN_CONNECTIONS}.parquet", compression="zstd")
    _rewrite(tables, schema.IMPRESSIONS, lambda rows: _without_answers(rows, marked))


def _private(tables: Path) -> set[str] | None:
    """Users who hide all of their connections; None where no column tells."""
    path = tables / f"{schema.USERS}.parquet"
    if not path.exists() or schema.CONNECTIONS_HIDDEN not in pq.read_schema(path).names:
        return None
    rows = pq.read_table(path, columns=[schema.USER_ID, schema.CONNECTIONS_HIDDEN])
    hidden = pc.fill_null(rows.column(schema.CONNECTIONS_HIDDEN), False)
    return set(rows.filter(hidden).column(schema.USER_ID).cast(pa.string()).to_pylist())


def _without_answers(impressions: pa.Table, marked: pa.Table) -> pa.Table:
    """Impressions without those that ended in a hidden connection."""
    columns = impressions.column_names
    if schema.CANDIDATE_ID not in columns or "action" not in columns:
        return impressions
    favours = pc.is_in(impressions.column("action"), value_set=pa.array(_FAVOURS))
    answered = np.asarray(pc.fill_null(favours, False), dtype=bool)
    ends = _ends(impressions, schema.USER_ID, schema.CANDIDATE_ID)
    return impressions.filter(pa.array(~(answered & _in_pairs(ends, marked))))


def _in_pairs(rows: pa.Table, marked: pa.Table) -> BoolArray:
    """bool[n]: whether a row's ends, in either order, are a marked pair."""
    together = pa.concat_tables([rows, marked])
    ids = pc.unique(pa.chunked_array([*together.column(0).chunks, *together.column(1).chunks]))
    left, right = (
        np.asarray(pc.fill_null(pc.index_in(ends, value_set=ids), -1), dtype=np.int64)
        for ends in together.columns
    )
    key: IntArray = np.minimum(left, right) * len(ids) + np.maximum(left, right)
    return np.isin(key[: len(rows)], key[len(rows) :])
