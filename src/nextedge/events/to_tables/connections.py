"""Connections and blocks that events recorded, as rows of the tables of the next build."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import closing

import pyarrow as pa

from nextedge import schema
from nextedge.config import Config
from nextedge.events.event import Event
from nextedge.events.logs.log import BEGINNING, open_live_log
from nextedge.events.logs.sqlite.log import FILE
from nextedge.events.state.folded_state import FoldedState
from nextedge.events.to_tables.rows import UTC, appended


def recorded_events(config: Config) -> list[Event]:
    """All events of a tenant, in order."""
    if not _has_log(config):
        return []
    with closing(open_live_log(config)) as log:
        return [event for _, event in log.read()]


def last_event(config: Config) -> str:
    """Position of a tenant's latest event."""
    if not _has_log(config):
        return BEGINNING
    with closing(open_live_log(config)) as log:
        return log.last_position()


def _has_log(config: Config) -> bool:
    # to open the local log would make its file, and a build must not change a tenant without events
    return config.events.log is not None or (config.state_path / FILE).exists()


def with_connections(rows: pa.Table, events: Iterable[Event]) -> pa.Table:
    """Connections after the events: with new ones, without ended ones."""
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
    """Blocks of the table, and those that events set and did not revoke."""
    # a row of the table stays even if an event revoked it: the table may be the later of the two
    state = FoldedState.of(events, ("block", "unblock"))
    return _appended_pairs(rows, state.blocked.pairs(), (schema.USER_ID, schema.OTHER_ID))


def _appended_pairs(
    rows: pa.Table, pairs: Sequence[tuple[str, str, int]], ends: tuple[str, str]
) -> pa.Table:
    """Rows followed by one row a pair, of weight 1 if the table has weights."""
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
