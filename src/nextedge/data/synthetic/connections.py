"""Connections over time, the lists of people that led to some of them, and blocks."""

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
"""Actions follow an event within minutes, and must still lie within the history."""

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
    """Grow the network and write it chunk by chunk; returns the final adjacency.

    Memory: about 32 bytes an edge and 400 bytes a user, and the buffers of one chunk.
    """
    communities = make_communities(people, config)
    crowd, rules = _crowd(people), _rules(config)
    network = _network(people, communities, config)
    room = LISTS_PER_VISIT * config.list_length
    impressions_max = max(4 * room, min(2 * room * config.chunk_events, 300_000))
    output = Output.of_size(config.chunk_events + room, impressions_max)
    grid, mass = rhythm(people.created, config)
    total = config.edge_count
    for first in range(0, total, config.chunk_events):
        count = min(config.chunk_events, total - first)
        times = event_times(config.seed, "connections", total, first, count, grid, mass)
        while len(times):
            times = times[grow(crowd, communities, network, rules, output, times) :]
            connections.write(_pairs(CONNECTIONS_SCHEMA, user_ids, output, blocks=False))
            impressions.write(impression_table(output, user_ids, user_ids, items=False))
            blocks.write(_pairs(BLOCKS_SCHEMA, user_ids, output, blocks=True))
            output.filled[:3] = 0  # but not the number of lists, which makes their ids
        report(first + count, total)
    return network


def rhythm(created: IntArray, config: SyntheticConfig) -> tuple[IntArray, Doubles]:
    """Moments an hour apart, and the cumulative activity by each of them.

    Activity grows with the number of users; it is higher on weekdays and in the evening.
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
    # A list may bring more than one connection an event; the adjacency must have room for them.
    return round(1.05 * config.edge_count) + 2 * LISTS_PER_VISIT * config.list_length


def _network(people: People, communities: Communities, config: SyntheticConfig) -> Network:
    count, limit = len(people), _edge_limit(config)
    blocks = 100 + round(3 * config.block_share * config.edge_count)
    return Network(
        # The system commits only pages that the kernel writes to: this is a bound, not a cost.
        cells=np.empty(8 * limit + 4 * count, np.int32),
        start=np.zeros(count, np.int64),
        degree=np.zeros(count, np.int32),
        capacity=np.zeros(count, np.int32),
        reached=np.zeros(len(communities.start), np.int64),
        blocked=np.empty((min(blocks, 100_000), 2), np.int32),
        has_block=np.zeros(count, np.bool_),
        counters=np.zeros(4, np.int64),
        random=np.array([stream_key(config.seed, "growth")], np.uint64),
    )


def _pairs(schema: pa.Schema, user_ids: pa.Array, output: Output, blocks: bool) -> pa.Table:
    """The connections or the blocks of a round, with ids in place of positions."""
    rows = int(output.filled[2 if blocks else 0])
    ends = (output.blocker, output.other) if blocks else (output.source, output.target)
    time = output.blocked_at if blocks else output.time
    columns = [user_ids.take(pa.array(end[:rows])) for end in ends]
    columns.append(timestamps(time[:rows]))
    return pa.table(columns, schema=schema)
