"""``CURRENT`` of a bucket: the record of the served release, changed by compare-and-swap."""

from __future__ import annotations

import contextlib
import json
import logging
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from nextedge.errors import BucketError, ReleaseError
from nextedge.releases.pointers import Pointers, Trial
from nextedge.storage.bucket import Blob, Bucket, Unchanged, Version
from nextedge.storage.files import replace_file, writing

_log = logging.getLogger("nextedge")
NAME = "releases/CURRENT"
LOOK_SECONDS = 2.0
"""How long a reader uses a record before it asks the bucket again."""
RETRY_SECONDS = 10.0
"""The same after a request that failed."""
_COPY = "CURRENT"
_TRIES = 50


@dataclass(frozen=True)
class Record:
    """The content of ``CURRENT``.

    Attributes:
        doomed: releases that are being deleted; never promoted again.
        writer: a token that differs at every write, so that a writer recognises its own write.
    """

    pointers: Pointers = field(default_factory=Pointers)
    trial: Trial | None = None
    doomed: tuple[str, ...] = ()
    writer: str = ""

    @property
    def in_use(self) -> set[str]:
        """Ids of the served release and of the release on trial."""
        trial = self.trial.release if self.trial else None
        return {name for name in (self.pointers.current, trial) if name}

    def to_bytes(self) -> bytes:
        """The record as JSON, with a new writer token."""
        about = {
            **asdict(self.pointers),
            "trial": asdict(self.trial) if self.trial else None,
            "doomed": self.doomed,
            "writer": secrets.token_hex(8),
        }
        return json.dumps(about, indent=1).encode()

    @classmethod
    def of(cls, data: bytes, where: str) -> Record:
        """Parse the bytes of a record; raises ReleaseError if they are broken."""
        try:
            about: dict[str, Any] = json.loads(data)
            return cls(
                Pointers(about["current"], tuple(about["history"])),
                Trial(**about["trial"]) if about["trial"] else None,
                tuple(about["doomed"]),
                about["writer"],
            )
        except (ValueError, KeyError, TypeError) as error:
            raise ReleaseError(
                f"{where}: cannot be read ({error!r}); put back a version of it, or delete it and "
                f"promote a release"
            ) from None


class Current:
    """``CURRENT`` of a bucket, and a local copy for times when the bucket does not answer.

    Args:
        on_read: called after a new version is read.
        on_change: called when ``look`` returns another record than the time before.
    """

    def __init__(
        self,
        bucket: Bucket,
        folder: Path,
        on_read: Callable[[], None],
        on_change: Callable[[], None],
    ) -> None:
        self._bucket = bucket.brief()
        self._folder = folder
        self._on_read = on_read
        self._on_change = on_change
        self._cached: tuple[Record, Version | None] | None = None
        self._expires = 0.0
        self._failing = False
        self._looking = threading.Lock()

    def look(self) -> Record:
        """The record, at most a few seconds old while the bucket answers.

        If the bucket does not answer, returns the last record read, or the copy of an earlier
        process.
        """
        if self._cached is not None and time.monotonic() < self._expires:
            return self._cached[0]
        with self._looking:
            # Another thread may have read the record while this one waited for the lock.
            if self._cached is not None and time.monotonic() < self._expires:
                return self._cached[0]
            try:
                before, record = self._cached or self._local_copy(), self.fresh()[0]
                self._failing = False
                if before is not None and record != before[0]:
                    self._on_change()
                return record
            except (BucketError, ReleaseError) as error:
                known = self._cached or self._local_copy()
                if known is None:
                    raise
                if not self._failing:  # one warning an outage, not one every few seconds
                    _log.warning("what is served stays as it is: %s", error)
                self._failing = True
                self._cached, self._expires = known, time.monotonic() + RETRY_SECONDS
                return known[0]

    def fresh(self) -> tuple[Record, Version | None]:
        """The record as of now, and its version.

        Raises:
            BucketError: the bucket refuses the request or does not answer.
        """
        known = self._cached or (Record(), None)
        try:
            known = self._save_copy(self._bucket.read(NAME, unless=known[1]))
            self._on_read()
        except Unchanged:
            pass
        self._cached, self._expires = known, time.monotonic() + LOOK_SECONDS
        return known

    def _save_copy(self, blob: Blob | None) -> tuple[Record, Version | None]:
        if blob is None:
            return Record(), None
        record = Record.of(blob.data, f"{self._bucket.url}/{NAME}")
        with writing(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            replace_file(self._folder / _COPY, blob.data)
        return record, blob.version

    def _local_copy(self) -> tuple[Record, Version | None] | None:
        """The record that an earlier process saved; None if missing or broken."""
        path = self._folder / _COPY
        with contextlib.suppress(OSError, ReleaseError):
            return Record.of(path.read_bytes(), str(path)), None
        return None

    def write(self, change: Callable[[Record], Record]) -> Record:
        """Change the record by compare-and-swap; returns the new record."""
        for attempt in range(_TRIES):
            self._cached = None
            record, version = self.fresh()
            after = change(record)
            if after == record:
                return record
            data = after.to_bytes()
            if version is None:
                written = self._bucket.create(NAME, data)
            else:
                written = self._bucket.replace(NAME, data, version)
            if written is not None:
                self._cached = self._save_copy(Blob(data, written))
                self._expires = time.monotonic() + LOOK_SECONDS
                return after
            # Random waits: machines that collided once must not collide again.
            time.sleep(min(0.01 * 2**attempt, 0.5) * (0.5 + secrets.randbelow(100) / 100))
        raise ReleaseError(
            f"{self._bucket.url}/{NAME}: others changed it {_TRIES} times meanwhile; nothing was "
            f"changed here: run it again"
        )
