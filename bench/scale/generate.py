"""Tables of a tenant of any size, written row group by row group: users and their connections.

Users belong to communities of a hundred to a few thousand; of a user's connections three in
four stay within, the others go anywhere. Who is connected follows a power law on both sides
(degrees up to tens of thousands in five million users), times ascend over five years. What a
row holds follows from its number and the seed, so memory does not depend on the size.

    python bench/scale/generate.py --users 5000000 --edges 100000000 --folder tenant
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

CHUNK = 2_000_000
"""Rows that are made at once; about 200 MiB."""
FIRST, LAST = 1_577_836_800_000_000, 1_735_689_600_000_000
"""2020 to 2025, microseconds since 1970."""
_WITHIN = 0.75
_CITIES, _INDUSTRIES = 400, 60
_STRIDES = 2_654_435_761, 40_503 * 65_537
"""Primes or nearly so: multiplying by them spreads ranks over the users without a table."""


def identifiers(position: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """What a user is called: numbers with gaps."""
    return position * 7 + 1_000_003


def community_starts(users: int, seed: int) -> npt.NDArray[np.int64]:
    """int64[C + 1]: first user of every community, ascending, and the number of users."""
    random = np.random.default_rng([seed, 1])
    sizes = np.exp(random.normal(6.4, 0.8, users // 100 + 2)).astype(np.int64) + 20
    ends = np.cumsum(sizes)
    ends = ends[ends < users - 20]
    return np.concatenate(([0], ends, [users]))


def _spread(rank: npt.NDArray[np.float64], users: int, stride: int) -> npt.NDArray[np.int64]:
    """Who has a rank: a one-to-one map of the users, as the stride and their number share nothing."""
    while np.gcd(stride, users) != 1:
        stride += 2
    return (rank.astype(np.int64) * stride) % users


def _skewed(draw: npt.NDArray[np.float64], power: int) -> npt.NDArray[np.float64]:
    """Uniform draws as shares of a ranking, the first ones often: a power law cut at both ends."""
    cut = 0.2
    return ((draw + cut) ** power - cut**power) / ((1 + cut) ** power - cut**power)


def edges_of(
    part: int,
    rows: int,
    users: int,
    starts: npt.NDArray[np.int64],
    community: npt.NDArray[np.int32],
    seed: int,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Ends int64[rows] of one part of the connections; none joins a user to itself."""
    random = np.random.default_rng([seed, 2, part])
    source = _spread(users * _skewed(random.random(rows), 4), users, _STRIDES[0])
    own = community[source]
    begin, size = starts[own], starts[own + 1] - starts[own]
    within = begin + (size * _skewed(random.random(rows), 3)).astype(np.int64)
    anywhere = _spread(users * random.random(rows) ** 2.5, users, _STRIDES[0])
    target = np.where(random.random(rows) < _WITHIN, within, anywhere)
    return source, np.where(target == source, (target + 1) % users, target)


def write_connections(path: Path, users: int, edges: int, seed: int = 0) -> None:
    """Write ``src``, ``dst``, ``timestamp``, in the order of time."""
    starts = community_starts(users, seed)
    community = np.repeat(np.arange(len(starts) - 1, dtype=np.int32), np.diff(starts))
    schema = pa.schema(
        {"src": pa.int64(), "dst": pa.int64(), "timestamp": pa.timestamp("us", "UTC")}
    )
    pace = (LAST - FIRST) / edges
    with pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=False) as writer:
        for part, begin in enumerate(range(0, edges, CHUNK)):
            rows = min(CHUNK, edges - begin)
            source, target = edges_of(part, rows, users, starts, community, seed)
            when = FIRST + ((begin + np.arange(rows)) * pace).astype(np.int64)
            table = pa.table(
                [identifiers(source), identifiers(target), pa.array(when, schema.field(2).type)],
                schema=schema,
            )
            writer.write_table(table, row_group_size=CHUNK)


def write_users(path: Path, users: int, seed: int = 0) -> None:
    """Write ``user_id``, ``city``, ``industry``, ``created_at``; communities share values."""
    starts = community_starts(users, seed)
    random = np.random.default_rng([seed, 3])
    homes = random.integers(0, _CITIES, len(starts)), random.integers(0, _INDUSTRIES, len(starts))
    schema = pa.schema(
        {
            "user_id": pa.int64(),
            "city": pa.string(),
            "industry": pa.string(),
            "created_at": pa.timestamp("us", "UTC"),
        }
    )
    names = [
        pa.array([f"{kind} {n}" for n in range(count)])
        for kind, count in (("city", _CITIES), ("industry", _INDUSTRIES))
    ]
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for begin in range(0, users, CHUNK):
            position = np.arange(begin, min(begin + CHUNK, users))
            own = np.searchsorted(starts, position, side="right") - 1
            columns = []
            for home, values in zip(homes, names, strict=True):
                apart = random.random(len(position)) < 0.4
                code = np.where(apart, random.integers(0, len(values), len(position)), home[own])
                columns.append(values.take(pa.array(code)))
            created = FIRST + (random.random(len(position)) ** 2 * (LAST - FIRST)).astype(np.int64)
            columns.append(pa.array(created, schema.field(3).type))
            writer.write_table(pa.table([pa.array(identifiers(position)), *columns], schema=schema))


def write_interactions(path: Path, users: int, items: int, rows: int, seed: int = 0) -> None:
    """Write ``user_id``, ``item_id``, ``timestamp``: items of a user's community, and popular ones."""
    starts = community_starts(users, seed)
    community = np.repeat(np.arange(len(starts) - 1, dtype=np.int32), np.diff(starts))
    schema = pa.schema(
        {"user_id": pa.int64(), "item_id": pa.int64(), "timestamp": pa.timestamp("us", "UTC")}
    )
    pace = (LAST - FIRST) / rows
    with pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=False) as writer:
        for part, begin in enumerate(range(0, rows, CHUNK)):
            count = min(CHUNK, rows - begin)
            random = np.random.default_rng([seed, 4, part])
            user = _spread(users * _skewed(random.random(count), 4), users, _STRIDES[0])
            shelf = (items * random.random(count) ** 2.5).astype(np.int64) % max(items // 50, 1)
            near = (community[user].astype(np.int64) * 97 + shelf) % items
            popular = _spread(items * random.random(count) ** 2.5, items, _STRIDES[1])
            item = np.where(random.random(count) < 0.5, near, popular)
            when = FIRST + ((begin + np.arange(count)) * pace).astype(np.int64)
            columns = [identifiers(user), item + 10**9, pa.array(when, schema.field(2).type)]
            writer.write_table(pa.table(columns, schema=schema), row_group_size=CHUNK)


def write_tenant(folder: Path, users: int, edges: int, interactions: int = 0) -> None:
    """Write what is not there yet; a file has its name only when it is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {"users": lambda path: write_users(path, users)}
    if edges:
        wanted["connections"] = lambda path: write_connections(path, users, edges)
    if interactions:
        wanted["interactions"] = lambda path: write_interactions(
            path, users, max(users // 10, 1000), interactions
        )
    for name, write in wanted.items():
        path, part = folder / f"{name}.parquet", folder / f".{name}.part"
        if not path.exists():
            write(part)
            part.replace(path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, required=True)
    parser.add_argument("--edges", type=int, default=0)
    parser.add_argument("--interactions", type=int, default=0)
    parser.add_argument("--folder", type=Path, required=True)
    given = parser.parse_args()
    began = time.perf_counter()
    write_tenant(given.folder, given.users, given.edges, given.interactions)
    print(f"{time.perf_counter() - began:.1f} s")
