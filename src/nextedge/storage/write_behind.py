"""A bounded queue in front of a slow store: callers never wait, one thread writes in batches."""

from __future__ import annotations

import atexit
import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

_log = logging.getLogger("nextedge")
_SECONDS = 0.05
Row = TypeVar("Row")


class WriteBehind(Generic[Row]):
    """A queue of rows for one background thread, which starts with the first row.

    Args:
        name: of the thread.
        write: writes a batch of rows, in the order of the queue, and counts its own failures.
        limit: rows that may wait; more are dropped and counted.
        batch: rows of one call of ``write``; None takes all that wait.
    """

    def __init__(
        self, name: str, write: Callable[[list[Row]], None], limit: int, batch: int | None = None
    ) -> None:
        self.name = name
        self.limit = limit
        self.dropped = 0
        self.writing = threading.Lock()  # locked while a batch is written
        self._write = write
        self._batch = batch
        self._rows: deque[Row] = deque()
        self._closing = threading.Event()
        self._starting = threading.Lock()
        self._threads: list[threading.Thread] = []

    def put(self, row: Row) -> bool:
        """Queue a row; never waits and never raises. False if the queue is full."""
        if not self._threads:
            self._start()
        if len(self._rows) < self.limit:
            self._rows.append(row)
            return True
        with self._starting:
            self.dropped += 1
        return False

    def flush(self) -> None:
        """Write every queued row now, in the calling thread."""
        while self._write_batch():
            pass

    def close(self) -> None:
        """Write every queued row and stop the thread; a later ``put`` starts another."""
        self._closing.set()
        for thread in self._threads:
            thread.join()
        self._threads = []
        atexit.unregister(self.close)
        self.flush()

    def _start(self) -> None:
        with self._starting:
            if not self._threads:
                self._closing.clear()
                # Daemon: Python joins others before atexit, which alone stops this one.
                thread = threading.Thread(target=self._run, name=self.name, daemon=True)
                thread.start()
                self._threads = [thread]
                atexit.register(self.close)

    def _run(self) -> None:
        # The thread looks every 50 ms. Waking it for each row would take the interpreter from the
        # requests. So would rows that arrive meanwhile: they wait for the next look.
        while not self._closing.wait(_SECONDS):
            waiting = len(self._rows)
            while waiting > 0 and (written := self._write_batch()):
                waiting -= written

    def _write_batch(self) -> int:
        """Write one batch; returns its number of rows."""
        with self.writing:
            size = len(self._rows) if self._batch is None else min(self._batch, len(self._rows))
            rows = [self._rows.popleft() for _ in range(size)]
            if not rows:
                return 0
            try:
                self._write(rows)
            except Exception:  # a thread that ends would leave every later row unwritten
                _log.exception("%s: %d rows were not written", self.name, len(rows))
            return len(rows)
