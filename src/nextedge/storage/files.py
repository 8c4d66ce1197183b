"""Replace files in one step, and turn errors of the disk into a StorageError."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from nextedge.errors import StorageError

_REFUSED = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.ENOTDIR,
    errno.EEXIST,
)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a full, read-only or forbidden disk under ``path`` into a StorageError."""
    try:
        yield
    except OSError as error:
        if error.errno in _REFUSED:
            raise StorageError(f"{path}: cannot be written: {error.strerror}") from None
        if error.errno is None and "requested and" in str(error):  # NumPy's short write
            raise StorageError(f"{path}: cannot be written: No space left on device") from None
        raise


@contextlib.contextmanager
def vanishing(parent: Path) -> Iterator[Path]:
    """A temporary folder, deleted after the body; files of it that are mapped stay readable."""
    folder = Path(tempfile.mkdtemp(prefix=".vanishing-", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def replace_file(path: Path, data: bytes, mode: int = 0o666) -> None:
    """Write a file in one step: a reader gets either the old bytes or the new ones."""
    # Each writer has a partial file of its own.
    partial = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}")
    try:
        with writing(path):
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                # On disk before the rename: a crash must not leave an empty file.
                os.fsync(file.fileno())
            os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
