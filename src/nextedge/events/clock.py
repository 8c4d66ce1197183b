"""The clock that stamps events without a time; it never goes back.

A hybrid logical clock: the system's time, or one microsecond after the latest stamp that it gave
or saw in the log, whichever is later. So a system clock that is set back reorders no events.
"""

from __future__ import annotations

import threading
import time


class Clock:
    """Stamps in microseconds since 1970 UTC, each later than the one before; safe for threads."""

    def __init__(self) -> None:
        self._latest = -(2**63)
        self._lock = threading.Lock()

    def now(self) -> int:
        """The system's time, or the latest stamp where the system's clock is behind it."""
        return max(time.time_ns() // 1000, self._latest)

    def observe(self, micros: int) -> None:
        """Make every later stamp greater than this one."""
        with self._lock:
            self._latest = max(self._latest, micros)

    def stamp(self) -> int:
        """The time of an event that has none."""
        with self._lock:
            self._latest = max(time.time_ns() // 1000, self._latest + 1)
            return self._latest
