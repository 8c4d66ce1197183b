"""One build at a time on a bucket: an object that is held for as long as it is renewed."""

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
"""How long a lease holds after its last renewal, by the clock of the store."""
_LOOK_AGAIN_SECONDS = 2.0
_RENEWALS = 4
"""Renewals in that time."""


class Lease:
    """The right to build on a bucket, renewed in the background until it is given back."""

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
        """Go on only while the lease is held: the version tells that nobody else held it since.

        Raises:
            BuildLockedError: it was taken over, or could not be renewed in time.
        """
        if not self._lost:
            self._renew()
        if not self._lost and time.monotonic() - self._renewed > SECONDS:
            self._lost = f"it could not be renewed for {SECONDS:.0f} s"
        if self._lost:
            raise BuildLockedError(
                f"{self._bucket.url}: this build lost its lock: {self._lost}; nothing was "
                f"published: run it again"
            )

    def give_back(self) -> None:
        """End the lease, if it is still held."""
        self._stopping.set()
        self._thread.join()
        with contextlib.suppress(BucketError):  # it ends by itself
            found = self._bucket.read(NAME)
            if found is not None and _about(found).get("token") == self._about["token"]:
                self._bucket.delete([NAME])

    def _keep(self) -> None:
        while not self._lost and not self._stopping.wait(SECONDS / _RENEWALS):
            self._renew()

    def _renew(self) -> None:
        with self._renewing:
            began = time.monotonic()
            self._about["renewals"] += 1
            try:
                version = self._bucket.replace(NAME, _bytes(self._about), self._version)
            except BucketError:  # the next time, or ``check`` says so
                return
            if version is None:
                self._lost = "another build took it over"
            else:
                self._version, self._renewed = version, began


@contextlib.contextmanager
def held_lease(
    bucket: Bucket, state: Path, wait_seconds: float = 0.0, progress: Progress = quiet
) -> Iterator[Lease]:
    """Hold the lease of a bucket; the lock of the local folder must be held already.

    A lease that was not renewed in time is taken over, and at once where a build in this very
    folder held it: the folder's lock tells that it has ended.

    Args:
        wait_seconds: how long to wait for whoever holds it.
        progress: told whom it waits for.

    Raises:
        BuildLockedError: another machine builds; says which, and since when.
        BucketError: the bucket refuses or is not reached.
    """
    about = {
        "holder": f"process {os.getpid()} on {socket.gethostname()}",
        "since": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
        "place": _place(state),
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
        lease.give_back()


def lease_is_held(bucket: Bucket) -> bool:
    """Whether some build holds the lease now."""
    return _left(bucket) > timedelta(0)


def _take_over(bucket: Bucket, about: dict[str, Any]) -> Version:
    found = bucket.read(NAME)
    if found is None:  # it ended just now
        version = bucket.create(NAME, _bytes(about))
    else:
        held, left = _about(found), _left(bucket)
        if held.get("place") != about["place"] and left > timedelta(0):
            raise BuildLockedError(
                f"{bucket.url}: another build holds the lock: {held.get('holder', 'unknown')} since "
                f"{held.get('since', 'unknown')}; wait for it to end, or stop that process: its "
                f"lock ends {left.total_seconds():.0f} s later"
            )
        version = bucket.replace(NAME, _bytes(about), found.version)
    if version is None:
        raise BuildLockedError(f"{bucket.url}: another build took the lock just now; wait for it")
    return version


def _left(bucket: Bucket) -> timedelta:
    """How long the lease still holds, by the clock of the store."""
    found = bucket.modified(NAME)
    return timedelta(0) if found is None else found + timedelta(seconds=SECONDS) - bucket.now()


def _place(state: Path) -> str:
    """A name that this local folder keeps."""
    path = state / "place"
    with contextlib.suppress(FileNotFoundError):
        return path.read_text()
    with writing(path):
        path.write_text(secrets.token_hex(16))
    return path.read_text()


def _bytes(about: dict[str, Any]) -> bytes:
    return json.dumps(about, indent=1).encode()


def _about(found: Blob) -> dict[str, Any]:
    try:
        about: dict[str, Any] = json.loads(found.data)
    except ValueError:
        return {}
    return about
