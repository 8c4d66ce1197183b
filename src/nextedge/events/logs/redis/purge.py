"""Erasing events from a Redis stream.

Redis only marks a deleted entry: its bytes stay in memory and in every file until the whole node of
the stream is empty. So the stream is copied without the erased events, in steps that let other
clients in between. One last step puts the copy in its place, with groups, pending entries and the
last position, so that no position is given twice.
"""

from __future__ import annotations

import uuid
from bisect import bisect_right
from collections.abc import Sequence

from nextedge.errors import StorageError
from nextedge.events.logs.log import Position
from nextedge.events.logs.redis import lua as scripts
from nextedge.events.logs.redis.stream import RedisStream, State, numbers

_LEASE_MS = 60_000
"""How long after its last step a purge that died keeps others out."""
_STEP = 1000
_KEYS = "log", "stream", "copy", "purging"


def erase(stream: RedisStream, doomed: Sequence[Position]) -> tuple[State, list[bytes]]:
    """Erase events and their dead letters; returns the state, and the replicas to wait for.

    Raises:
        StorageError: Redis is not reached or refuses, or another purge is under way.
    """
    token, wanted = uuid.uuid4().hex, sorted(set(doomed), key=numbers)
    removed, last, found = [], "", _STEP
    while found == _STEP:
        start = bisect_right(wanted, numbers(last), key=numbers) if last else 0
        rows = [token, _LEASE_MS, last, _STEP, *wanted[start : start + _STEP]]
        locked, *rest = stream.write(scripts.COPY, _KEYS, rows)
        _check(stream, locked)
        last, found = rest[0].decode(), rest[1]
        removed += rest[2]
    rows = [token, last, len(removed), *removed, *wanted]
    head, locked, *rest = stream.write(scripts.SWAP, (*_KEYS, "dead", "replicas"), rows)
    _check(stream, locked)
    return State.of(head), rest[0]


def _check(stream: RedisStream, locked: int) -> None:
    if not locked:
        raise StorageError(
            f"{stream.public_url}: another purge of these events is under way; try later"
        )
