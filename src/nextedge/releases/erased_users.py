"""The list of erased users of a bucket, which every machine that builds or records reads."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from pathlib import Path

from nextedge.data.erased_users import FILE
from nextedge.releases.repository import WORK_FOLDERS
from nextedge.storage.bucket import Bucket, Unchanged, Version
from nextedge.storage.files import replace_file, writing

_CLEANED = "forgotten.cleaned"


class ErasedUsersObject:
    """``forgotten.json`` of a bucket, and its local copy."""

    def __init__(self, bucket: Bucket, state: Path) -> None:
        self._bucket = bucket
        self._state = state
        self._version: Version | None = None

    def pull(self, *, clean: bool = False) -> None:
        """Download the list.

        Args:
            clean: if the list has changed, remove the work folders; needs the build lock.
        """
        path = self._state / FILE
        with contextlib.suppress(Unchanged):
            blob = self._bucket.read(FILE, unless=self._version if path.exists() else None)
            if blob is not None:
                self._version = blob.version
                with writing(path):
                    path.parent.mkdir(parents=True, exist_ok=True)
                replace_file(path, blob.data, 0o600)
        if clean:
            self._clean(path)

    def push(self) -> None:
        """Upload the local list; needs the build lock."""
        self._version = self._bucket.write(FILE, (self._state / FILE).read_bytes())

    def _clean(self, path: Path) -> None:
        digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else ""
        marker = self._state / _CLEANED
        # Files of builds from before the change may still name a user on the list.
        if digest and (not marker.exists() or marker.read_text() != digest):
            for name in WORK_FOLDERS:
                shutil.rmtree(self._state / name, ignore_errors=True)
            with writing(marker):
                marker.write_text(digest)
