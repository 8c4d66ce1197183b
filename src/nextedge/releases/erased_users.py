"""The list of forgotten people of a bucket: every machine that builds or records reads it."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from pathlib import Path

from nextedge.data.erased_users import FILE
from nextedge.releases.repository import MADE_ANEW
from nextedge.storage.bucket import Bucket, Unchanged, Version
from nextedge.storage.files import replace_file, writing

_CLEANED = "forgotten.cleaned"


class ForgottenObject:
    """``forgotten.json`` of a bucket, and its copy in the local folder."""

    def __init__(self, bucket: Bucket, state: Path) -> None:
        self._bucket = bucket
        self._state = state
        self._version: Version | None = None

    def pull(self, *, clean: bool = False) -> None:
        """Bring the list here.

        Args:
            clean: where it changed since, remove what builds here made before, which may name
                those on it; only under the build lock.
        """
        path = self._state / FILE
        with contextlib.suppress(Unchanged):
            found = self._bucket.read(FILE, unless=self._version if path.exists() else None)
            if found is not None:
                self._version = found.version
                with writing(path):
                    path.parent.mkdir(parents=True, exist_ok=True)
                replace_file(path, found.data, 0o600)
        if clean:
            self._clean(path)

    def push(self) -> None:
        """Let all machines have the list of here; only under the build lock."""
        self._version = self._bucket.write(FILE, (self._state / FILE).read_bytes())

    def _clean(self, path: Path) -> None:
        listed = hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else ""
        marker = self._state / _CLEANED
        if listed and (not marker.exists() or marker.read_text() != listed):
            for name in MADE_ANEW:
                shutil.rmtree(self._state / name, ignore_errors=True)
            with writing(marker):
                marker.write_text(listed)
