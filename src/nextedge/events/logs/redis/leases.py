"""Leases, by which replicas see every event without a round trip.

A *replica* is a process that answers requests. Its follower thread holds a lease: it registers
under a name and renews repeatedly. Redis answers a renewal with the current state of the log. While
the lease lasts, ``changes`` answers from memory. Afterwards the replica asks Redis; if that fails,
it recommends nothing.

**An acknowledged event is seen.** Let an append be stored at time S, and let a call of ``changes``
begin after the append has returned. The append returns only when each registered replica has
confirmed a position not before its own, or ``WAITED`` seconds after S. If the replica has confirmed,
it had taken the position over before it said so, and never falls back. If it has not, its state of
before S came with a renewal that Redis ran before S and that was sent even earlier. Its lease counts
from before the renewal was sent, so it ends before S + ``LEASE``, and the append has waited longer.
A renewal that Redis ran after S returns the event; one assignment replaces state and end of lease.

**No registration, no lease.** The first renewal registers, and only its answer begins the lease. If
Redis lost the registrations (a restart without data, FLUSHALL, a failover), the run id of the server
or the id of the log is another one: another *home*. A process' first append to a home waits until
the process has known the home for ``WAITED`` seconds: leases of the home before have ended by then.

**Clocks.** Only durations are measured, by a clock of one machine that never goes back and that
counts while the machine sleeps. Times of two machines are never compared. ``WAITED`` is a ninth
longer than ``LEASE``: the clock of the appending machine may be that much faster.

**Pauses.** A process may stop at any point. If it stops after ``changes`` has returned, its answer
belongs to a call that began earlier; the promise covers only calls that begin after the append has
returned. If it stops for long, its lease has ended when it continues. Not covered: a machine whose
clock stands still while it is paused (a restored memory image), and two servers that both act as
the primary.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from nextedge.errors import StorageError, StoreError
from nextedge.events.logs.redis.stream import RedisStream, State

LEASE = 0.9  # seconds for which a replica answers by the state of its last renewal
WAITED = 1.0  # seconds that an append waits at most for a replica that does not confirm
_RENEWED = 0.25  # seconds between renewals without events: several fit into one lease
_AGAIN = 0.1  # seconds before the next attempt after a failed renewal
_SHORTEST, _LONGEST = 0.0005, 0.005  # seconds between two checks of confirmations
_log = logging.getLogger("nextedge.events")

# Linux' monotonic clock stands still while the machine sleeps, and a lease must not
now: Callable[[], float] = (
    partial(time.clock_gettime, time.CLOCK_BOOTTIME)
    if hasattr(time, "CLOCK_BOOTTIME")
    else time.monotonic
)


@dataclass(frozen=True, slots=True)
class Known:
    """A state of the log, and the time until which a replica may answer by it."""

    until: float
    state: State
    generation: object
    changes: object


class Follower:
    """The thread of a replica that waits for events and holds its lease."""

    def __init__(self, stream: RedisStream, known: Callable[[State, float], Known]) -> None:
        self.known: Known | None = None  # replaced as a whole: no thread reads half of it
        self.name = uuid.uuid4().hex
        self._stream = stream
        self._read = known
        self._renewals = 0
        self._lost = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="nextedge-events", daemon=True)
        self._thread.start()

    def fresh(self) -> Known | None:
        """The known state if the lease lasts, else None."""
        known = self.known  # read before the clock: a later state holds longer
        return known if known is not None and now() < known.until else None

    def close(self) -> None:
        """End the lease, then remove its registration."""
        self._stop.set()
        self._thread.join()

    def _follow(self) -> None:
        while not self._stop.is_set():
            try:
                self._renew()
                self._lost = False
            except StoreError as error:
                if not self._lost:
                    _log.warning("events.log: every request asks until it is back: %s", error)
                self._lost = True
                self._stop.wait(_AGAIN)
        self.known = None
        with contextlib.suppress(StoreError):  # then appends wait for it once, and evict it
            self._stream.evict([self.name.encode(), b"%d" % self._renewals])

    def _renew(self) -> None:
        """Confirm the known state and take the current one; if equal, wait for an event."""
        seen = None if self.known is None else self.known.state
        self._renewals += 1
        sent = now()  # before the call: a lease must not outlast what Redis knew then
        state = self._stream.renew(self.name, self._renewals, seen)
        self.known = self._read(state, sent + LEASE)
        if state != seen:
            return
        last = self._stream.wait_for_event(state.last, _RENEWED)
        if last is not None:
            self.known = self._read(replace(state, last=last), sent + LEASE)


class Homes:
    """Times at which this process first met each home."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}

    def meet(self, home: str) -> float:
        """Seconds until the leases of earlier homes have ended."""
        return self._since.setdefault(home, now()) + WAITED - now()


def wait_for_replicas(
    stream: RedisStream, state: State, laggards: list[bytes], stored: float
) -> None:
    """Return when no replica can answer without the stored events.

    Args:
        laggards: names and renewals of replicas that had not seen them.
        stored: a time after they were stored.

    Raises:
        StorageError: Redis is not reached, or another one answers; the same may be appended again.
    """
    first = dict(zip(laggards[::2], laggards[1::2], strict=True))
    pause = _SHORTEST
    while laggards and (left := stored + WAITED - now()) > 0:
        time.sleep(min(pause, left))
        pause = min(pause * 1.5, _LONGEST)
        current, laggards = stream.laggards(state)
        if current.home != state.home:
            raise StorageError(
                f"{stream.public_url}: was started again while events were stored; send them again"
            )
    # a replica without a renewal since holds no lease; one with a renewal is only slow
    gone = [part for name in laggards[::2] if name in first for part in (name, first[name])]
    if gone:
        stream.evict(gone)
