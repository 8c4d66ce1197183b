"""One tenant's stream in Redis: the names of its keys, and the scripts that run on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nextedge.events.logs.log import Position
from nextedge.events.logs.redis import lua as scripts
from nextedge.events.logs.redis.durability import Durability
from nextedge.stores.breaker import CircuitBreaker
from nextedge.stores.redis_client import RedisClient

_READ_SECONDS = 1.0
"""How long a request waits for Redis."""
_WRITE_SECONDS = 5.0
_REST_SECONDS = 0.5
"""How long Redis is left alone after several failures in a row."""


@dataclass(frozen=True, slots=True)
class State:
    """What Redis says of a log: the server's run, the log's id, its generation and last position."""

    run: str
    log: str
    generation: int
    last: str

    @classmethod
    def of(cls, head: list[bytes]) -> State:
        """From the head of a script's answer."""
        run, log, generation, last = (each.decode() for each in head)
        return cls(run, log, int(generation), last)

    @property
    def home(self) -> str:
        """Where leases are kept; another home knows nothing of them."""
        return f"{self.run}/{self.log}"


def numbers(position: str) -> tuple[int, int]:
    """A position as numbers, which can be compared."""
    milliseconds, _, number = position.partition("-")
    return int(milliseconds), int(number)


class RedisStream:
    """Runs scripts on a tenant's keys, all of which have the tenant's hash tag.

    Attributes:
        reader: for requests, which wait shortly.
        writer: for appends and consumers.
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
        """A key of this stream, as Redis has it."""
        return self._prefix + name

    def read(self, script: str, keys: Sequence[str], rows: Sequence[Any] = ()) -> Any:
        """The answer of a script, with the patience of a request."""
        return self._run(self.reader, script, keys, rows)

    def write(self, script: str, keys: Sequence[str], rows: Sequence[Any]) -> Any:
        """The answer of a script, with the patience of an append."""
        return self._run(self.writer, script, keys, rows)

    def write_durably(self, script: str, keys: Sequence[str], rows: Sequence[Any]) -> Any:
        """The answer of a script that begins with the state, once what it wrote is on disk."""
        return self.durability.run(script, [self.key(name) for name in keys], rows)

    def _run(
        self, client: RedisClient, script: str, keys: Sequence[str], rows: Sequence[Any]
    ) -> Any:
        full = [self.key(name) for name in keys]
        return client.call(lambda redis: redis.register_script(script)(full, rows))

    def state(self) -> State:
        """The log's state now."""
        return State.of(self.read(scripts.STATE, ("log",))[0])

    def renew(self, name: str, renewal: int, seen: State | None) -> State:
        """Renew the lease of a replica that has seen a state; returns that of now."""
        given = seen or State("", "", 0, "0-0")
        rows = [name, given.home, renewal, given.generation, given.last]
        return State.of(self.read(scripts.RENEW, ("log", "replicas"), rows)[0])

    def laggards(self, state: State) -> tuple[State, list[bytes]]:
        """Names and renewals of the replicas that have not seen a state."""
        rows = [state.generation, state.last]
        head, names = self.read(scripts.LAGGARDS, ("log", "replicas"), rows)
        return State.of(head), names

    def evict(self, renewals: Sequence[bytes]) -> None:
        """Forget replicas, by name and renewal, unless they have renewed since."""
        self.read(scripts.EVICT, ("log", "replicas"), renewals)

    def wait_for_event(self, after: Position, seconds: float) -> Position | None:
        """Position of the first event after one, or None when there is none in time."""
        found = self.reader.call(
            lambda client: client.xread(
                {self.key("stream"): after}, count=1, block=max(1, int(seconds * 1000))
            )
        )
        return found[0][1][0][0].decode() if found else None

    def close(self) -> None:
        """Let go of connections; a later call connects anew."""
        self.reader.close()
        self.writer.close()
