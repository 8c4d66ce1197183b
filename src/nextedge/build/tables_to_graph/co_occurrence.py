"""Occasions: interactions of several users with one item at one time.

With dates, an occasion is an item within an hour. Without dates, logs are still in the order of
events: an occasion is a run of an item's rows that agree in every column that the schema does not
know (hour of the week, shop, device). Where rows are in no order, runs are short and their
features say little.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nextedge import schema
from nextedge.data.timestamps import ORDER_ONLY_BEFORE
from nextedge.types import IndexArray, IntArray

_HOUR = 3_600_000_000
_MOST_DISTINCT = 0.05
"""A column with more distinct values than this share of the rows tells rows apart, not times."""


def occasions(rows: pa.Table, user: IndexArray, item: IndexArray, time: IntArray) -> IndexArray:
    """int32[n]: the occasion of each interaction, or -1 where no other user shares it.

    Args:
        rows: the interactions, for the columns that the schema does not know.
        user, item: int32[n] positions.
        time: int64[n] microseconds, 0 where unknown.
    """
    none = np.full(len(item), -1, np.int32)
    if not len(item):
        return none
    dated = bool((time >= ORDER_ONLY_BEFORE).all())
    extra = [] if dated else _extra_columns(rows)
    if not dated and not extra:
        return none
    # Stable: without dates the rows' own order is the order of events.
    order = np.lexsort((time, item)) if dated else np.argsort(item, kind="stable")
    changes = item[order][1:] != item[order][:-1]
    for values in [time // _HOUR] if dated else extra:
        changes |= values[order][1:] != values[order][:-1]
    number = np.empty(len(item), np.int64)
    number[order] = np.concatenate(([0], np.cumsum(changes)))
    return _shared(number, user)


def _extra_columns(rows: pa.Table) -> list[np.ndarray]:
    """Codes of the columns that the schema does not know; null is one more value."""
    known = {column.name for column in schema.TABLES[schema.INTERACTIONS].columns}
    codes = []
    for name in rows.column_names:
        column = rows.column(name)
        if name in known or pa.types.is_nested(column.type):
            continue
        if pc.count_distinct(column, mode="all").as_py() <= _MOST_DISTINCT * len(rows):
            coded = column.combine_chunks().dictionary_encode(null_encoding="encode")
            codes.append(np.asarray(coded.indices))
    return codes


def _shared(number: IntArray, user: IndexArray) -> IndexArray:
    """Occasions of two users or more, numbered anew; the rest are -1."""
    # Distinct pairs: a user who returns to an occasion is still one.
    pairs = np.unique(number * (int(user.max()) + 1) + user)
    users = np.bincount(pairs // (int(user.max()) + 1))
    renumbered = np.where(users >= 2, np.cumsum(users >= 2) - 1, -1).astype(np.int32)
    return renumbered[number]
