"""Transfer folders of files to and from a bucket, several files at a time."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from nextedge.errors import ReleaseError
from nextedge.progress import Progress
from nextedge.storage.bucket import Bucket
from nextedge.storage.files import writing

AT_ONCE = 8  # files in transfer; at 16 MB each, they take at most 128 MB of memory
_MEGABYTE = 1 << 20


def files_below(folder: Path) -> list[str]:
    """Names of all files below a folder, with slashes."""
    return sorted(str(f.relative_to(folder).as_posix()) for f in folder.rglob("*") if f.is_file())


def upload_folder(
    bucket: Bucket, prefix: str, folder: Path, names: Iterable[str], what: str, progress: Progress
) -> None:
    """Upload files of a folder to objects below a prefix.

    Raises:
        BucketError: an object cannot be written; some others may be written.
    """
    sizes = {name: (folder / name).stat().st_size for name in names}
    _each(sizes, lambda name: bucket.upload(f"{prefix}/{name}", folder / name), what, progress)


def download_folder(
    bucket: Bucket,
    prefix: str,
    hashes: Mapping[str, str],
    folder: Path,
    what: str,
    progress: Progress,
) -> None:
    """Download objects below a prefix into a folder, and check the SHA-256 of each.

    Raises:
        BucketError: an object cannot be read.
        ReleaseError: an object is missing or altered.
        StorageError: the disk is full; the folder is deleted.
    """

    def fetch(name: str) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if bucket.download(f"{prefix}/{name}", folder / name) != hashes[name]:
            raise ReleaseError(
                f"{bucket.url}/{prefix}/{name}: is not what was written there: it was altered, or "
                f"changed while it was read"
            )

    sizes = {
        name: entry.size
        for entry in bucket.entries(prefix)
        if (name := entry.name.removeprefix(f"{prefix}/")) in hashes
    }
    if missing := sorted(set(hashes) - set(sizes)):
        raise ReleaseError(f"{bucket.url}/{prefix}/{missing[0]}: is missing; it was there once")
    try:
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            _each(sizes, fetch, what, progress)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _each(
    sizes: Mapping[str, int], act: Callable[[str], object], what: str, progress: Progress
) -> None:
    total, done = max(sum(sizes.values()) // _MEGABYTE, 1), 0
    progress(f"{what} (MB)", 0, total)
    with ThreadPoolExecutor(min(AT_ONCE, max(len(sizes), 1))) as pool:
        # the largest first, so that no large file is left to transfer alone at the end
        order = sorted(sizes, key=lambda name: -sizes[name])
        waiting = {name: pool.submit(act, name) for name in order}
        try:
            for name, one in waiting.items():
                one.result()
                done += sizes[name]
                progress(f"{what} (MB)", min(done // _MEGABYTE, total), total)
        except BaseException:
            pool.shutdown(cancel_futures=True)  # without one file the others are of no use
            raise
    progress(f"{what} (MB)", total, total)
