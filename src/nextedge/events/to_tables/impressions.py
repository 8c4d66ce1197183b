"""Recorded impressions and actions as rows of the impressions of the next build.

The rows are a function of the set of events: neither their order nor repeats matter. DuckDB joins
all events at once, by the steps in ``impressions.sql``.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nextedge import schema
from nextedge.events.to_tables.rows import UTC, appended

# of several actions in favour, or several against, the strongest decides
_WEAKEST_FIRST = ("dismiss", "block view", "click", "request", "like", "accept connect", "purchase")
STRENGTH = {a: rank for rank, actions in enumerate(_WEAKEST_FIRST, 1) for a in actions.split()}
AGAINST = ("dismiss", "block")
_ACTING = ("click", "accept", "connect", "request", "dismiss", "block", "purchase", "interact")
LOGGED = pa.schema(
    [
        ("rid", pa.string()),
        ("kind", pa.string()),
        ("usr", pa.string()),
        ("target", pa.string()),
        ("position", pa.int64()),
        ("propensity", pa.float64()),
        ("micros", pa.int64()),
    ]
)
"""Columns of logged lists: one row a position, from 1."""
_COLUMNS = pa.schema(
    [
        (schema.TIMESTAMP, UTC),
        ("recommendation_id", pa.string()),
        ("position", pa.int64()),
        ("action", pa.string()),
        ("action_timestamp", UTC),
        ("propensity", pa.float64()),
        (schema.ARRIVED_AT, UTC),
    ]
)


def with_impressions(
    impressions: pa.Table | None,
    events: pa.Table,
    logged: pa.Table,
    patience: Mapping[str, int],
    id_types: Mapping[str, pa.DataType],
) -> pa.Table | None:
    """The impressions of the next build; None if there are none.

    Args:
        impressions: the tenant's table; events change only its actions, positions and propensities.
        events: rows of ``event_rows``, without erased users.
        logged: positions of the request log for the events' recommendation ids, as ``LOGGED``.
        patience: µs after an impression in which an action answers it, by kind.
        id_types: types of the ids of users and of items.
    """
    import duckdb

    rows = _completed(impressions, id_types)
    with duckdb.connect() as connection:
        connection.register("events", events)
        connection.register("logged_rows", logged)
        connection.register("table_rows", _keys(rows))
        connection.execute(_steps(patience))
        joined = connection.sql("SELECT * FROM joined ORDER BY row").to_arrow_table()
    if not len(joined):
        return impressions
    fresh = pc.is_null(joined["number"])
    changed, more = joined.filter(pc.invert(fresh)), joined.filter(fresh)
    columns: dict[str, Any] = {
        schema.USER_ID: more["usr"],
        schema.CANDIDATE_ID: _targets(more, "people"),
        schema.ITEM_ID: _targets(more, "items"),
        schema.TIMESTAMP: more["micros"].cast(UTC),
        "recommendation_id": more["rid"],
        "position": more["position"],
        "action": more["action"],
        "action_timestamp": more["acted"].cast(UTC),
        "propensity": more["propensity"],
        schema.ARRIVED_AT: more["arrived"].cast(UTC),
    }
    whole = appended(_answered(rows, changed), columns, (schema.USER_ID,))
    named = pc.or_(pc.is_valid(whole[schema.CANDIDATE_ID]), pc.is_valid(whole[schema.ITEM_ID]))
    return whole.filter(named)


def _steps(patience: Mapping[str, int]) -> str:
    """The SQL of all steps."""
    favours = {**schema.FAVOURS, "people": (*schema.FAVOURS["people"], "request")}
    pairs = [f"('{action}', '{kind}')" for kind, actions in favours.items() for action in actions]
    cases = " ".join(f"WHEN '{action}' THEN {value}" for action, value in STRENGTH.items())
    steps = (files(__package__) / "impressions.sql").read_text("utf-8")
    return steps.format(
        acting=_ACTING,
        actions=schema.ACTIONS,
        against=AGAINST,
        favour=f"(action, kind) IN ({', '.join(pairs)})",
        strength=f"CASE action {cases} ELSE 0 END",
        **patience,
    )


def recommendation_ids(events: pa.Table) -> list[str]:
    """The recommendation ids of impressions and actions among the events."""
    types = pc.is_in(events["type"], value_set=pa.array(["impression", *_ACTING]))
    return [rid for rid in events.filter(types)["rid"].unique().to_pylist() if rid]


def _completed(rows: pa.Table | None, id_types: Mapping[str, pa.DataType]) -> pa.Table:
    """Impressions with every column that events fill; missing columns are added empty."""
    ids = {
        schema.USER_ID: schema.USERS,
        schema.CANDIDATE_ID: schema.USERS,
        schema.ITEM_ID: schema.ITEMS,
    }
    fields = [pa.field(name, id_types[table]) for name, table in ids.items()] + list(_COLUMNS)
    if rows is None:
        return pa.schema(fields).empty_table()
    for field in fields:
        if field.name not in rows.column_names:
            rows = rows.append_column(field, pa.nulls(len(rows), field.type))
    return rows


def _keys(rows: pa.Table) -> pa.Table:
    """Keys and actions of impressions, named like the columns of events."""
    people, items = (rows[name].cast(pa.string()) for name in (schema.CANDIDATE_ID, schema.ITEM_ID))
    return pa.table(
        {
            "number": pa.array(np.arange(len(rows))),
            "kind": pc.if_else(pc.is_valid(people), "people", "items"),
            "usr": rows[schema.USER_ID].cast(pa.string()),
            "target": pc.coalesce(people, items),
            "rid": pc.fill_null(rows["recommendation_id"].cast(pa.string()), ""),
            "micros": rows[schema.TIMESTAMP].cast(UTC).cast(pa.int64()),
            "action": rows["action"].cast(pa.string()),
            "acted": rows["action_timestamp"].cast(UTC).cast(pa.int64()),
        }
    )


def _targets(more: pa.Table, kind: str) -> pa.ChunkedArray:
    return pc.if_else(pc.equal(more["kind"], kind), more["target"], pa.scalar(None, pa.string()))


def _answered(rows: pa.Table, changed: pa.Table) -> pa.Table:
    """The table's rows with their actions; positions and propensities only where they are null."""
    position = pc.index_in(pa.array(np.arange(len(rows))), value_set=changed["number"])
    acted = pc.is_valid(changed["action"].take(position))
    for name, source in (
        ("action", "action"),
        ("action_timestamp", "acted"),
        ("position", "position"),
        ("propensity", "propensity"),
    ):
        at, kind = rows.column_names.index(name), rows.schema.field(name).type
        before, now = rows.column(at), changed[source]
        now = (now.cast(UTC) if source == "acted" else now).cast(kind).take(position)
        decided = acted if name.startswith("action") else pc.is_null(before)
        rows = rows.set_column(at, pa.field(name, kind), pc.if_else(decided, now, before))
    return rows
