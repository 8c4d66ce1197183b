"""Leases, by which replicas know of every event without a round trip.

A *replica* is a process that answers requests. Its follower thread holds a lease: it registers
under a name and renews, again and again. Redis answers a renewal with the log's state as of then.
While the lease holds, ``changes`` is answered from memory. Afterwards the replica asks Redis; where
that fails, it recommends nothing.

**An event that is acknowledged is seen.** Say an append is stored at the moment S, and a call of
``changes`` begins after the append has returned. The append returns only when each registered
replica has confirmed a position not before its own, or ``WAITED`` seconds after S. If the replica
has confirmed, it had taken the position over before it said so, and never falls back. If it has
not, whatever it holds of before S came with a renewal that Redis ran before S and that was sent
earlier still. Its lease is counted from before it was sent and ends ``LEASE`` after, so before
S + ``LEASE``, and the append has waited longer. A renewal that Redis ran after S tells of the event,
and the state and the new end of the lease are taken over in one assignment.

**Without a registration there is no lease.** The first renewal registers, and only its answer begins
the lease. If Redis forgot who was registered (it was started again without its data, emptied, or a
copy of it took over), it has another run id, or the log another id. The first append to such a home
that a process makes waits until the home is ``WAITED`` old to that process: leases of the home
before have ended by then.

**Clocks.** Only how long something takes is measured, by one machine's clock that never goes back
and that counts while the machine sleeps. No two machines' times are compared, and no lease is by
the time of day, Redis' included. ``WAITED`` is a ninth longer than ``LEASE``: so much faster may
the clock of who appends be than that of a replica.

**Pauses.** A process may be stopped at any point. If it is stopped after ``changes`` has looked,
what it sends later is an answer whose call began before. What is promised is of answers whose call
of ``changes`` began after the append returned, and of nothing else. If it is stopped for long, its
lease is over when it goes on. Not covered: a machine whose clock stands still while it is paused
(a resumed copy of its memory), and two servers that both take themselves for the one that writes.
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

LEASE = 0.9
"""Seconds for which a replica answers by the state of its last renewal."""
WAITED = 1.0
"""Seconds that an append waits at most for a replica that does not confirm."""
_RENEWED = 0.25
"""Seconds after which a replica renews its lease where there is no event."""
_AGAIN = 0.1
"""Seconds after which a follower that had no answer asks again."""
_SHORTEST, _LONGEST = 0.0005, 0.005
"""Seconds between two looks at which replicas have confirmed."""
_log = logging.getLogger("nextedge.events")

now: Callable[[], float] = (
    partial(time.clock_gettime, time.CLOCK_BOOTTIME)
    if hasattr(time, "CLOCK_BOOTTIME")
    else time.monotonic
)
"""Seconds of a clock that never goes back, nor stands still while the machine sleeps."""


@dataclass(frozen=True, slots=True)
class Known:
    """A state that a replica may answer by, and until when."""

    until: float
    state: State
    generation: object
    changes: object


class Follower:
    """The thread of a replica that waits for events and holds its lease."""

    def __init__(self, stream: RedisStream, known: Callable[[State, float], Known]) -> None:
        self.known: Known | None = None
        """Replaced as a whole, so that no thread reads half of it."""
        self.name = uuid.uuid4().hex
        self._stream = stream
        self._read = known
        self._renewals = 0
        self._lost = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="nextedge-events", daemon=True)
        self._thread.start()

    def fresh(self) -> Known | None:
        """The known state, if the lease holds now."""
        known = self.known  # read before the clock: a later state holds longer
        return known if known is not None and now() < known.until else None

    def close(self) -> None:
        """End the lease, then tell Redis."""
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
        """Confirm the known state and get that of now; where both are the same, wait for an event."""
        seen = None if self.known is None else self.known.state
        self._renewals += 1
        sent = now()
        state = self._stream.renew(self.name, self._renewals, seen)
        self.known = self._read(state, sent + LEASE)
        if state != seen:
            return
        last = self._stream.wait_for_event(state.last, _RENEWED)
        if last is not None:
            self.known = self._read(replace(state, last=last), sent + LEASE)


class Homes:
    """The times since which this process knows the homes that it has appended to, or read."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}

    def meet(self, home: str) -> float:
        """Seconds until leases of any home before have ended."""
        return self._since.setdefault(home, now()) + WAITED - now()


def wait_for_replicas(
    stream: RedisStream, state: State, laggards: list[bytes], stored: float
) -> None:
    """Return when no replica can answer without what has been stored.

    Args:
        laggards: names and renewals of replicas that had not seen it.
        stored: a time after it was stored.

    Raises:
        StorageError: Redis is not reached, or another one answers; the same may be appended again.
    """
    first = dict(zip(laggards[::2], laggards[1::2], strict=True))
    pause = _SHORTEST
    while laggards and (left := stored + WAITED - now()) > 0:
        time.sleep(min(pause, left))
        pause = min(pause * 1.5, _LONGEST)
        found, laggards = stream.laggards(state)
        if found.home != state.home:
            raise StorageError(
                f"{stream.public_url}: was started again while events were stored; send them again"
            )
    # a replica without a renewal since holds no lease; one with a renewal is only slow
    gone = [part for name in laggards[::2] if name in first for part in (name, first[name])]
    if gone:
        stream.evict(gone)
