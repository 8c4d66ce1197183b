"""The Redis log: one stream a tenant, shared by replicas on several machines.

Beside the stream are the hashes of all event ids. They stay when an event is erased, reveal no
user, and keep a repeated delivery of an erased event out. ``leases`` explains why every replica sees
every acknowledged event.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from nextedge.errors import LiveStateError, LogFullError, StoreError
from nextedge.events.event import Event, readable_event
from nextedge.events.logs.log import (
    BEGINNING,
    Consumer,
    DeadLetter,
    Delivery,
    Lag,
    LiveLog,
    Position,
)
from nextedge.events.logs.redis import lua as scripts
from nextedge.events.logs.redis.consumer import RedisConsumer
from nextedge.events.logs.redis.leases import Follower, Homes, Known, now, wait_for_replicas
from nextedge.events.logs.redis.purge import erase
from nextedge.events.logs.redis.stream import RedisStream, State, numbers

if TYPE_CHECKING:
    from nextedge.config import Config

_PAGE = 1000
_REWIND_STEP = 10_000  # events of a step: Redis serves no other client meanwhile


class RedisLog(LiveLog):
    """Events of one tenant in a Redis stream; a position is the id of an entry.

    Args:
        max_backlog: events that may wait for a group before ``append`` refuses more.
    """

    name = "redis"
    schemes = ("redis", "rediss")

    def __init__(self, url: str, tenant: str, max_backlog: int) -> None:
        self._stream = RedisStream(url, tenant)
        self._max_backlog = max_backlog
        self._homes = Homes()
        self._seen = _Seen()
        self._follower: Follower | None = None
        self._starting = threading.Lock()

    @classmethod
    def open(cls, url: str | None, config: Config) -> RedisLog:
        assert url is not None
        return cls(url, config.tenant, config.events.max_backlog)

    def append(self, events: Sequence[Event], *, relayed: bool = False) -> int:
        """See ``Log.append``; returns once every replica sees the batch."""
        if not events:
            return 0
        rows: list[Any] = [uuid.uuid4().hex, 0 if relayed else self._max_backlog, int(relayed)]
        for event in events:
            rows += (_hash(event.event_id), event.micros, event.model_dump_json())
        keys = ("log", "stream", "ids", "replicas")
        head, stored, *rest = self._stream.write_durably(scripts.APPEND, keys, rows)
        if stored < 0:
            group, waiting = rest
            raise LogFullError(
                f"events.log: {waiting:,} events wait for the group {group.decode()!r}, and "
                f"events.max_backlog is {self._max_backlog:,}: try again later"
            )
        self._spread(State.of(head), rest[0])
        return int(stored)

    def _spread(self, state: State, laggards: list[bytes]) -> None:
        """Return when no replica can answer without the events that were just stored."""
        stored = now()
        # a new home does not know the leases of the one before: wait until they have run out
        time.sleep(max(0.0, self._homes.meet(state.home)))
        wait_for_replicas(self._stream, state, laggards, stored)

    def read(
        self, after: Position = BEGINNING, limit: int | None = None
    ) -> Iterator[tuple[Position, Event]]:
        known = self._fresh()
        if after and known is not None and known.state.last == after:
            return
        left = limit
        while left is None or left > 0:
            rows = self._page(after)
            for position, fields in rows:
                after = position.decode()
                event = readable_event(fields.get(b"body", b""))
                if event is not None and left != 0:
                    yield after, event
                    left = None if left is None else left - 1
            if len(rows) < _PAGE:
                return

    def _page(self, after: Position) -> list[Any]:
        first = f"({after}" if after else "-"
        with self._reading():
            rows: list[Any] = self._stream.reader.call(
                lambda client: client.xrange(self._stream.key("stream"), first, count=_PAGE)
            )
        return rows

    def last_position(self) -> Position:
        with self._reading():
            rows = self._stream.reader.call(
                lambda client: client.xrevrange(self._stream.key("stream"), count=1)
            )
        return rows[0][0].decode() if rows else BEGINNING

    def follow(self) -> None:
        """Take a lease, so that ``changes`` needs no round trip."""
        with self._starting:
            if self._follower is None:
                self._follower = Follower(self._stream, self._known)

    def changes(self, *, quick: bool = False) -> object:
        """See ``LiveLog.changes``; the first ``quick`` call takes a lease."""
        known = self._fresh()
        if known is None:
            if quick:
                self.follow()
            known = self._ask()
        return known.changes

    def generation(self) -> object:
        """See ``LiveLog.generation``; also differs once Redis has lost events."""
        known = self._fresh() or self._ask()
        return known.generation

    def _fresh(self) -> Known | None:
        follower = self._follower
        return None if follower is None else follower.fresh()

    def _ask(self) -> Known:
        with self._reading():
            state = self._stream.state()
        return self._known(state, 0.0)

    def _known(self, state: State, until: float) -> Known:
        self._homes.meet(state.home)
        generation = state.log, self._seen.losses(state), state.generation
        return Known(until, state, generation, (generation, state.last))

    def consumer(self, group: str) -> Consumer:
        return RedisConsumer(self._stream, group, self._bury)

    def lag(self, group: str) -> Lag:
        """See ``Log.lag``; the age counts from the time at which the oldest event was stored."""
        with self._reading():
            count, *rest = self._stream.read(scripts.LAG, ("log", "stream"), [group])
        if not count:
            return Lag(0, 0.0)
        seconds, micros, oldest = rest
        clock = int(seconds) + int(micros) / 1e6
        return Lag(count, max(0.0, clock - numbers(oldest.decode())[0] / 1e3))

    def groups(self) -> list[str]:
        with self._reading():
            names = self._stream.read(scripts.GROUPS, ("log", "stream"), [])
        return sorted(name.decode() for name in names)

    def rewind(self, group: str, since_micros: int) -> None:
        """See ``Log.rewind``; delivers again the first event that is not older, and all after it."""
        # event times are by clocks of many machines and out of order: only a scan finds the first
        step, last, before, *first = 0, b"0-0", 0, b""
        while not step:
            rows = [last, before, since_micros, _REWIND_STEP]
            step, last, before, *first = self._stream.write(scripts.FIND, ("log", "stream"), rows)
        if step > 0:
            rows = [group, last, before, first[0]]
            self._stream.write(scripts.REWIND, ("log", "stream"), rows)

    def drop(self, group: str) -> None:
        self._stream.write(scripts.DROP, ("log", "stream"), [group])

    def dead_letters(self) -> list[DeadLetter]:
        with self._reading():
            fields = self._stream.reader.call(
                lambda client: client.hgetall(self._stream.key("dead"))
            )
        letters = []
        for field, value in fields.items():
            position, _, group = field.decode().partition(" ")
            head, _, body = value.partition(b"\n")
            letters.append(
                DeadLetter(group=group, position=position, body=body, **json.loads(head))
            )
        return sorted(letters, key=lambda letter: (letter.micros, numbers(letter.position)))

    def _bury(self, group: str, delivery: Delivery, reason: str) -> None:
        """Store a dead letter durably, one for a group and position."""
        head = json.dumps({"reason": reason, "micros": time.time_ns() // 1000}).encode()
        position = delivery.position
        rows = [position, f"{position} {group}", head + b"\n" + delivery.body]
        self._stream.write_durably(scripts.REJECT, ("log", "stream", "dead"), rows)

    def purge(self, doomed: Sequence[Position]) -> None:
        """See ``LiveLog.purge``; refuses while another purge is under way."""
        state, laggards = erase(self._stream, doomed)
        self._spread(state, laggards)
        self._stream.durability.rewrite_files()  # old files still have the erased events

    def close(self) -> None:
        with self._starting:
            follower, self._follower = self._follower, None
        if follower is not None:
            follower.close()
        self._stream.close()

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except StoreError as error:
            raise LiveStateError(
                f"events.log: what changed since the release cannot be read: {error}"
            ) from None


class _Seen:
    """Detects that Redis has lost events, by the latest position that this process has seen."""

    def __init__(self) -> None:
        self._runs: set[str] = set()
        self._furthest = (0, 0)
        self._losses = 0
        self._lock = threading.Lock()

    def losses(self, state: State) -> int:
        """Number of restarts of the server after which the log was shorter."""
        last = numbers(state.last)
        with self._lock:
            if state.run not in self._runs:
                self._runs.add(state.run)
                self._losses += last < self._furthest
                self._furthest = last
            self._furthest = max(self._furthest, last)
            return self._losses


def _hash(event_id: str) -> bytes:
    return hashlib.blake2b(event_id.encode("utf-8", "surrogatepass"), digest_size=16).digest()
