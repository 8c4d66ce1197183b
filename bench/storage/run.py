"""Time and requests of publishing to a bucket and of the first download, by size of the release.

python bench/storage/run.py s3://bucket/prefix [--megabytes 1000] [--files 200]

Credentials and endpoint come from the environment. What it writes, it deletes.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
import uuid
from pathlib import Path

from nextedge.config import Config
from nextedge.releases.shared import SharedReleases
from nextedge.storage.bucket import Bucket


def main() -> None:
    """Publish one release, download it elsewhere, look at CURRENT, and clean up."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--files", type=int, default=200)
    given = parser.parse_args()
    bucket = Bucket(f"{given.url.rstrip('/')}/bench-{uuid.uuid4().hex[:8]}")
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(_measured(bucket, Path(folder), given.megabytes, given.files), indent=1))
    bucket.delete(entry.name for entry in bucket.entries(""))


def _measured(bucket: Bucket, folder: Path, megabytes: int, files: int) -> dict[str, float]:
    source = folder / "source"
    source.mkdir()
    each = megabytes * (1 << 20) // (2 * max(files - 1, 1))
    for number in range(files - 1):  # half of the bytes in one file, as embeddings are
        (source / f"part{number}").write_bytes(os.urandom(each))
    block = os.urandom(1 << 20)
    with (source / "large").open("wb") as large:
        for _ in range(megabytes // 2):
            large.write(block)
    parts = {path.name: path for path in source.iterdir()}
    here, there = (SharedReleases(folder / name, bucket) for name in ("here", "there"))
    began = time.perf_counter()
    release = here.publish(Config(state=bucket.url), (), parts, promote=True)
    published = time.perf_counter() - began
    began = time.perf_counter()
    there.get(release)
    downloaded = time.perf_counter() - began
    began = time.perf_counter()
    for _ in range(20):
        there._current.fresh()
    looked = (time.perf_counter() - began) / 20
    return {
        "megabytes": megabytes,
        "files": files,
        "publish_MB_s": round(megabytes / published, 1),
        "download_MB_s": round(megabytes / downloaded, 1),
        "look_ms": round(1000 * looked, 2),
        "peak_memory_MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


if __name__ == "__main__":
    main()
