"""Connections and blocks that events recorded, as rows of the tables of the next build."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pyarrow as pa

from nextedge import schema
from nextedge.config import Config
from nextedge.events.event import Event
from nextedge.events.logs.log import BEGINNING, open_live_log
from nextedge.events.logs.sqlite.log import FILE
from nextedge.events.state.folded_state import FoldedState
from nextedge.events.to_tables.rows import UTC, appended


def recorded_events(config: Config) -> list[Event]:
    """All events of a tenant, in order; makes no log where there is none."""
    if config.events.log is None and not (config.state_path / FILE).exists():
        return []
    log = open_live_log(config)
    try:
        return [event for _, event in log.read()]
    finally:
        log.close()


def last_event(config: Config) -> str:
    """Position of a tenant's latest event; makes no log where there is none."""
    if config.events.log is None and not (config.state_path / FILE).exists():
        return BEGINNING
    log = open_live_log(config)
    try:
        return log.last_position()
    finally:
        log.close()


def with_connections(rows: pa.Table, events: Iterable[Event]) -> pa.Table:
    """Connections with those that events made, and without those that events ended."""
    state = FoldedState.of(events, ("connect", "accept", "disconnect"))
    ended = state.ended()
    if ended:
        ends = zip(
            *(rows.column(n).cast(pa.string()).to_pylist() for n in (schema.SRC, schema.DST)),
            strict=True,
        )
        rows = rows.filter(pa.array([tuple(sorted(map(str, pair))) not in ended for pair in ends]))
    return _appended_pairs(rows, state.connections(), (schema.SRC, schema.DST))


def with_blocks(rows: pa.Table, events: Iterable[Event]) -> pa.Table:
    """Blocks with those that events recorded and did not take back.

    A row of the table stays, whatever events say: the table may be the later of the two.
    """
    state = FoldedState.of(events, ("block", "unblock"))
    return _appended_pairs(rows, state.blocked.pairs(), (schema.USER_ID, schema.OTHER_ID))


def _appended_pairs(
    rows: pa.Table, pairs: Sequence[tuple[str, str, int]], ends: tuple[str, str]
) -> pa.Table:
    """Rows with one row a pair after them, of weight 1 where the table has weights."""
    if not pairs:
        return rows
    left, right, micros = (pa.array(column) for column in zip(*pairs, strict=True))
    columns = {
        ends[0]: left,
        ends[1]: right,
        schema.TIMESTAMP: micros.cast(UTC),
        schema.WEIGHT: pa.array([1.0] * len(pairs)),
    }
    return appended(rows, columns, ends)
