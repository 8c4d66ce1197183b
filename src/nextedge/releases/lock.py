"""One build at a time on a state folder."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from nextedge.errors import BuildLockedError
from nextedge.storage.files import writing

_LOOK_AGAIN_SECONDS = 0.5


@contextlib.contextmanager
def build_lock(
    state: Path,
    wait_seconds: float = 0.0,
    progress: Callable[[str, int, int], None] = lambda text, done, total: None,
) -> Iterator[None]:
    """Hold the build lock of a state folder; freed by the system when the process dies.

    Args:
        wait_seconds: how long to wait for whoever holds it.
        progress: told whom it waits for.

    Raises:
        BuildLockedError: another process holds it; says which, and since when.
    """
    with writing(state):
        state.mkdir(parents=True, exist_ok=True)
        lock = (state / "build.lock").open("a+")
    with lock as file:
        end = time.monotonic() + wait_seconds
        while not _locked(file):
            file.seek(0)
            holder = file.read().strip() or "starting"
            if time.monotonic() >= end:
                raise BuildLockedError(
                    f"{state}: another build holds the lock: {holder}; "
                    f"wait for it to end, or stop that process"
                )
            progress(f"waiting for another build: {holder}", 0, 1)
            time.sleep(_LOOK_AGAIN_SECONDS)
        file.truncate(0)
        started = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
        with writing(state / "build.lock"):
            os.write(
                file.fileno(),
                f"process {os.getpid()} on {socket.gethostname()} since {started}".encode(),
            )
        yield
        file.truncate(0)


def _locked(file: IO[str]) -> bool:
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
