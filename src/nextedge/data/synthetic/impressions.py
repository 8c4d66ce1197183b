"""The impressions table: viewers, candidates, positions in the list, and actions."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nextedge.data.synthetic.log import ACTION_NAMES, Output
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


def impression_table(
    output: Output, user_ids: pa.Array, candidate_ids: pa.Array, items: bool
) -> pa.Table:
    """The impressions of a round; ``items`` tells lists of items from lists of people."""
    rows = int(output.filled[1])
    candidate = candidate_ids.take(pa.array(output.candidate[:rows]))
    none = pa.nulls(rows, pa.string())
    inactive = output.action[:rows] < 0
    code = pa.array(np.maximum(output.action[:rows], 0), mask=inactive)
    lists = pc.utf8_lpad(pa.array(output.list_number[:rows] + 1).cast(pa.string()), 9, "0")
    columns = {
        "user_id": user_ids.take(pa.array(output.viewer[:rows])),
        "candidate_id": none if items else candidate,
        "item_id": candidate if items else none,
        "recommendation_id": pc.binary_join_element_wise("ri" if items else "rp", lists, ""),
        "position": output.position[:rows].copy(),  # the next round overwrites the buffer
        "timestamp": timestamps(output.listed_at[:rows]),
        "action": pa.array(ACTION_NAMES, pa.string()).take(code),
        "action_timestamp": timestamps(output.acted_at[:rows], inactive),
    }
    return pa.table(columns, schema=IMPRESSIONS_SCHEMA)
