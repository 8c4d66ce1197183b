"""Recorded interactions, clicks and purchases as interactions of the next build."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nextedge import schema
from nextedge.events.interaction import AGAINST, INTERACTIONS
from nextedge.events.to_tables.rows import UTC, appended


def with_interactions(rows: pa.Table, events: pa.Table) -> pa.Table:
    """Interactions of the table, and those of events, of weight 1 unless an event has another.

    The ``event`` of a click or purchase is its type, that of an ``interact`` its field. An event
    that the table has already, with the same time, adds no row.

    Args:
        events: rows of ``event_rows``.
    """
    recorded = pc.and_(
        pc.is_in(events["type"], value_set=pa.array(INTERACTIONS)),
        pc.equal(events["kind"], "items"),
    )
    interactions = events.filter(pc.and_(recorded, pc.is_valid(events["target"])))
    of_type = pc.if_else(
        pc.equal(interactions["type"], "interact"),
        pa.scalar(None, pa.string()),
        interactions["type"],
    )
    interactions = interactions.set_column(
        interactions.column_names.index("event"),
        "event",
        pc.coalesce(of_type, interactions["event"]),
    )
    interactions = interactions.filter(
        pc.invert(pc.is_in(interactions["event"], value_set=pa.array(AGAINST)))
    )
    interactions = interactions.filter(pc.invert(_in_table(rows, interactions)))
    columns = {
        schema.USER_ID: interactions["usr"],
        schema.ITEM_ID: interactions["target"],
        "event": interactions["event"],
        schema.WEIGHT: pc.fill_null(interactions["weight"], 1.0),
        schema.TIMESTAMP: interactions["micros"].cast(UTC),
    }
    return appended(rows, columns, (schema.USER_ID, schema.ITEM_ID)) if len(interactions) else rows


def _in_table(rows: pa.Table, interactions: pa.Table) -> pa.Array:
    """bool[n]: whether the table has the same user, item, event and time."""
    if schema.TIMESTAMP not in rows.column_names or "event" not in rows.column_names:
        return pa.array([False] * len(interactions), pa.bool_())
    table = pa.table(
        {
            "usr": rows[schema.USER_ID].cast(pa.string()),
            "target": rows[schema.ITEM_ID].cast(pa.string()),
            "event": pc.fill_null(rows["event"].cast(pa.string()), ""),
            "micros": rows[schema.TIMESTAMP].cast(UTC).cast(pa.int64()),
            "known": pa.array([True] * len(rows), pa.bool_()),
        }
    )
    # the table is far longer than the log: only its rows since the first event can match
    table = table.filter(pc.greater_equal(table["micros"], pc.min(interactions["micros"])))
    keys = ["usr", "target", "event", "micros"]
    table = table.group_by(keys).aggregate([("known", "any")])
    events = interactions.select(["usr", "target", "micros"])
    events = events.append_column("event", pc.fill_null(interactions["event"], ""))
    events = events.append_column("row", pa.array(np.arange(len(events))))
    joined = events.join(table, keys, join_type="left outer").sort_by("row")  # joins lose the order
    return pc.fill_null(joined["known_any"], False)
