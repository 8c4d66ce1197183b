"""The contract of event logs: append durably, read in order, deliver to consumer groups.

Every process of a tenant folds the *live log* into its overlay before it answers: the local log, or
Redis Streams. A *broker* (Kafka) carries events between systems, each at least once, to the live log
and back. A live log stores an event id once, so a repeated delivery changes nothing.

The consumers of a group share the events. A part of the log has one consumer at a time, until it
closes or does not poll for the lease; the next consumer continues after the last commit. Two
consumers never have events of one user at the same time.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from nextedge.discovery import import_modules, named_subclasses
from nextedge.errors import ConfigError, EventError, nearest
from nextedge.events.event import Event, parse_event

if TYPE_CHECKING:
    from nextedge.config import Config

Position = str
"""Position of an event: opaque text that only its log can read."""
BEGINNING: Position = ""
"""The position before the first event."""


@dataclass(frozen=True)
class Delivery:
    """One event as a consumer receives it.

    Attributes:
        body: the stored bytes.
        event: None if this version cannot read the body.
        fault: why it cannot.
        relayed: whether the event came from another log.
    """

    position: Position
    body: bytes
    event: Event | None
    fault: str | None = None
    relayed: bool = False

    @classmethod
    def of(cls, position: Position, body: bytes, *, relayed: bool = False) -> Delivery:
        """Parse a body; a body that is no event becomes a delivery with its fault."""
        try:
            return cls(position, body, parse_event(json.loads(body)), None, relayed)
        except (EventError, ValueError, TypeError, OverflowError, RecursionError) as error:
            return cls(position, body, None, str(error) or type(error).__name__, relayed)


Bury = Callable[[str, Delivery, str], None]  # stores a group's delivery as a dead letter


@dataclass(frozen=True)
class DeadLetter:
    """An event that a group could not handle, the reason, and when it gave up (``micros``)."""

    group: str
    position: Position
    body: bytes
    reason: str
    micros: int


@dataclass(frozen=True)
class Lag:
    """Backlog of a group: number of uncommitted events, and the age of the oldest in seconds."""

    events: int
    seconds: float


class Consumer(ABC):
    """One member of a group, for one thread; a context manager."""

    @abstractmethod
    def poll(self, limit: int = 1000, timeout_seconds: float = 1.0) -> list[Delivery]:
        """The next events in order; empty if none arrives in time or another consumer has them.

        After a crash, or ``close`` without a commit, the next consumer receives them again.

        Raises:
            StorageError: the log is not reached.
        """

    @abstractmethod
    def commit(self) -> None:
        """Mark all polled events as handled or rejected.

        Raises:
            StorageError: the log is not reached, or another consumer has taken over; the polled
                events will be delivered again.
        """

    @abstractmethod
    def reject(self, delivery: Delivery, reason: str) -> None:
        """Store a polled event durably as a dead letter; ``commit`` then skips it."""

    @abstractmethod
    def close(self) -> None:
        """Leave the group; other consumers receive the uncommitted events at once."""

    def __enter__(self) -> Consumer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Log(ABC):
    """Events of one tenant; safe for threads and processes."""

    name: ClassVar[str]
    schemes: ClassVar[tuple[str, ...]]

    @classmethod
    @abstractmethod
    def open(cls, url: str | None, config: Config) -> Log:
        """The log of a URL (None: the local one); connects at first use."""

    @abstractmethod
    def append(self, events: Sequence[Event], *, relayed: bool = False) -> int:
        """Store events durably; returns how many were new, as far as the log can tell.

        A caller may append a batch that raised again.

        Args:
            relayed: the events come from another log. A live log marks them, so that none is sent
                back, and accepts them at any backlog.

        Raises:
            LogFullError: too many events wait for a group; try again later.
            StorageError: the log is not reached or refuses.
        """

    @abstractmethod
    def read(
        self, after: Position = BEGINNING, limit: int | None = None
    ) -> Iterator[tuple[Position, Event]]:
        """Positions and events after a position, the events of each user in order.

        Skips bodies that this version cannot read.

        Raises:
            LiveStateError: the log cannot be read.
        """

    @abstractmethod
    def last_position(self) -> Position:
        """Position of the latest event; ``BEGINNING`` without events."""

    @abstractmethod
    def consumer(self, group: str) -> Consumer:
        """A new member of a group; a new group starts at the first event."""

    @abstractmethod
    def lag(self, group: str) -> Lag:
        """How far a group is behind."""

    @abstractmethod
    def groups(self) -> list[str]:
        """Names of the groups that have committed or are reading."""

    @abstractmethod
    def rewind(self, group: str, since_micros: int) -> None:
        """Deliver all events that are not older than an event time to a group again."""

    @abstractmethod
    def dead_letters(self) -> list[DeadLetter]:
        """Dead letters of all groups, oldest first."""

    @abstractmethod
    def close(self) -> None:
        """Close connections; a later call connects again."""


class LiveLog(Log):
    """A log with one order for all processes; each process sees every event before it answers."""

    @abstractmethod
    def changes(self, *, quick: bool = False) -> object:
        """A value that changes when any process stores events.

        A call that begins after any process' ``append`` has returned sees its events.

        Args:
            quick: for calls at every request; checks the health of the log less often.

        Raises:
            LiveStateError: the log cannot be read.
        """

    @abstractmethod
    def generation(self) -> object:
        """A value that changes when events are erased or the log is replaced."""

    @abstractmethod
    def drop(self, group: str) -> None:
        """Delete a group, so that no event waits for it; its dead letters stay."""

    @abstractmethod
    def purge(self, doomed: Sequence[Position]) -> None:
        """Erase events by position, with every byte of them.

        Raises:
            StorageError: the log refuses.
        """


def log_classes() -> dict[str, type[Log]]:
    """All log classes by name."""
    import_modules("nextedge.events.logs")
    return named_subclasses(Log)  # type: ignore[type-abstract]


def open_log(url: str | None, config: Config) -> Log:
    """Open the log of a URL; None is the local one, in the state folder.

    Raises:
        ConfigError: no log has URLs of this scheme, or the URL cannot be parsed.
        MissingDependencyError: the log needs a package that is not installed.
    """
    scheme = "local" if url is None else url.split("://", 1)[0] if "://" in url else ""
    schemes = {scheme: cls for cls in log_classes().values() for scheme in cls.schemes}
    if scheme not in schemes:
        raise ConfigError(
            f"events: no log has URLs of {scheme + '://' if scheme else 'no scheme'!r}; "
            f"{nearest(scheme, schemes)}, each followed by ://"
        )
    return schemes[scheme].open(url, config)


def open_live_log(config: Config) -> LiveLog:
    """Open the live log of a tenant, as configured in ``[events] log``."""
    log = open_log(config.events.log, config)
    if not isinstance(log, LiveLog):
        raise ConfigError(
            f"events.log: {log.name} keeps no order that every process sees at once; give it as "
            "events.broker, and as events.log a redis:// URL or nothing"
        )
    return log
