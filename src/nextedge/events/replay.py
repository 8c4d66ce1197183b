"""Replay: fold the log again, rewind every consumer group, and compare the states."""

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
    """The outcome of a replay.

    Attributes:
        since_micros: event time at which consumers start again.
        events: number of replayed events by type.
        groups: the consumer groups that were rewound.
        snapshots_dropped: deleted checkpoints, which were later than that time.
        folded: events that were folded again.
        equal: whether the state is the same as before.
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
    log: LiveLog, checkpoints: Checkpoints, make: Callable[[], Overlay], since: str
) -> EventsReplayed:
    """Fold the log again and rewind its consumers.

    Args:
        make: makes an empty overlay of the log, which begins with the newest checkpoint.
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
    with checkpoints.lock():
        dropped = checkpoints.drop(
            lambda header: header.micros >= micros if later is None else header.position in later
        )
        after = make()
        after.catch_up()
        equal = canonical(after) == canonical(before)
        checkpoints.write(after)
    groups = log.groups()
    for group in groups:
        log.rewind(group, micros)
    events = dict(sorted(counts.items()))
    return EventsReplayed(micros, events, groups, dropped, after.folded, equal)


def _since(log: LiveLog, since: str) -> tuple[int, set[Position] | None]:
    """Earliest event time to replay; for a position, also the positions after it."""
    try:
        time = datetime.fromisoformat(since)
    except ValueError:
        time = None
    if time is not None and not since.isdigit():  # 20260131 is a position, though ISO reads it
        time = time if time.tzinfo else time.replace(tzinfo=UTC)
        return (time - _EPOCH) // timedelta(microseconds=1), None
    passed, later, earliest = False, set(), None
    for position, event in log.read():
        if passed:
            later.add(position)
            earliest = event.micros if earliest is None else min(earliest, event.micros)
        passed = passed or position == since
    if not passed:
        raise InputError(
            f"--since {since}: neither a time, as 2026-01-31T12:00:00Z, nor a position of an event "
            "in the log"
        )
    if earliest is None:
        raise InputError(f"--since {since}: nothing was recorded after it; give an earlier one")
    return earliest, later
