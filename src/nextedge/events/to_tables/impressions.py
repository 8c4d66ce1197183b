"""Recorded impressions and actions as rows of the impressions of the next build.

The rows are a function of the set of events: neither their order nor repeats of them matter.
DuckDB joins all events at once; each step below is one of its tables.

- ``table_rows``: the tenant's own impressions. ``reported``: impressions that clients sent, a
  recommendation id and target once. ``logged``: the lists of these ids in the request log.
- ``revealed``: an action on a position of a logged list implies impressions down to there.
- ``exposures``: the three together. ``answers``: which action belongs to which of them.
- ``outcome``: the one action that an exposure ends up with, and its time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nextedge import schema
from nextedge.events.to_tables.rows import UTC, appended

STRENGTH = {
    "purchase": 7,
    "accept": 6,
    "connect": 6,
    "like": 5,
    "request": 4,
    "click": 3,
    "view": 2,
    "block": 2,
    "dismiss": 1,
}
"""Of several actions in favour, or several against, the strongest decides."""
AGAINST = ("dismiss", "block")
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
"""One row a position of a logged list: its recommendation id, its position from 1, and its time."""
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
    given: pa.Table | None,
    events: pa.Table,
    logged: pa.Table,
    patience: Mapping[str, int],
    id_types: Mapping[str, pa.DataType],
) -> pa.Table | None:
    """The impressions of the next build; None where there are none.

    Args:
        given: the impressions of the table; columns that events do not change stay as they are.
        events: as ``event_rows`` gives them, without those of erased users.
        logged: positions that the request log has for the events' recommendation ids, as ``LOGGED``.
        patience: µs after an impression in which an action answers it, by kind.
        id_types: of users and of items.
    """
    import duckdb

    rows = _completed(given, id_types)
    with duckdb.connect() as connection:
        for name, table in (
            ("events", events),
            ("logged_rows", logged),
            ("table_rows", _keys(rows)),
        ):
            connection.register(name, table)
        for table in (_ACTS, _EXPOSURES, _ANSWERS.format(**patience), _OUTCOME, _JOINED):
            connection.execute(table)
        joined = connection.sql("SELECT * FROM joined ORDER BY row").to_arrow_table()
    if not len(joined):
        return given
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


def recommendation_ids(events: pa.Table) -> list[str]:
    """The recommendation ids that impressions and actions among the events name."""
    types = pc.is_in(events["type"], value_set=pa.array(["impression", *_ACTING]))
    return [rid for rid in events.filter(types)["rid"].unique().to_pylist() if rid]


def _completed(given: pa.Table | None, id_types: Mapping[str, pa.DataType]) -> pa.Table:
    """The impressions with every column that events fill; missing ones are added empty."""
    ids = {
        schema.USER_ID: schema.USERS,
        schema.CANDIDATE_ID: schema.USERS,
        schema.ITEM_ID: schema.ITEMS,
    }
    if given is None:
        fields = [(name, id_types[table]) for name, table in ids.items()]
        return pa.schema([*fields, *_COLUMNS]).empty_table()
    wanted = [pa.field(name, id_types[table]) for name, table in ids.items()] + list(_COLUMNS)
    for field in wanted:
        if field.name not in given.column_names:
            given = given.append_column(field, pa.nulls(len(given), field.type))
    return given


def _keys(rows: pa.Table) -> pa.Table:
    """The keys and actions of impressions, named as the events have them."""
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
    """The table's rows with their actions; positions and propensities where they had none."""
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


_ACTING = ("click", "accept", "connect", "request", "dismiss", "block", "purchase", "interact")


_ACTS = f"""
CREATE TEMP VIEW acts AS
SELECT event_id, kind, usr, target, rid, micros,
       CASE WHEN type = 'interact' THEN event ELSE type END AS action
FROM events
WHERE usr IS NOT NULL AND target IS NOT NULL AND type IN {_ACTING!r}
  AND (type <> 'interact' OR event IN {schema.ACTIONS!r});
"""
_EXPOSURES = """
CREATE TEMP TABLE reported AS
SELECT kind, usr, target, rid, min(micros) AS micros,
       first(position ORDER BY micros, event_id) FILTER (position IS NOT NULL) AS position
FROM (SELECT *, CASE WHEN rid = '' THEN micros ELSE 0 END AS alone FROM events
      WHERE type = 'impression' AND usr IS NOT NULL AND target IS NOT NULL)
GROUP BY kind, usr, target, rid, alone;

-- only rows of the table that an event may be about
CREATE TEMP TABLE matching AS
SELECT table_rows.* FROM table_rows
SEMI JOIN (SELECT kind, usr, target FROM acts UNION SELECT kind, usr, target FROM reported)
USING (kind, usr, target);

CREATE TEMP TABLE logged AS SELECT DISTINCT ON (rid, kind, usr, target) * FROM logged_rows
ORDER BY rid, kind, usr, target, position;

-- where a client tells itself what was reported of a list, only what was acted on is added
CREATE TEMP TABLE revealed AS
SELECT l.kind, l.usr, l.target, l.rid, any_value(l.micros) AS micros,
       any_value(l.position) AS position, min(acts.micros) AS arrived
FROM acts
JOIN logged AS acted USING (rid, kind, usr, target)
JOIN logged AS l ON l.rid = acted.rid AND l.position <= acted.position
WHERE l.position = acted.position
   OR acted.rid NOT IN (SELECT rid FROM reported UNION SELECT rid FROM table_rows)
GROUP BY l.kind, l.usr, l.target, l.rid;

CREATE TEMP TABLE exposures AS
WITH known AS (
    SELECT kind, usr, target, rid, CASE WHEN rid = '' THEN micros ELSE 0 END AS alone
    FROM matching
), sent AS (
    SELECT * FROM (SELECT *, CASE WHEN rid = '' THEN micros ELSE 0 END AS alone FROM reported)
    ANTI JOIN known USING (kind, usr, target, rid, alone)
), implied AS (
    SELECT * FROM revealed ANTI JOIN known USING (kind, usr, target, rid)
    ANTI JOIN reported USING (kind, usr, target, rid)
)
SELECT row_number() OVER (ORDER BY number, micros, kind, usr, rid, position, target) AS row, *
FROM (
    SELECT number, kind, usr, target, rid, micros, NULL AS position, NULL AS arrived,
           action AS own, coalesce(acted, micros) AS own_acted FROM matching
    UNION ALL
    SELECT NULL, kind, usr, target, rid, micros, position, micros, NULL, NULL FROM sent
    UNION ALL
    SELECT NULL, kind, usr, target, rid, micros, position, greatest(arrived, micros), NULL, NULL
    FROM implied
);
"""
_ANSWERS = """
CREATE TEMP TABLE direct AS
WITH by_id AS (
    SELECT exposures.row, exposures.kind, exposures.usr, exposures.target, acts.action, acts.micros,
           acts.event_id, exposures.micros AS since
    FROM acts JOIN exposures USING (rid, kind, usr, target)
    WHERE rid <> ''
    QUALIFY row_number() OVER (
        PARTITION BY acts.event_id
        ORDER BY exposures.micros > acts.micros, abs(exposures.micros - acts.micros), exposures.row) = 1
), latest AS (
    SELECT s.row, a.kind, a.usr, a.target, a.action, a.micros, a.event_id, s.micros AS since
    FROM (SELECT * FROM acts WHERE rid = '') AS a
    ASOF JOIN (SELECT kind, usr, target, micros, max(row) AS row FROM exposures
               WHERE micros IS NOT NULL GROUP BY kind, usr, target, micros) AS s
    ON a.kind = s.kind AND a.usr = s.usr AND a.target = s.target AND a.micros >= s.micros
)
SELECT *, micros - since > CASE kind WHEN 'people' THEN {people} ELSE {items} END AS late
FROM (SELECT * FROM by_id UNION ALL SELECT * FROM latest);

-- the other end's acceptance answers a request, and their block ends what came of it
CREATE TEMP TABLE answers AS
SELECT row, kind, action, micros, event_id, late FROM direct
UNION ALL
SELECT row, kind, action, micros, event_id, micros - since > {people} FROM (
    SELECT asked.row, asked.kind, acts.action, acts.micros, acts.event_id, asked.since
    FROM acts JOIN direct AS asked
    ON acts.usr = asked.target AND acts.target = asked.usr AND acts.micros >= asked.micros
    WHERE acts.kind = 'people' AND acts.action IN ('accept', 'connect', 'block')
      AND asked.kind = 'people' AND asked.action IN ('request', 'accept', 'connect')
      AND NOT asked.late
    QUALIFY row_number() OVER (
        PARTITION BY acts.event_id ORDER BY asked.micros DESC, asked.row) = 1
);
"""
_IN_FAVOUR = "(action, kind) IN ({})".format(
    ", ".join(
        f"('{action}', '{kind}')"
        for kind, actions in schema.FAVOURS.items()
        for action in (*actions, *(["request"] if kind == "people" else []))
    )
)
_STRENGTH = "CASE action {} ELSE 0 END".format(
    " ".join(f"WHEN '{action}' THEN {value}" for action, value in STRENGTH.items())
)
_OUTCOME = f"""
CREATE TEMP TABLE outcome AS
WITH whole AS (
    SELECT row, kind, action, micros, event_id, late FROM answers
    UNION ALL
    SELECT row, kind, own, own_acted, '', false FROM exposures
    WHERE own IS NOT NULL AND row IN (SELECT row FROM answers)
), judged AS (
    SELECT *, {_IN_FAVOUR} AS favour, action IN {AGAINST!r} AS against FROM whole
), timely AS (
    SELECT * FROM judged
    QUALIFY NOT late
        OR against AND micros >= min(micros) FILTER (favour AND NOT late) OVER (PARTITION BY row)
), placed AS (
    SELECT *, max(micros) FILTER (favour) OVER (PARTITION BY row) AS favoured,
              max(micros) FILTER (against) OVER (PARTITION BY row) AS refused
    FROM timely
)
SELECT row, action, micros AS acted FROM placed
WHERE CASE WHEN favour THEN coalesce(micros > refused, true)
           WHEN against THEN coalesce(micros >= favoured, true) ELSE true END
QUALIFY row_number() OVER (
    PARTITION BY row
    ORDER BY favour OR against DESC, {_STRENGTH} DESC, micros, event_id) = 1;
"""
_JOINED = """
CREATE TEMP TABLE joined AS
SELECT row, number, kind, usr, target, nullif(rid, '') AS rid, exposures.micros,
       coalesce(exposures.position, logged.position)::BIGINT AS position, action, acted,
       CASE WHEN propensity > 0 AND propensity <= 1 THEN propensity END AS propensity,
       arrived::BIGINT AS arrived
FROM exposures LEFT JOIN outcome USING (row) LEFT JOIN logged USING (rid, kind, usr, target)
WHERE number IS NULL OR action IS NOT NULL OR propensity IS NOT NULL;
"""
