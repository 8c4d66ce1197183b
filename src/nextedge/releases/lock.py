"""One build at a time on a state folder."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from nextedge.errors import BuildLockedError
from nextedge.storage import writing


@contextlib.contextmanager
def build_lock(state: Path) -> Iterator[None]:
    """Hold the build lock of a state folder; freed by the system when the process dies.

    Raises:
        BuildLockedError: another process holds it; says which, and since when.
    """
    import fcntl

    with writing(state):
        state.mkdir(parents=True, exist_ok=True)
        lock = (state / "build.lock").open("a+")
    with lock as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            raise BuildLockedError(
                f"{state}: another build holds the lock: {file.read().strip() or 'starting'}; "
                f"wait for it to end, or stop that process"
            ) from None
        file.truncate(0)
        started = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
        with writing(state / "build.lock"):
            os.write(
                file.fileno(),
                f"process {os.getpid()} on {socket.gethostname()} since {started}".encode(),
            )
        yield
        file.truncate(0)
