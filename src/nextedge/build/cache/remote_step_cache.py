"""Outputs of steps in a bucket, so that a build continues on another machine."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

from nextedge.errors import ReleaseError
from nextedge.progress import Progress
from nextedge.storage.bucket import Bucket
from nextedge.storage.transfer import download_folder, files_below, upload_folder

FOLDER = "work"
DONE = "done.json"


class RemoteStepCache:
    """``work/<step>-<key>/…`` of a bucket; an output is there once its ``done.json`` is."""

    def __init__(self, bucket: Bucket, progress: Progress) -> None:
        self._bucket = bucket
        self._progress = progress

    def fetch(self, name: str, folder: Path) -> bool:
        """Download an output; False where none is usable."""
        blob = self._bucket.read(f"{FOLDER}/{name}/{DONE}")
        if blob is None:
            return False
        try:
            done: dict[str, Any] = json.loads(blob.data)
            download_folder(
                self._bucket,
                f"{FOLDER}/{name}",
                done["files"],
                folder,
                f"{name.rsplit('-', 1)[0]}: download",
                self._progress,
            )
        except (ReleaseError, ValueError, KeyError):  # the step runs instead
            shutil.rmtree(folder, ignore_errors=True)
            return False
        del done["files"]
        (folder / DONE).write_text(json.dumps(done))
        return True

    def keep(self, name: str, folder: Path) -> None:
        """Upload an output, its ``done.json`` last."""
        names = [file for file in files_below(folder) if file != DONE]
        what = f"{name.rsplit('-', 1)[0]}: upload"
        upload_folder(self._bucket, f"{FOLDER}/{name}", folder, names, what, self._progress)
        about = json.loads((folder / DONE).read_text())
        about["files"] = {file: _hash(folder / file) for file in names}
        # Last, because with this file a fetch takes the output for whole.
        self._bucket.write(f"{FOLDER}/{name}/{DONE}", json.dumps(about, indent=1).encode())

    def drop_all_but(self, used: Collection[str]) -> None:
        """Delete all outputs but those in ``used``, their ``done.json`` first."""
        names = [entry.name for entry in self._bucket.entries(FOLDER)]
        doomed = [name for name in names if name.split("/")[1] not in used]
        # First, because no fetch may find an output that is half deleted.
        self._bucket.delete(name for name in doomed if name.endswith(f"/{DONE}"))
        self._bucket.delete(name for name in doomed if not name.endswith(f"/{DONE}"))


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
