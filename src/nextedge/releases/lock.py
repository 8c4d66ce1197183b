"""One build at a time on a state folder."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from nextedge.errors import BuildLockedError
from nextedge.progress import Progress, quiet
from nextedge.storage.files import writing

_LOOK_AGAIN_SECONDS = 0.5


@contextlib.contextmanager
def build_lock(
    state: Path, wait_seconds: float = 0.0, progress: Progress = quiet
) -> Iterator[None]:
    """Hold the build lock of a state folder, as ``Releases.building`` describes.

    Raises:
        BuildLockedError: another process holds the lock.
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
    # A lock of the system rather than a file's existence: it ends when its process dies.
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
