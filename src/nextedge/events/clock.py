"""The clock that stamps events without a time.

It never goes back: a stamp is the system's time, or one microsecond after the latest stamp given or
read from the log, whichever is later. So a system clock that is set back reorders no events.
"""

from __future__ import annotations

import threading
import time


class Clock:
    """Increasing stamps in microseconds since 1970 UTC; safe for threads."""

    def __init__(self) -> None:
        self._latest = -(2**63)
        self._lock = threading.Lock()

    def now(self) -> int:
        """The system's time, or the latest stamp if it is later."""
        return max(time.time_ns() // 1000, self._latest)

    def observe(self, micros: int) -> None:
        """Make every later stamp greater than this one."""
        with self._lock:
            self._latest = max(self._latest, micros)

    def stamp(self) -> int:
        """A new stamp for an event without a time."""
        with self._lock:
            self._latest = max(time.time_ns() // 1000, self._latest + 1)
            return self._latest
