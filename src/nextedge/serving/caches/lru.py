"""A bounded cache in the process: least recently used goes first, nothing lives past its time."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Cache(Generic[Value]):
    """At most ``size`` values, each for at most ``seconds``; safe for threads. Size 0 keeps none."""

    def __init__(self, size: int, seconds: float) -> None:
        self.size = size
        self.seconds = seconds
        self._values: OrderedDict[Hashable, tuple[float, Value]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Value | None:
        """The value of a key, or None."""
        with self._lock:
            kept = self._values.get(key)
            if kept is None:
                return None
            if kept[0] < time.monotonic():
                del self._values[key]
                return None
            self._values.move_to_end(key)
            return kept[1]

    def counts(self) -> Mapping[str, int]:
        """What became of reads and writes of a store behind it: there is none."""
        return {}

    def clear(self) -> None:
        """Let go of everything."""
        with self._lock:
            self._values.clear()

    def put(self, key: Hashable, value: Value, seconds: float | None = None) -> None:
        """Keep a value, for less than the cache's own time if so said; the least recently used go."""
        if self.size <= 0:
            return
        with self._lock:
            lives = self.seconds if seconds is None else min(seconds, self.seconds)
            self._values[key] = time.monotonic() + lives, value
            self._values.move_to_end(key)
            while len(self._values) > self.size:
                self._values.popitem(last=False)

    def drop(self, matches: Callable[[Hashable], bool]) -> None:
        """Forget the values of all keys that match."""
        with self._lock:
            for key in [key for key in self._values if matches(key)]:
                del self._values[key]

    def close(self) -> None:
        """Let go of what is held outside the process: nothing."""
