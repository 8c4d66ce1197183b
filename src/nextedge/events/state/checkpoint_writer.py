"""Write checkpoints of the overlay, once or from a thread of a serving process."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path

from nextedge.errors import NextEdgeError
from nextedge.events.state.checkpoint import Checkpoints
from nextedge.events.state.overlay import Overlay

_log = logging.getLogger("nextedge")
_EVERY_EVENTS = 20_000
_LOOK_SECONDS = 5.0
_NICE = 10  # requests come first


def write_checkpoint(make: Callable[[], Overlay], checkpoints: Checkpoints) -> bool:
    """Write a checkpoint of the current state; False if another process is writing one.

    Args:
        make: makes an overlay that answers no requests, so that none waits while it is folded.

    Raises:
        LiveStateError: the log cannot be read.
        StorageError: the disk refuses.
    """
    with checkpoints.lock(wait=False) as locked:
        if not locked:
            return False
        overlay = make()
        overlay.catch_up()
        checkpoints.write(overlay)
        return True


class CheckpointWriter:
    """A thread that writes a checkpoint whenever a serving process has folded many events.

    Args:
        serving: the overlay that answers requests.
        make: makes another overlay of the same log.
    """

    def __init__(
        self, serving: Overlay, make: Callable[[], Overlay], every: int = _EVERY_EVENTS
    ) -> None:
        self.serving = serving
        self.make = make
        self.every = every
        self._folded = 0  # of ``serving.folded``, the part in the newest checkpoint
        self._generation = serving.generation
        self._newest = self._latest_path()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="nextedge-overlay", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        with contextlib.suppress(OSError, AttributeError):  # where threads have no priority
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        while not self._stopping.wait(_LOOK_SECONDS):
            try:
                self.write_if_due()
            except NextEdgeError as error:
                _log.warning("no snapshot of the overlay: %s", error)
            except Exception:  # a thread that ends would write no further checkpoint
                _log.exception("writing a snapshot of the overlay")
        self.serving.log.close()

    def write_if_due(self) -> bool:
        """Write a checkpoint after many folded events or a purge; returns whether it did."""
        checkpoints, serving = self.serving.checkpoints, self.serving
        if checkpoints is None:
            return False
        newest = self._latest_path()
        purged = self._generation is not None and serving.generation != self._generation
        if newest != self._newest and not purged:  # another process has written one meanwhile
            self._newest, self._folded = newest, serving.folded
        self._generation = serving.generation
        if not purged and serving.folded - self._folded < self.every:
            return False
        written = write_checkpoint(self.make, checkpoints)
        self._newest, self._folded = self._latest_path(), serving.folded
        return written

    def _latest_path(self) -> Path | None:
        checkpoints = self.serving.checkpoints
        return None if checkpoints is None else next(iter(checkpoints.paths()), None)
