"""``CURRENT`` of a bucket: what is served, changed only from the version that was read."""

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
"""How old what is known of ``CURRENT`` may be, where it is only followed."""
LOOK_AGAIN_SECONDS = 10.0
"""The same after a look that failed."""
_COPY = "CURRENT"
_TRIES = 50


@dataclass(frozen=True)
class Record:
    """What ``CURRENT`` holds.

    Attributes:
        doomed: releases that are being deleted; never promoted again.
        writer: differs at every writing, so that a writer knows its own.
    """

    pointers: Pointers = field(default_factory=Pointers)
    trial: Trial | None = None
    doomed: tuple[str, ...] = ()
    writer: str = ""

    @property
    def in_use(self) -> set[str]:
        """Ids of the releases that answer somebody."""
        trial = self.trial.release if self.trial else None
        return {name for name in (self.pointers.current, trial) if name}

    def to_bytes(self) -> bytes:
        """JSON, by a new writer."""
        about = {
            "current": self.pointers.current,
            "history": self.pointers.history,
            "trial": asdict(self.trial) if self.trial else None,
            "doomed": self.doomed,
            "writer": secrets.token_hex(8),
        }
        return json.dumps(about, indent=1).encode()

    @classmethod
    def of(cls, data: bytes, where: str) -> Record:
        """What was written; raises ReleaseError where it cannot be read."""
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
    """``CURRENT`` of a bucket, and a copy of it in a folder for when the bucket is not reached.

    Args:
        arrived: told after a version was read that was not known.
        moved: told when a look finds something else than the look before.
    """

    def __init__(
        self, bucket: Bucket, folder: Path, arrived: Callable[[], None], moved: Callable[[], None]
    ) -> None:
        self._bucket = bucket.brief()
        self._folder = folder
        self._arrived = arrived
        self._moved = moved
        self._known: tuple[Record, Version | None] | None = None
        self._look_at = 0.0
        self._refused = False
        self._looking = threading.Lock()

    def look(self) -> Record:
        """What is known of ``CURRENT``; asks the bucket at most every few seconds.

        While the bucket does not answer, what is known goes on to hold, also that of the process
        before this one.
        """
        if self._known is not None and time.monotonic() < self._look_at:
            return self._known[0]
        with self._looking:
            if self._known is not None and time.monotonic() < self._look_at:
                return self._known[0]
            try:
                before, record = self._known or self._kept(), self.fresh()[0]
                self._refused = False
                if before is not None and record != before[0]:
                    self._moved()
                return record
            except (BucketError, ReleaseError) as error:
                known = self._known or self._kept()
                if known is None:
                    raise
                if not self._refused:
                    _log.warning("what is served stays as it is: %s", error)
                self._refused = True
                self._known, self._look_at = known, time.monotonic() + LOOK_AGAIN_SECONDS
                return known[0]

    def fresh(self) -> tuple[Record, Version | None]:
        """``CURRENT`` as of now, and its version.

        Raises:
            BucketError: the bucket refuses or is not reached.
        """
        known = self._known or (Record(), None)
        try:
            known = self._taken(self._bucket.read(NAME, unless=known[1]))
            self._arrived()
        except Unchanged:
            pass
        self._known, self._look_at = known, time.monotonic() + LOOK_SECONDS
        return known

    def _taken(self, found: Blob | None) -> tuple[Record, Version | None]:
        if found is None:
            return Record(), None
        record = Record.of(found.data, f"{self._bucket.url}/{NAME}")
        with writing(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            replace_file(self._folder / _COPY, found.data)
        return record, found.version

    def _kept(self) -> tuple[Record, Version | None] | None:
        """What the last process here knew; None where there was none, or it cannot be read."""
        path = self._folder / _COPY
        with contextlib.suppress(OSError, ReleaseError):
            return Record.of(path.read_bytes(), str(path)), None
        return None

    def write(self, change: Callable[[Record], Record]) -> Record:
        """Change ``CURRENT``, as often as it takes: whoever is late begins from what it is by then."""
        for attempt in range(_TRIES):
            self._known = None
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
                self._known = self._taken(Blob(data, written))
                self._look_at = time.monotonic() + LOOK_SECONDS
                return after
            time.sleep(min(0.01 * 2**attempt, 0.5) * (0.5 + secrets.randbelow(100) / 100))
        raise ReleaseError(
            f"{self._bucket.url}/{NAME}: others changed it {_TRIES} times meanwhile; nothing was "
            f"changed here: run it again"
        )
