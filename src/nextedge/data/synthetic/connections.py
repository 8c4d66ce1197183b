"""Connections over time, with the lists of people and the blocks that go with them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa

from nextedge.data.synthetic.communities import Communities, make_communities
from nextedge.data.synthetic.config import START, SyntheticConfig
from nextedge.data.synthetic.draw import Doubles, event_times, search_guide, stream_key
from nextedge.data.synthetic.growth import Crowd, Rules, grow
from nextedge.data.synthetic.impressions import impression_table
from nextedge.data.synthetic.log import LISTS_PER_VISIT, Output
from nextedge.data.synthetic.network import Network
from nextedge.data.synthetic.people import People
from nextedge.data.synthetic.writer import TIMESTAMP, TableWriter, timestamps
from nextedge.types import IntArray

CONNECTIONS_SCHEMA = pa.schema(
    [("src", pa.string()), ("dst", pa.string()), ("timestamp", TIMESTAMP)]
)
BLOCKS_SCHEMA = pa.schema(
    [("user_id", pa.string()), ("other_id", pa.string()), ("timestamp", TIMESTAMP)]
)

_HOUR_US = 3_600_000_000
_LAST_EVENT_MARGIN_US = _HOUR_US
"""Actions follow an event within minutes, and must still fall into the history."""

_DAILY = 1.0 + 0.6 * np.sin((np.arange(24) - 8) * 2 * np.pi / 24)
_WEEKLY = np.array([1.1, 1.1, 1.15, 1.1, 1.0, 0.75, 0.8])

Report = Callable[[int, int], None]


def grow_connections(
    people: People,
    config: SyntheticConfig,
    user_ids: pa.Array,
    connections: TableWriter,
    impressions: TableWriter,
    blocks: TableWriter,
    report: Report,
) -> Network:
    """Grow the network and stream it out; returns the adjacency as it ends.

    Memory: about 32 bytes an edge and 400 bytes a user, and the buffers of one chunk.
    """
    communities = make_communities(people, config)
    crowd, rules = _crowd(people), _rules(config)
    network = _network(people, communities, config)
    output = _output(config)
    grid, mass = rhythm(people.created, config)
    total = config.edge_count
    for first in range(0, total, config.chunk_events):
        count = min(config.chunk_events, total - first)
        times = event_times(config.seed, "connections", total, first, count, grid, mass)
        while len(times):
            times = times[grow(crowd, communities, network, rules, output, times) :]
            connections.write(_pairs(CONNECTIONS_SCHEMA, user_ids, output, 0))
            impressions.write(impression_table(output, user_ids, user_ids, items=False))
            blocks.write(_pairs(BLOCKS_SCHEMA, user_ids, output, 2))
            output.filled[:3] = 0
        report(first + count, total)
    return network


def rhythm(created: IntArray, config: SyntheticConfig) -> tuple[IntArray, Doubles]:
    """Moments an hour apart and the cumulative activity by then.

    As many act as have joined; more of them on weekdays and towards the evening.
    """
    last = config.end - _LAST_EVENT_MARGIN_US
    grid = np.append(np.arange(START, last, _HOUR_US), last)
    hour = (grid[:-1] // _HOUR_US) % 24
    weekday = (grid[:-1] // (24 * _HOUR_US) + 3) % 7
    present = 1.0 + np.searchsorted(created, grid[:-1])
    intensity = present * _DAILY[hour] * _WEEKLY[weekday] * np.diff(grid)
    return grid, np.concatenate(([0.0], np.cumsum(intensity)))


def _crowd(people: People) -> Crowd:
    cumulative = np.concatenate(([0.0], np.cumsum(people.activity, dtype=np.float64)))
    return Crowd(
        created=people.created,
        active=people.active,
        traits=np.column_stack((people.company, people.school, people.city, people.industry)),
        skill_bits=people.skill_bits,
        activity=people.activity,
        cumulative_activity=cumulative,
        activity_guide=search_guide(cumulative),
        discoverable=people.discoverable,
        logged=people.logged,
    )


def _rules(config: SyntheticConfig) -> Rules:
    return Rules(
        closure_start=float(config.closure_start),
        closure_end=float(config.closure_end),
        start=START,
        span=config.end - START,
        waning_us=config.waning_days * 24 * _HOUR_US,
        newcomer_share=float(config.newcomer_share),
        homophily=float(config.homophily),
        block_share=float(config.block_share),
        impression_start=config.impression_start,
        list_length=config.list_length,
        edge_limit=_edge_limit(config),
    )


def _edge_limit(config: SyntheticConfig) -> int:
    """Lists may bring more than one connection an event; the adjacency must still fit."""
    return round(1.05 * config.edge_count) + 2 * LISTS_PER_VISIT * config.list_length


def _network(people: People, communities: Communities, config: SyntheticConfig) -> Network:
    count, limit = len(people), _edge_limit(config)
    blocks = 100 + round(3 * config.block_share * config.edge_count)
    return Network(
        # Untouched pages of an empty array are never committed: this is a bound, not a cost.
        cells=np.empty(8 * limit + 4 * count, np.int32),
        place=np.zeros(count, np.int64),
        degree=np.zeros(count, np.int32),
        capacity=np.zeros(count, np.int32),
        reached=np.zeros(len(communities.start), np.int64),
        blocked=np.empty((min(blocks, 100_000), 2), np.int32),
        has_block=np.zeros(count, np.bool_),
        counters=np.zeros(4, np.int64),
        random=np.array([stream_key(config.seed, "growth")], np.uint64),
    )


def _output(config: SyntheticConfig) -> Output:
    return make_output(config.chunk_events + LISTS_PER_VISIT * config.list_length, config)


def make_output(edges: int, config: SyntheticConfig) -> Output:
    """Buffers for a round of ``edges`` rows."""
    lists = LISTS_PER_VISIT * config.list_length
    shown = max(4 * lists, min(2 * lists * config.chunk_events, 300_000))
    return Output(
        source=np.empty(edges, np.int32),
        target=np.empty(edges, np.int32),
        time=np.empty(edges, np.int64),
        viewer=np.empty(shown, np.int32),
        shown=np.empty(shown, np.int32),
        shown_at=np.empty(shown, np.int64),
        action=np.empty(shown, np.int8),
        acted_at=np.empty(shown, np.int64),
        position=np.empty(shown, np.int16),
        list_number=np.empty(shown, np.int64),
        blocker=np.empty(10_000, np.int32),
        other=np.empty(10_000, np.int32),
        blocked_at=np.empty(10_000, np.int64),
        filled=np.zeros(4, np.int64),
    )


def _pairs(schema: pa.Schema, user_ids: pa.Array, output: Output, which: int) -> pa.Table:
    """Connections (``which`` 0) or blocks (2) of a round, ids spelt out."""
    rows = int(output.filled[which])
    ends = (output.source, output.target) if which == 0 else (output.blocker, output.other)
    time = output.time if which == 0 else output.blocked_at
    columns = [user_ids.take(pa.array(end[:rows])) for end in ends]
    columns.append(timestamps(time[:rows]))
    return pa.table(columns, schema=schema)
