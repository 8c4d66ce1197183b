"""Erase events from a Redis stream.

XDEL only marks an entry: its bytes stay in memory and in every file until the whole node of the
stream is empty. So a purge copies the stream without the erased events, in steps that let other
clients in between. The last step replaces the stream, with groups, pending entries and the last
position, so that no position is used twice.
"""

from __future__ import annotations

import uuid
from bisect import bisect_right
from collections.abc import Sequence

from nextedge.errors import StorageError
from nextedge.events.logs.log import Position
from nextedge.events.logs.redis import lua as scripts
from nextedge.events.logs.redis.stream import RedisStream, State, numbers

_LEASE_MS = 60_000  # after it another purge may begin although this one has not ended
_STEP = 1000  # entries of a step: Redis serves no other client meanwhile
_KEYS = "log", "stream", "copy", "purging"


def erase(stream: RedisStream, doomed: Sequence[Position]) -> tuple[State, list[bytes]]:
    """Erase events and their dead letters; returns the state and the replicas to wait for.

    Raises:
        StorageError: Redis is not reached or refuses, or another purge is under way.
    """
    token, wanted = uuid.uuid4().hex, sorted(set(doomed), key=numbers)
    removed, last, read = [], "", _STEP
    while read == _STEP:
        # the doomed positions that this step may meet
        start = bisect_right(wanted, numbers(last), key=numbers) if last else 0
        rows = [token, _LEASE_MS, last, _STEP, *wanted[start : start + _STEP]]
        locked, *rest = stream.write(scripts.COPY, _KEYS, rows)
        _check(stream, locked)
        last, read = rest[0].decode(), rest[1]
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
