"""What the clean tables hold and no graph may: people who left, and connections that are hidden.

Hidden connections are taken out before anything is computed, so that no candidate, feature,
label, reason or count can come from them; what remains of them is a table of pairs that are
not recommended to each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
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
_WITHHOLDING = ("leave", "opt_out", "opt_in", "hide_connection", "unhide_connection")
_PEOPLE_COLUMNS = {
    schema.USERS: (schema.USER_ID,),
    schema.CONNECTIONS: (schema.SRC, schema.DST),
    schema.INTERACTIONS: (schema.USER_ID,),
    schema.IMPRESSIONS: (schema.USER_ID, schema.CANDIDATE_ID),
    schema.BLOCKS: (schema.USER_ID, schema.OTHER_ID),
}


def withhold(tables: Path, events: Iterable[Event]) -> None:
    """Take out of a folder of clean tables what takes part in nothing."""
    departed, opted_out, hidden = _fold(events)
    for name, columns in _PEOPLE_COLUMNS.items():
        if departed:
            _rewrite(tables, name, lambda rows, c=columns: _without(rows, c, departed))
    if opted_out:
        _rewrite(tables, schema.USERS, lambda rows: _undiscoverable(rows, opted_out))
    _hide(tables, hidden)


@dataclass(frozen=True)
class SuppressedUsers:
    """What recorded events must not tell of, ids as text.

    Attributes:
        departed: who left.
        pairs: people whose connection is hidden.
        answered: those of the pairs of which an event tells that they asked or connected.
    """

    departed: frozenset[str]
    pairs: frozenset[frozenset[str]]
    answered: frozenset[frozenset[str]]

    def of(self, rows: pa.Table) -> BoolArray:
        """bool[n]: which of some ``event_rows``, or rows with such ends, are not to be used."""
        gone = pa.array(sorted(self.departed), pa.string())
        people = np.asarray(pc.equal(rows["kind"], "people"), dtype=bool)
        found = np.asarray(pc.is_in(rows["usr"], value_set=gone), dtype=bool)
        found |= people & np.asarray(pc.is_in(rows["target"], value_set=gone), dtype=bool)
        return found | (people & _in_pairs(_ends(rows, "usr", "target"), _marked(self.pairs)))

    def without_answered(self, shown: pa.Table) -> pa.Table:
        """Given impressions without those that ended in a connection that is hidden."""
        if not self.answered or schema.CANDIDATE_ID not in shown.column_names:
            return shown
        ends = _ends(shown, schema.USER_ID, schema.CANDIDATE_ID)
        return shown.filter(pa.array(~_in_pairs(ends, _marked(self.answered))))


def concealed(tables: Path, events: Sequence[Event]) -> SuppressedUsers:
    """What of recorded events must leave no trace, before ``withhold`` takes the flags.

    Beside the pairs that are hidden, every pair that asked for or made a connection of somebody
    whose whole list is hidden, whether or not it still stands.
    """
    departed, _, hidden = _fold(events)
    pairs = {frozenset(pair) for pair in hidden}
    path = tables / f"{schema.CONNECTIONS}.parquet"
    if path.exists() and schema.HIDDEN in pq.read_schema(path).names:
        rows = pq.read_table(path, columns=[schema.SRC, schema.DST, schema.HIDDEN])
        rows = rows.filter(pc.fill_null(rows[schema.HIDDEN], False))
        ends = (rows[name].cast(pa.string()).to_pylist() for name in (schema.SRC, schema.DST))
        pairs |= {frozenset(pair) for pair in zip(*ends, strict=True)}
    private = _hiding_all(tables) or set()
    asked = {
        frozenset((str(event.user_id), str(event.candidate_id)))
        for event in events
        if event.type in (*_FAVOURS, "request")
    }
    pairs |= {pair for pair in asked if pair & private}
    return SuppressedUsers(frozenset(departed), frozenset(pairs), frozenset(pairs & asked))


def _ends(rows: pa.Table, left: str, right: str) -> pa.Table:
    """Two columns of ids as text, named as the ends of pairs are."""
    text = (rows[name].cast(pa.string()) for name in (left, right))
    return pa.table(dict(zip((schema.SRC, schema.DST), text, strict=True)))


def _marked(pairs: Iterable[frozenset[str]]) -> pa.Table:
    """Pairs as ``_in_pairs`` looks them up."""
    ends = tuple(zip(*(sorted(pair) for pair in pairs if len(pair) == 2), strict=True)) or ((), ())
    return pa.table([pa.array(side, pa.string()) for side in ends], [schema.SRC, schema.DST])


def _fold(events: Iterable[Event]) -> tuple[set[str], set[str], list[tuple[str, str]]]:
    """Who left, who is opted out, and the pairs that either end hides, after all events."""
    facts = FoldedState.of(events, _WITHHOLDING)
    hidden = [(by, other) for by, other, _ in facts.hidden_connections.pairs()]
    return facts.departed, facts.opted_out, hidden


def _rewrite(tables: Path, name: str, change) -> None:  # type: ignore[no-untyped-def]
    path = tables / f"{name}.parquet"
    if path.exists():
        pq.write_table(change(pq.read_table(path)), path, compression="zstd")


def _named(rows: pa.Table, column: str, ids: set[str]) -> BoolArray:
    """bool[n]: whether the column names one of the ids."""
    found = pc.is_in(rows.column(column).cast(pa.string()), value_set=pa.array(sorted(ids)))
    return np.asarray(found, dtype=bool)


def _without(rows: pa.Table, columns: tuple[str, ...], ids: set[str]) -> pa.Table:
    given = [name for name in columns if name in rows.column_names]
    gone = np.any([_named(rows, name, ids) for name in given], axis=0)
    return rows.filter(pa.array(~gone))


def _undiscoverable(rows: pa.Table, ids: set[str]) -> pa.Table:
    """Users with ``discoverable`` off where they opted out; an opt-in changes no table."""
    place = rows.column_names.index("discoverable")
    shown = pc.and_(rows.column(place), pa.array(~_named(rows, schema.USER_ID, ids)))
    return rows.set_column(place, "discoverable", shown)


def _hide(tables: Path, pairs: list[tuple[str, str]]) -> None:
    """Move hidden connections into a table of their own; the flags go, too."""
    path = tables / f"{schema.CONNECTIONS}.parquet"
    if not path.exists():
        return
    private = _private(tables)
    if not pairs and not private and schema.HIDDEN not in pq.read_schema(path).names:
        return
    rows = pq.read_table(path)
    text = [rows.column(name).cast(pa.string()) for name in (schema.SRC, schema.DST)]
    hidden = np.zeros(len(rows), bool)
    if schema.HIDDEN in rows.column_names:
        hidden |= np.asarray(pc.fill_null(rows.column(schema.HIDDEN), False), dtype=bool)
        rows = rows.drop_columns([schema.HIDDEN])
    if private:
        hidden |= np.any([_named(rows, name, private) for name in (schema.SRC, schema.DST)], axis=0)
    more = [*pairs, *((each, each) for each in sorted(private))]
    marked = pa.table(
        {
            name: pa.chunked_array(
                [*ends.filter(pa.array(hidden)).chunks, pa.array(given, pa.string())]
            )
            for name, ends, given in zip(
                (schema.SRC, schema.DST),
                text,
                tuple(zip(*more, strict=True)) or ((), ()),
                strict=True,
            )
        }
    )
    taken = _in_pairs(pa.table({schema.SRC: text[0], schema.DST: text[1]}), marked)
    pq.write_table(rows.filter(pa.array(~taken)), path, compression="zstd")
    pq.write_table(marked, tables / f"{schema.HIDDEN_CONNECTIONS}.parquet", compression="zstd")
    _rewrite(tables, schema.IMPRESSIONS, lambda shown: _without_answers(shown, marked))


def _private(tables: Path) -> set[str]:
    """Users whose whole list of connections is hidden; the column goes."""
    found = _hiding_all(tables)
    if found is not None:
        _rewrite(tables, schema.USERS, lambda r: r.drop_columns([schema.CONNECTIONS_HIDDEN]))
    return found or set()


def _hiding_all(tables: Path) -> set[str] | None:
    """Users whose whole list of connections is hidden; None where no column says it."""
    path = tables / f"{schema.USERS}.parquet"
    if not path.exists() or schema.CONNECTIONS_HIDDEN not in pq.read_schema(path).names:
        return None
    rows = pq.read_table(path, columns=[schema.USER_ID, schema.CONNECTIONS_HIDDEN])
    hidden = pc.fill_null(rows.column(schema.CONNECTIONS_HIDDEN), False)
    return set(rows.filter(hidden).column(schema.USER_ID).cast(pa.string()).to_pylist())


def _without_answers(shown: pa.Table, marked: pa.Table) -> pa.Table:
    """Impressions but those that ended in a connection that is hidden."""
    if schema.CANDIDATE_ID not in shown.column_names or "action" not in shown.column_names:
        return shown
    answered = pc.fill_null(pc.is_in(shown.column("action"), value_set=pa.array(_FAVOURS)), False)
    pairs = _ends(shown, schema.USER_ID, schema.CANDIDATE_ID)
    return shown.filter(pa.array(~(np.asarray(answered, dtype=bool) & _in_pairs(pairs, marked))))


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
