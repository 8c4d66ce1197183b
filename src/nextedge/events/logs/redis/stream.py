"""One tenant's stream in Redis: the names of its keys, and calls of the scripts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nextedge.events.logs.log import Position
from nextedge.events.logs.redis import lua as scripts
from nextedge.events.logs.redis.durability import Durability
from nextedge.stores.breaker import CircuitBreaker
from nextedge.stores.redis_client import RedisClient

_READ_SECONDS = 1.0  # a request waits no longer, because it then degrades
_WRITE_SECONDS = 5.0
_REST_SECONDS = 0.5  # pause after several failures in a row, so that requests fail at once


@dataclass(frozen=True, slots=True)
class State:
    """State of a log: run id of the server, id of the log, its generation and last position."""

    run: str
    log: str
    generation: int
    last: str

    @classmethod
    def of(cls, head: list[bytes]) -> State:
        """The state that a script returns first."""
        run, log, generation, last = (part.decode() for part in head)
        return cls(run, log, int(generation), last)

    @property
    def home(self) -> str:
        """Server and log that know the leases; another home knows none of them."""
        return f"{self.run}/{self.log}"


def numbers(position: str) -> tuple[int, int]:
    """The numbers of a position, which sort in the order of events; its text does not."""
    milliseconds, _, number = position.partition("-")
    return int(milliseconds), int(number)


class RedisStream:
    """Runs scripts on a tenant's keys, which share a hash tag.

    Attributes:
        reader: client for requests, with a short timeout.
        writer: client for appends and consumers.
    """

    def __init__(self, url: str, tenant: str) -> None:
        self.reader = RedisClient(url, "events.log", _READ_SECONDS)
        self.writer = RedisClient(url, "events.log", _WRITE_SECONDS)
        for client in (self.reader, self.writer):
            client.breaker = CircuitBreaker(seconds=_REST_SECONDS)
        self.public_url = self.reader.public_url
        self.durability = Durability(self.writer)
        self._prefix = f"ne:{{{tenant}}}:events:"

    def key(self, name: str) -> str:
        """The full name of a key."""
        return self._prefix + name

    def read(self, script: str, keys: Sequence[str], rows: Sequence[Any] = ()) -> Any:
        """Run a script with the timeout of a request."""
        return self._run(self.reader, script, keys, rows)

    def write(self, script: str, keys: Sequence[str], rows: Sequence[Any]) -> Any:
        """Run a script with the timeout of an append."""
        return self._run(self.writer, script, keys, rows)

    def write_durably(self, script: str, keys: Sequence[str], rows: Sequence[Any]) -> Any:
        """Run a script whose answer begins with the state; returns once its writes are on disk."""
        return self.durability.run(script, [self.key(name) for name in keys], rows)

    def _run(
        self, client: RedisClient, script: str, keys: Sequence[str], rows: Sequence[Any]
    ) -> Any:
        full = [self.key(name) for name in keys]
        return client.call(lambda redis: redis.register_script(script)(full, rows))

    def state(self) -> State:
        """The current state of the log."""
        return State.of(self.read(scripts.STATE, ("log",))[0])

    def renew(self, name: str, renewal: int, seen: State | None) -> State:
        """Renew a replica's lease and confirm the state that it has seen; returns the current one."""
        confirmed = seen or State("", "", 0, "0-0")
        rows = [name, confirmed.home, renewal, confirmed.generation, confirmed.last]
        return State.of(self.read(scripts.RENEW, ("log", "replicas"), rows)[0])

    def laggards(self, state: State) -> tuple[State, list[bytes]]:
        """Current state, and names and renewals of the replicas that have not confirmed a state."""
        rows = [state.generation, state.last]
        head, names = self.read(scripts.LAGGARDS, ("log", "replicas"), rows)
        return State.of(head), names

    def evict(self, renewals: Sequence[bytes]) -> None:
        """Remove replicas, by name and renewal, unless they have renewed since."""
        self.read(scripts.EVICT, ("log", "replicas"), renewals)

    def wait_for_event(self, after: Position, seconds: float) -> Position | None:
        """Position of the first event after another, or None when none arrives in time."""
        millis = max(1, int(seconds * 1000))  # 0 would wait for ever
        streams = self.reader.call(
            lambda client: client.xread({self.key("stream"): after}, count=1, block=millis)
        )
        return streams[0][1][0][0].decode() if streams else None

    def close(self) -> None:
        """Close connections; a later call connects again."""
        self.reader.close()
        self.writer.close()
