"""The contract of event logs: append durably, read in order, deliver to groups of consumers.

A *live log* is one that every process of a tenant folds into its overlay before it answers: the
local log, or Redis Streams. A *broker* (Kafka) carries events between systems: its events are
appended to the live log, and recorded events are sent to it, each at least once. An event id counts
once in a live log, so that a repeated delivery changes nothing.

A group of consumers shares the events. One consumer has a part of the log at a time, in order,
until it commits, closes, or is silent for the lease; then another goes on from the last commit.
Two consumers never have events of one user at the same time.
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
"""The position of an event: opaque text that only its log can read."""
BEGINNING: Position = ""
"""The position before the first event."""


@dataclass(frozen=True)
class Delivery:
    """One event as a consumer gets it.

    Attributes:
        body: as it was stored.
        event: None where this version cannot read the body.
        fault: why it cannot.
        relayed: whether it came from another log.
    """

    position: Position
    body: bytes
    event: Event | None
    fault: str | None = None
    relayed: bool = False

    @classmethod
    def of(cls, position: Position, body: bytes, *, relayed: bool = False) -> Delivery:
        """The event of a body, or its fault."""
        try:
            return cls(position, body, parse_event(json.loads(body)), None, relayed)
        except (EventError, ValueError, TypeError, OverflowError, RecursionError) as error:
            return cls(position, body, None, str(error) or type(error).__name__, relayed)


Bury = Callable[[str, Delivery, str], None]
"""Keeps a delivery of a group as a dead letter, with the reason."""


@dataclass(frozen=True)
class DeadLetter:
    """An event that a group gave up, and the reason."""

    group: str
    position: Position
    body: bytes
    reason: str
    micros: int
    """The time at which it was given up."""


@dataclass(frozen=True)
class Lag:
    """How far a group is behind: events not yet committed, and the age of the oldest in seconds."""

    events: int
    seconds: float


class Consumer(ABC):
    """One member of a group; used by one thread, and as a context manager."""

    @abstractmethod
    def poll(self, limit: int = 1000, timeout_seconds: float = 1.0) -> list[Delivery]:
        """The next events, in order; empty where none comes in time, or another consumer has them.

        After a crash or ``close`` without a commit they come again, to the next consumer of the part.

        Raises:
            StorageError: the log is not reached.
        """

    @abstractmethod
    def commit(self) -> None:
        """Mark all polled events as handled or rejected.

        Raises:
            StorageError: the log is not reached, or another consumer has the part meanwhile; the
                polled events will be delivered again.
        """

    @abstractmethod
    def reject(self, delivery: Delivery, reason: str) -> None:
        """Keep a polled event as a dead letter, durably; ``commit`` then passes it."""

    @abstractmethod
    def close(self) -> None:
        """Leave the group; uncommitted events go to the other consumers at once."""

    def __enter__(self) -> Consumer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Log(ABC):
    """Events of one tenant; safe for several threads and processes."""

    name: ClassVar[str]
    schemes: ClassVar[tuple[str, ...]]
    """Schemes of its URLs."""

    @classmethod
    @abstractmethod
    def open(cls, url: str | None, config: Config) -> Log:
        """A log by its URL, None for the local one; connects at the first use."""

    @abstractmethod
    def append(self, events: Sequence[Event], *, relayed: bool = False) -> int:
        """Store events durably; returns how many were new, as far as the log can tell.

        A batch that raised may be appended again. Logs that can store all of a batch or none do.

        Args:
            relayed: the events come from another log. A live log marks them, so that none is sent
                back, and takes them however many wait.

        Raises:
            LogFullError: too many events wait for a group; try later.
            StorageError: the log is not reached or refuses.
        """

    @abstractmethod
    def read(
        self, after: Position = BEGINNING, limit: int | None = None
    ) -> Iterator[tuple[Position, Event]]:
        """Events after a position with their positions, those of one user in order.

        Bodies that this version cannot read are left out.

        Raises:
            LiveStateError: the log cannot be read.
        """

    @abstractmethod
    def last_position(self) -> Position:
        """Position of the latest event; ``BEGINNING`` when there is none."""

    @abstractmethod
    def consumer(self, group: str) -> Consumer:
        """A new member of a group; a new group begins at the first event."""

    @abstractmethod
    def lag(self, group: str) -> Lag:
        """How far a group is behind."""

    @abstractmethod
    def groups(self) -> list[str]:
        """Names of the groups that have committed, or are reading."""

    @abstractmethod
    def rewind(self, group: str, since_micros: int) -> None:
        """Deliver again to a group all events that are not older than an event time."""

    @abstractmethod
    def dead_letters(self) -> list[DeadLetter]:
        """Events that groups gave up, oldest first."""

    @abstractmethod
    def close(self) -> None:
        """Close connections; a later call connects anew."""


class LiveLog(Log):
    """A log in one order for all, of which every process sees each event before it answers."""

    @abstractmethod
    def changes(self, *, quick: bool = False) -> object:
        """A value that differs once any process has stored events.

        Every call that begins after an ``append`` has returned anywhere sees its events.

        Args:
            quick: for calls at every request; checks the health of the log less often.

        Raises:
            LiveStateError: it cannot be known.
        """

    @abstractmethod
    def generation(self) -> object:
        """A value that differs once events were taken out, or the log was replaced."""

    @abstractmethod
    def drop(self, group: str) -> None:
        """Forget the position of a group, so that nothing waits for it; its dead letters stay."""

    @abstractmethod
    def purge(self, doomed: Sequence[Position]) -> None:
        """Take events out by position, with every byte of them.

        Raises:
            StorageError: the log refuses.
        """


def log_classes() -> dict[str, type[Log]]:
    """All log classes, by name."""
    import_modules("nextedge.events.logs")
    return named_subclasses(Log)  # type: ignore[type-abstract]


def open_log(url: str | None, config: Config) -> Log:
    """The log of a URL; None is the local one, in the state folder.

    Raises:
        ConfigError: no log has such URLs, or the URL cannot be read.
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
    """The live log of a tenant, as ``[events] log`` says."""
    log = open_log(config.events.log, config)
    if not isinstance(log, LiveLog):
        raise ConfigError(
            f"events.log: {log.name} keeps no order that every process sees at once; give it as "
            "events.broker, and as events.log a redis:// URL or nothing"
        )
    return log
