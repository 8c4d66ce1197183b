"""Events as rows of the input tables: what was recorded is in the next build."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc

from nextedge import schema
from nextedge.config import Config
from nextedge.data.ids import is_int64
from nextedge.events.event import Event
from nextedge.events.local_log import FILE
from nextedge.events.log import BEGINNING, open_live_log

_UTC = pa.timestamp("us", "UTC")


def recorded_events(config: Config) -> list[Event]:
    """All events of a tenant, in order; a state folder without a log stays without one."""
    if config.events.log is None and not (config.state_path / FILE).exists():
        return []
    log = open_live_log(config)
    try:
        return [event for _, event in log.read()]
    finally:
        log.close()


def last_event(config: Config) -> str:
    """Position of a tenant's latest event; a state folder without a log stays without one."""
    if config.events.log is None and not (config.state_path / FILE).exists():
        return BEGINNING
    log = open_live_log(config)
    try:
        return log.last_position()
    finally:
        log.close()


def with_connections(rows: pa.Table, events: Iterable[Event]) -> pa.Table:
    """Connections with those that events made, and without those that events ended."""
    made: dict[frozenset[str], Event] = {}
    ended: set[frozenset[str]] = set()
    for event in events:
        pair = frozenset((str(event.user_id), str(event.candidate_id)))
        if event.type in ("connect", "accept") and event.candidate_id is not None:
            made[pair] = event
            ended.discard(pair)
        elif event.type == "disconnect":
            made.pop(pair, None)
            ended.add(pair)
    if ended:
        ends = zip(
            *(rows.column(n).cast(pa.string()).to_pylist() for n in (schema.SRC, schema.DST)),
            strict=True,
        )
        rows = rows.filter(pa.array([frozenset(pair) not in ended for pair in ends]))
    return _append(rows, [
        {schema.SRC: e.user_id, schema.DST: e.candidate_id, schema.TIMESTAMP: e.timestamp, schema.WEIGHT: 1.0}
        for e in made.values()
    ])  # fmt: skip


def with_blocks(rows: pa.Table, events: Iterable[Event]) -> pa.Table:
    """Blocks with those that events recorded and their makers did not take back.

    A row of the table stays, whatever was recorded: the table may be the later of the two.
    """
    made: dict[tuple[str, str], Event] = {}
    for event in events:
        pair = str(event.user_id), str(event.candidate_id)
        if event.type == "block":
            made[pair] = event
        elif event.type == "unblock":
            made.pop(pair, None)
    return _append(rows, [
        {schema.USER_ID: e.user_id, schema.OTHER_ID: e.candidate_id, schema.TIMESTAMP: e.timestamp}
        for e in made.values()
    ])  # fmt: skip


def _append(rows: pa.Table, added: list[dict[str, object]]) -> pa.Table:
    """Rows with others after them, ids cast to the table's type; rows that cannot be are left out."""
    if not added:
        return rows
    columns = {}
    for name in [name for name in added[0] if name in rows.column_names]:
        kind = rows.schema.field(name).type
        values = [row[name] for row in added]
        if pa.types.is_integer(kind):
            text = pa.array([str(value) for value in values])
            columns[name] = pc.if_else(is_int64(text), text, None).cast(kind)
        elif name == schema.TIMESTAMP:
            columns[name] = pa.array(values, _UTC).cast(kind)
        else:
            columns[name] = pa.array(
                [str(v) if pa.types.is_string(kind) else v for v in values], kind
            )
    more = pa.table(columns)
    for name in more.column_names:
        more = more.filter(pc.is_valid(more.column(name)))
    nullable = pa.schema([field.with_nullable(True) for field in rows.schema])
    return pa.concat_tables([rows.cast(nullable), more], promote_options="default")
