"""Recorded interactions, clicks and purchases as rows of the interactions of the next build."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nextedge import schema
from nextedge.events.interaction import AGAINST, INTERACTIONS
from nextedge.events.to_tables.rows import UTC, appended

_SAME = "in_table"


def with_interactions(rows: pa.Table, events: pa.Table) -> pa.Table:
    """Interactions with those that events recorded, of weight 1 where they state none.

    A click or a purchase has its type as ``event``, an ``interact`` the one that it states. What
    the table holds already, with the same event and time, is not counted again.

    Args:
        events: as ``event_rows`` gives them.
    """
    recorded = pc.and_(
        pc.is_in(events["type"], value_set=pa.array(INTERACTIONS)),
        pc.equal(events["kind"], "items"),
    )
    found = events.filter(pc.and_(recorded, pc.is_valid(events["target"])))
    of_type = pc.if_else(
        pc.equal(found["type"], "interact"), pa.scalar(None, pa.string()), found["type"]
    )
    found = found.set_column(
        found.column_names.index("event"), "event", pc.coalesce(of_type, found["event"])
    )
    found = found.filter(pc.invert(pc.is_in(found["event"], value_set=pa.array(AGAINST))))
    found = found.filter(pc.invert(_held(rows, found)))
    columns = {
        schema.USER_ID: found["usr"],
        schema.ITEM_ID: found["target"],
        "event": found["event"],
        schema.WEIGHT: pc.fill_null(found["weight"], 1.0),
        schema.TIMESTAMP: found["micros"].cast(UTC),
    }
    return appended(rows, columns, (schema.USER_ID, schema.ITEM_ID)) if len(found) else rows


def _held(rows: pa.Table, found: pa.Table) -> pa.Array:
    """Whether each found row is in the table: same ends, event and time."""
    if schema.TIMESTAMP not in rows.column_names or "event" not in rows.column_names:
        return pa.array([False] * len(found), pa.bool_())
    given = pa.table(
        {
            "usr": rows[schema.USER_ID].cast(pa.string()),
            "target": rows[schema.ITEM_ID].cast(pa.string()),
            "event": pc.fill_null(rows["event"].cast(pa.string()), ""),
            "micros": rows[schema.TIMESTAMP].cast(UTC).cast(pa.int64()),
            _SAME: pa.array([True] * len(rows), pa.bool_()),
        }
    )
    earliest = pc.min(found["micros"])
    given = given.filter(pc.greater_equal(given["micros"], earliest))
    keys = ["usr", "target", "event", "micros"]
    given = given.group_by(keys).aggregate([(_SAME, "any")])
    own = found.select(["usr", "target", "micros"])
    own = own.append_column("event", pc.fill_null(found["event"], ""))
    own = own.append_column("place", pa.array(np.arange(len(own))))
    joined = own.join(given, keys, join_type="left outer").sort_by("place")
    return pc.fill_null(joined[f"{_SAME}_any"], False)
