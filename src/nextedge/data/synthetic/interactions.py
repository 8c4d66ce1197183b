"""Interactions over time, and the lists of items that led to some of them."""

from __future__ import annotations

import numba
import numpy as np
import pyarrow as pa

from nextedge.data.synthetic.catalogue import Catalogue, item_ids
from nextedge.data.synthetic.choices import EVENT_NAMES, EVENT_WEIGHTS, Habits, Market, interact
from nextedge.data.synthetic.config import SyntheticConfig
from nextedge.data.synthetic.connections import Report, rhythm
from nextedge.data.synthetic.draw import event_times, search_guide, stream_key
from nextedge.data.synthetic.impressions import impression_table
from nextedge.data.synthetic.log import Output
from nextedge.data.synthetic.network import Network
from nextedge.data.synthetic.people import People, tastes
from nextedge.data.synthetic.writer import TIMESTAMP, TableWriter, timestamps

INTERACTIONS_SCHEMA = pa.schema(
    [
        ("user_id", pa.string()),
        ("item_id", pa.string()),
        ("event", pa.string()),
        ("weight", pa.float32()),
        ("timestamp", TIMESTAMP),
    ]
)

_FROM_FRIENDS = 0.35
_REMEMBERED = 8


def make_interactions(
    people: People,
    network: Network,
    catalogue: Catalogue,
    config: SyntheticConfig,
    user_ids: pa.Array,
    interactions: TableWriter,
    impressions: TableWriter,
    report: Report,
) -> None:
    """Make the interactions and write them chunk by chunk. Memory: 150 bytes a user and a chunk."""
    market = _market(people, network, catalogue, config)
    habits = Habits(float(config.taste_strength), config.impression_start, config.list_length)
    rows = config.chunk_events + config.list_length + 1
    impressions_max = max(4 * config.list_length, min(rows * config.list_length, 300_000))
    output = Output.of_size(rows, impressions_max)
    ids = item_ids(len(catalogue))
    grid, mass = rhythm(people.created, config)
    total = config.interaction_count
    for first in range(0, total, config.chunk_events):
        count = min(config.chunk_events, total - first)
        times = event_times(config.seed, "interactions", total, first, count, grid, mass)
        while len(times):
            times = times[interact(market, habits, output, times) :]
            interactions.write(_table(output, user_ids, ids))
            impressions.write(impression_table(output, user_ids, ids, items=True))
            output.filled[:3] = 0  # but not the number of lists, which makes their ids
        report(first + count, total)


def _market(
    people: People, network: Network, catalogue: Catalogue, config: SyntheticConfig
) -> Market:
    taste = tastes(people, config)
    taste = blend_with_friends(taste, network.cells, network.start, network.degree)
    activity = np.concatenate(([0.0], np.cumsum(people.activity, dtype=np.float64)))
    appeal = np.concatenate(([0.0], np.cumsum(catalogue.appeal)))
    return Market(
        user_created=people.created,
        cumulative_activity=activity,
        activity_guide=search_guide(activity),
        taste=taste,
        logged=people.logged,
        item_created=catalogue.created,
        cumulative_appeal=appeal,
        appeal_guide=search_guide(appeal),
        factor=catalogue.factor,
        cells=network.cells,
        start=network.start,
        degree=network.degree,
        recent=np.full((len(people), _REMEMBERED), -1, np.int32),
        choices=np.zeros(len(people), np.int64),
        random=np.array([stream_key(config.seed, "choices")], np.uint64),
    )


@numba.njit(cache=True, nogil=True)
def blend_with_friends(taste, cells, start, degree):  # type: ignore[no-untyped-def]
    """float32[N, F]: the taste of each user, moved towards the mean of the friends."""
    blended = taste.copy()  # friends count with their taste before the blend
    for user in range(len(taste)):
        if degree[user] == 0:
            continue
        for factor in range(taste.shape[1]):
            total = 0.0
            for step in range(degree[user]):
                total += taste[cells[start[user] + step], factor]
            mean = total / degree[user]
            blended[user, factor] += _FROM_FRIENDS * (mean - taste[user, factor])
    return blended


def _table(output: Output, user_ids: pa.Array, ids: pa.Array) -> pa.Table:
    rows = int(output.filled[0])
    event = output.event[:rows]
    columns = {
        "user_id": user_ids.take(pa.array(output.source[:rows])),
        "item_id": ids.take(pa.array(output.target[:rows])),
        "event": pa.array(EVENT_NAMES, pa.string()).take(pa.array(event)),
        "weight": np.array(EVENT_WEIGHTS, np.float32)[event],
        "timestamp": timestamps(output.time[:rows]),
    }
    return pa.table(columns, schema=INTERACTIONS_SCHEMA)
