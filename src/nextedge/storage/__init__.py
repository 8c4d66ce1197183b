"""Arrays mapped from disk, and errors of the disk said in words."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nextedge.errors import StorageError

_REFUSED = (
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM,
)  # fmt: skip


def mapped(path: Path) -> npt.NDArray[Any]:
    """The array of a ``.npy`` file, memory-mapped: read on use, shared by all processes.

    A plain array, as every look into a ``numpy.memmap`` takes three times as long.
    """
    return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))


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


def replace_file(path: Path, data: bytes, mode: int = 0o666) -> None:
    """Write a file on the disk in one step: whoever reads it finds the old bytes or the new ones."""
    partial = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}")
    try:
        with writing(path):
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
