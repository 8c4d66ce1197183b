"""A bounded cache in the process, with least-recently-used eviction and a lifetime."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Cache(Generic[Value]):
    """At most ``size`` values, each for at most ``seconds``; safe for threads. Size 0 caches none."""

    def __init__(self, size: int, seconds: float) -> None:
        self.size = size
        self.seconds = seconds
        self._values: OrderedDict[Hashable, tuple[float, Value]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Value | None:
        """The value of a key, or None."""
        with self._lock:
            entry = self._values.get(key)
            if entry is None:
                return None
            if entry[0] < time.monotonic():
                del self._values[key]
                return None
            self._values.move_to_end(key)
            return entry[1]

    def counts(self) -> Mapping[str, int]:
        """The numbers of reads and writes of the store behind the cache, by outcome."""
        return {}

    def clear(self) -> None:
        """Remove all values."""
        with self._lock:
            self._values.clear()

    def put(self, key: Hashable, value: Value, seconds: float | None = None) -> None:
        """Cache a value, for at most ``seconds``, and evict the least recently used ones."""
        if self.size <= 0:
            return
        with self._lock:
            lives = self.seconds if seconds is None else min(seconds, self.seconds)
            self._values[key] = time.monotonic() + lives, value
            self._values.move_to_end(key)
            while len(self._values) > self.size:
                self._values.popitem(last=False)

    def drop(self, matches: Callable[[Hashable], bool]) -> None:
        """Remove the values of all keys that match."""
        with self._lock:
            for key in [key for key in self._values if matches(key)]:
                del self._values[key]

    def close(self) -> None:
        """Close the store behind the cache."""
