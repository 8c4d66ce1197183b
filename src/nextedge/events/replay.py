"""Replay: fold the log anew, let every group of consumers have events again, and compare."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from nextedge.errors import InputError
from nextedge.events.logs.log import LiveLog, Position
from nextedge.events.state.checkpoint import Checkpoints, canonical
from nextedge.events.state.overlay import Overlay

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class EventsReplayed:
    """What a replay did.

    Attributes:
        since_micros: the event time that consumers begin at.
        events: those that are replayed, by type.
        groups: the groups of consumers that have them again.
        snapshots_dropped: snapshots of the overlay that were made after it.
        folded: events that were folded anew.
        equal: whether the state is the one from before.
    """

    since_micros: int
    events: dict[str, int]
    groups: list[str]
    snapshots_dropped: int
    folded: int
    equal: bool

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        since = _EPOCH + timedelta(microseconds=self.since_micros)
        return {"since": since.isoformat(), **asdict(self)}


def replay_events(
    log: LiveLog, snapshots: Checkpoints, make: Callable[[], Overlay], since: str
) -> EventsReplayed:
    """Fold the log anew and rewind its consumers.

    Args:
        make: an empty overlay of the log that begins with the newest snapshot.
        since: a time as ``2026-01-31`` or ``2026-01-31T12:00:00+01:00``, or a position of the log.

    Raises:
        InputError: it is neither.
        LiveStateError, StorageError: the log or the folder cannot be read or written.
    """
    micros, later = _since(log, since)
    before = make()
    before.catch_up()
    counts: Counter[str] = Counter()
    for position, event in log.read():
        if event.micros >= micros if later is None else position in later:
            counts[event.type] += 1
    with snapshots.lock():
        dropped = snapshots.drop(
            lambda header: header.micros >= micros if later is None else header.position in later
        )
        after = make()
        after.catch_up()
        equal = canonical(after) == canonical(before)
        snapshots.write(after)
    groups = log.groups()
    for group in groups:
        log.rewind(group, micros)
    events = dict(sorted(counts.items()))
    return EventsReplayed(micros, events, groups, dropped, after.folded, equal)


def _since(log: LiveLog, given: str) -> tuple[int, set[Position] | None]:
    """The earliest event time to replay, and the positions after the one that was given, if any."""
    try:
        time = datetime.fromisoformat(given)
    except ValueError:
        time = None
    if time is not None and not given.isdigit():
        time = time if time.tzinfo else time.replace(tzinfo=UTC)
        return (time - _EPOCH) // timedelta(microseconds=1), None
    found, later, earliest = False, set(), None
    for position, event in log.read():
        if found:
            later.add(position)
            earliest = event.micros if earliest is None else min(earliest, event.micros)
        found = found or position == given
    if not found:
        raise InputError(
            f"--since {given}: neither a time, as 2026-01-31T12:00:00Z, nor a position of an event "
            "in the log"
        )
    if earliest is None:
        raise InputError(f"--since {given}: nothing was recorded after it; give an earlier one")
    return earliest, later
