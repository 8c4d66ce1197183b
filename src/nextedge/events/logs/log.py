"""What every event log does: append durably, read in order, deliver to groups of consumers.

A *live log* is one that every process of a tenant folds into its overlay before it answers: the
local log, or Redis Streams. A *broker* (Kafka) carries events between systems; what arrives there
is appended to the live log, and what is recorded here goes there, each at least once. An event id
counts once in a live log, so that a repeated delivery changes nothing.

A group of consumers shares the events: one of its consumers has a part of the log at a time, in
order, until it commits, closes, or is silent for the lease; then another goes on from the last
commit. The events of one user are never with two consumers.
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
"""Where an event stands in its log: opaque text, of that log alone."""
BEGINNING: Position = ""
"""Before the first event."""


@dataclass(frozen=True)
class Delivery:
    """One event as a consumer has it.

    Attributes:
        position: where it stands.
        body: as it was stored.
        event: None where the body is none that this version can read.
        fault: why not.
        relayed: whether it was appended as one that came from another log.
    """

    position: Position
    body: bytes
    event: Event | None
    fault: str | None = None
    relayed: bool = False

    @classmethod
    def of(cls, position: Position, body: bytes, *, relayed: bool = False) -> Delivery:
        """An event by its body, or what is wrong with it."""
        try:
            return cls(position, body, parse_event(json.loads(body)), None, relayed)
        except (EventError, ValueError, TypeError, OverflowError, RecursionError) as error:
            return cls(position, body, None, str(error) or type(error).__name__, relayed)


Bury = Callable[[str, Delivery, str], None]
"""Keeps a delivery of a group as a dead letter, with the reason."""


@dataclass(frozen=True)
class DeadLetter:
    """An event that a group gave up, and why."""

    group: str
    position: Position
    body: bytes
    reason: str
    micros: int
    """When it was given up."""


@dataclass(frozen=True)
class Lag:
    """How far a group is behind: events not yet committed, and the age of the oldest in seconds."""

    events: int
    seconds: float


class Consumer(ABC):
    """One member of a group; used by one thread, and as a context manager."""

    @abstractmethod
    def poll(self, limit: int = 1000, timeout_seconds: float = 1.0) -> list[Delivery]:
        """The next events, in order; none when there are none in time, or others have them.

        After a crash or ``close`` without a commit they come again, to whoever has the part then.

        Raises:
            StorageError: the log is not reached.
        """

    @abstractmethod
    def commit(self) -> None:
        """All that was polled is done, or rejected.

        Raises:
            StorageError: the log is not reached, or the part has gone to another consumer
                meanwhile; what was polled will be delivered again.
        """

    @abstractmethod
    def reject(self, delivery: Delivery, reason: str) -> None:
        """Keep an event that was polled as a dead letter, durably; ``commit`` then passes it."""

    @abstractmethod
    def close(self) -> None:
        """Leave the group; what was not committed goes to the others at once."""

    def __enter__(self) -> Consumer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Log(ABC):
    """Events of one tenant; safe for several threads and processes."""

    name: ClassVar[str]
    schemes: ClassVar[tuple[str, ...]]
    """What its URLs begin with."""

    @classmethod
    @abstractmethod
    def open(cls, url: str | None, config: Config) -> Log:
        """A log by its URL; the local one has none."""

    @abstractmethod
    def append(self, events: Sequence[Event], *, relayed: bool = False) -> int:
        """Store events durably; returns how many were new, as far as the log can tell.

        All or none of the batch is stored where the log can promise it; a batch that raised may be
        appended again.

        Args:
            relayed: they come from another log. A live log remembers it of each, so that none is
                sent back, and takes them whatever waits.

        Raises:
            LogFullError: so many wait for their consumers that no more are taken; try later.
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
        """Names of the groups that have committed anything, or are reading."""

    @abstractmethod
    def rewind(self, group: str, since_micros: int) -> None:
        """Let a group have all events again that are not older (event time) than so."""

    @abstractmethod
    def dead_letters(self) -> list[DeadLetter]:
        """What groups gave up, oldest first."""

    @abstractmethod
    def close(self) -> None:
        """Let go of connections; a later call connects anew."""


class LiveLog(Log):
    """A log in one order for all, whose changes every process sees before it answers."""

    @abstractmethod
    def changes(self, *, quick: bool = False) -> object:
        """Differs whenever anyone, in this process or another, has stored events since.

        An event whose ``append`` has returned anywhere is seen by every later call.

        Args:
            quick: called at every request; what is not the events' own may be looked at less often.

        Raises:
            LiveStateError: it cannot be known.
        """

    @abstractmethod
    def generation(self) -> object:
        """Differs when events that were read have been taken out since, or the log replaced."""

    @abstractmethod
    def drop(self, group: str) -> None:
        """Forget how far a group is, so that nothing waits for it; its dead letters stay."""

    @abstractmethod
    def purge(self, doomed: Sequence[Position]) -> None:
        """Take events out by position, with every byte of theirs.

        Raises:
            StorageError: the log refuses.
        """


def log_classes() -> dict[str, type[Log]]:
    """All logs there are, by name."""
    import_modules("nextedge.events.logs")
    return named_subclasses(Log)  # type: ignore[type-abstract]


def open_log(url: str | None, config: Config) -> Log:
    """The log that a URL names; None is the local one, in the state folder.

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
