"""The request quota of a tenant: a token bucket that the workers of a machine share.

The bucket is one number, the time at which it is full again. A request passes while that time is
at most ``burst`` intervals ahead, and moves it by one interval (the generic cell rate algorithm).
"""

from __future__ import annotations

import contextlib
import math
import mmap
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from nextedge.config import ServingConfig

_TIME = struct.Struct("d")


class Quota:
    """The requests of one tenant.

    Args:
        settings: ``requests_per_second`` (0 = unlimited) and ``burst``.
        path: a file that the workers share; None without others. One thread of a process may call
            ``wait`` at a time.
    """

    def __init__(self, settings: ServingConfig, path: Path | None = None) -> None:
        self._file: BinaryIO | None = None
        self.unlimited = settings.requests_per_second == 0
        if self.unlimited:
            return
        self.interval = 1 / settings.requests_per_second
        # a burst of 0 would pass no request at all
        self.burst = settings.burst or max(1, math.ceil(settings.requests_per_second))
        if path is None:
            self._memory = mmap.mmap(-1, _TIME.size)
            return
        # this mode creates the file, and keeps what another worker has written
        self._file = path.open("a+b")
        with self._locked():
            # under the lock: a worker that starts later must not fill the bucket again
            if not path.stat().st_size:
                self._file.write(_TIME.pack(0.0))
                self._file.flush()
        self._memory = mmap.mmap(self._file.fileno(), _TIME.size)

    def wait(self, now: float | None = None) -> float:
        """Seconds until a request may pass; 0.0 passes this one, and charges it.

        Args:
            now: of the clock that all processes of the machine share.
        """
        if self.unlimited:
            return 0.0
        # all processes of a machine share this clock, and nobody sets it back
        now = time.monotonic() if now is None else now
        with self._locked():
            (full,) = _TIME.unpack_from(self._memory)
            # an idle tenant saves up no more than a full bucket
            next_full = max(full, now) + self.interval
            early = next_full - now - self.burst * self.interval
            if early > self.interval * 1e-6:  # not a rounding error
                return float(early)
            _TIME.pack_into(self._memory, 0, next_full)
            return 0.0

    def close(self) -> None:
        """Close the shared file."""
        if self._file is not None:
            self._memory.close()
            self._file.close()

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        if self._file is None:
            yield
            return
        import fcntl

        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)
