"""A circuit breaker: stop calling a service for a while after repeated failures."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Literal

State = Literal["closed", "open", "half-open"]


class CircuitBreaker:
    """Opens after ``failures`` in a row; after ``seconds`` one call at a time tries again."""

    def __init__(
        self, failures: int = 5, seconds: float = 5.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.failures = failures
        self.seconds = seconds
        self.opened = 0  # how often the breaker has opened
        self._clock = clock
        self._failed_in_a_row = 0
        self._until: float | None = None
        self._lock = threading.Lock()

    @property
    def state(self) -> State:
        """``closed``: all calls pass; ``open``: none; ``half-open``: the next call tries."""
        until = self._until
        if until is None:
            return "closed"
        return "open" if self._clock() < until else "half-open"

    def allows(self) -> bool:
        """Whether a call may be made now; after True, call ``succeeded`` or ``failed``."""
        if self._until is None:
            return True
        with self._lock:
            now = self._clock()
            if self._until is None or now < self._until:
                return self._until is None
            self._until = now + self.seconds  # other calls wait for the outcome of this one
            return True

    def succeeded(self) -> None:
        """Record an answered call."""
        if self._failed_in_a_row or self._until is not None:
            with self._lock:
                self._failed_in_a_row, self._until = 0, None

    def failed(self) -> None:
        """Record a call without an answer."""
        with self._lock:
            self._failed_in_a_row += 1
            if self._failed_in_a_row >= self.failures:
                self.opened += self._until is None
                self._until = self._clock() + self.seconds
