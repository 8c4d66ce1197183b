"""One build at a time on a bucket: a lease object, valid while its holder renews it."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from nextedge.errors import BucketError, BuildLockedError
from nextedge.progress import Progress, quiet
from nextedge.storage.bucket import Blob, Bucket, Version
from nextedge.storage.files import writing

NAME = "build.lease"
SECONDS = 60.0
"""How long a lease is valid after its last renewal, by the clock of the store."""
_LOOK_AGAIN_SECONDS = 2.0
# Several renewals in that time: a single request that fails does not end the lease.
_RENEWALS = 4


class Lease:
    """The right to build on a bucket, renewed by a thread until ``release``."""

    def __init__(self, bucket: Bucket, version: Version, about: dict[str, Any]) -> None:
        self._bucket = bucket.brief()
        self._version = version
        self._about = about
        self._renewed = time.monotonic()
        self._lost = ""
        self._stopping = threading.Event()
        self._renewing = threading.Lock()
        self._thread = threading.Thread(target=self._keep, name="nextedge-lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise unless this build still holds the lease.

        Raises:
            BuildLockedError: another build took it over, or it could not be renewed in time.
        """
        # A renewal replaces the known version, so it fails if another build held it meanwhile.
        if not self._lost:
            self._renew()
        if not self._lost and time.monotonic() - self._renewed > SECONDS:
            self._lost = f"it could not be renewed for {SECONDS:.0f} s"
        if self._lost:
            raise BuildLockedError(
                f"{self._bucket.url}: this build lost its lock: {self._lost}; nothing was "
                f"published: run it again"
            )

    def release(self) -> None:
        """Delete the lease object, if this build still holds it."""
        self._stopping.set()
        self._thread.join()
        with contextlib.suppress(BucketError):  # the lease expires without us
            blob = self._bucket.read(NAME)
            if blob is not None and _parsed(blob).get("token") == self._about["token"]:
                self._bucket.delete([NAME])

    def _keep(self) -> None:
        while not self._lost and not self._stopping.wait(SECONDS / _RENEWALS):
            self._renew()

    def _renew(self) -> None:
        with self._renewing:
            # Counted from before the request: the store's clock cannot start earlier.
            began = time.monotonic()
            self._about["renewals"] += 1
            try:
                version = self._bucket.replace(NAME, _bytes(self._about), self._version)
            except BucketError:  # the thread tries again; ``check`` raises if that fails too
                return
            if version is None:
                self._lost = "another build took it over"
            else:
                self._version, self._renewed = version, began


@contextlib.contextmanager
def acquire_lease(
    bucket: Bucket, state: Path, wait_seconds: float = 0.0, progress: Progress = quiet
) -> Iterator[Lease]:
    """Hold the lease of a bucket; needs the lock of the local folder.

    Takes over a lease that expired. Takes over a lease of the same folder at once: the lock of
    the folder proves that its build has ended.

    Args:
        wait_seconds: how long to wait for the build that holds the lease.
        progress: reports that build while waiting.

    Raises:
        BuildLockedError: another machine builds; names it, and since when.
        BucketError: the bucket refuses the request or does not answer.
    """
    about = {
        "holder": f"process {os.getpid()} on {socket.gethostname()}",
        "since": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
        "place": _folder_token(state),
        "token": secrets.token_hex(16),
        "renewals": 0,
    }
    version = bucket.create(NAME, _bytes(about))
    end = time.monotonic() + wait_seconds
    while version is None:
        try:
            version = _take_over(bucket, about)
        except BuildLockedError as error:
            if time.monotonic() >= end:
                raise
            progress(f"waiting: {error}", 0, 1)
            time.sleep(_LOOK_AGAIN_SECONDS)
    lease = Lease(bucket, version, about)
    try:
        yield lease
    finally:
        lease.release()


def lease_is_held(bucket: Bucket) -> bool:
    """Whether a build holds the lease now."""
    return _remaining(bucket) > timedelta(0)


def _take_over(bucket: Bucket, about: dict[str, Any]) -> Version:
    blob = bucket.read(NAME)
    if blob is None:  # the other build ended just now
        version = bucket.create(NAME, _bytes(about))
    else:
        other, left = _parsed(blob), _remaining(bucket)
        if other.get("place") != about["place"] and left > timedelta(0):
            raise BuildLockedError(
                f"{bucket.url}: another build holds the lock: {other.get('holder', 'unknown')} "
                f"since {other.get('since', 'unknown')}; wait for it to end, or stop that process: "
                f"its lock ends {left.total_seconds():.0f} s later"
            )
        version = bucket.replace(NAME, _bytes(about), blob.version)
    if version is None:
        raise BuildLockedError(f"{bucket.url}: another build took the lock just now; wait for it")
    return version


def _remaining(bucket: Bucket) -> timedelta:
    # By the clock of the store: the clocks of two machines may differ.
    renewed = bucket.modified(NAME)
    return timedelta(0) if renewed is None else renewed + timedelta(seconds=SECONDS) - bucket.now()


def _folder_token(state: Path) -> str:
    """A random token that identifies this local folder, created once."""
    path = state / "place"
    with contextlib.suppress(FileNotFoundError):
        return path.read_text()
    with writing(path):
        path.write_text(secrets.token_hex(16))
    return path.read_text()


def _bytes(about: dict[str, Any]) -> bytes:
    return json.dumps(about, indent=1).encode()


def _parsed(blob: Blob) -> dict[str, Any]:
    try:
        about: dict[str, Any] = json.loads(blob.data)
    except ValueError:
        return {}
    return about
