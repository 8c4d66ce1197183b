"""The impressions table: what was shown to whom, where in the list, and what came of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nextedge.data.synthetic.log import ACTION_NAMES
from nextedge.data.synthetic.writer import TIMESTAMP, timestamps

IMPRESSIONS_SCHEMA = pa.schema(
    [
        ("user_id", pa.string()),
        ("candidate_id", pa.string()),
        ("item_id", pa.string()),
        ("recommendation_id", pa.string()),
        ("position", pa.int16()),
        ("timestamp", TIMESTAMP),
        ("action", pa.string()),
        ("action_timestamp", TIMESTAMP),
    ]
)


def impression_table(output: Any, user_ids: pa.Array, shown_ids: pa.Array, items: bool) -> pa.Table:
    """The rows of a round's buffers; ``items`` says whether the shown are items or people."""
    rows = int(output.filled[1])
    shown = shown_ids.take(pa.array(output.shown[:rows]))
    nothing = pa.nulls(rows, pa.string())
    quiet = output.action[:rows] < 0
    code = pa.array(np.maximum(output.action[:rows], 0), mask=quiet)
    lists = pc.utf8_lpad(pa.array(output.list_number[:rows] + 1).cast(pa.string()), 9, "0")
    columns = {
        "user_id": user_ids.take(pa.array(output.viewer[:rows])),
        "candidate_id": nothing if items else shown,
        "item_id": shown if items else nothing,
        "recommendation_id": pc.binary_join_element_wise("ri" if items else "rp", lists, ""),
        "position": output.position[:rows].copy(),
        "timestamp": timestamps(output.shown_at[:rows]),
        "action": pa.array(ACTION_NAMES, pa.string()).take(code),
        "action_timestamp": timestamps(output.acted_at[:rows], quiet),
    }
    return pa.table(columns, schema=IMPRESSIONS_SCHEMA)
