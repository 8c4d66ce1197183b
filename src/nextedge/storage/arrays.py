"""Arrays as ``.npy`` files: memory-mapped to read, growing to write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


def mapped(path: Path) -> npt.NDArray[Any]:
    """The array of a ``.npy`` file, memory-mapped: read on use, shared by all processes."""
    # a plain array, as every access to a ``numpy.memmap`` takes three times as long
    return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))


def mapped_file(values: npt.NDArray[Any]) -> Path | None:
    """The ``.npy`` file whose whole array this is, as ``mapped`` gave it; None for any other."""
    base: Any = values
    while base is not None and not isinstance(base, np.memmap):
        base = getattr(base, "base", None)
    if base is None or base.filename is None or not base.flags.c_contiguous:
        return None
    whole = base.shape == values.shape and base.dtype == values.dtype
    return Path(base.filename) if whole and base.ctypes.data == values.ctypes.data else None


def plain(values: npt.NDArray[np.generic] | None, dtype: type[np.generic]) -> npt.NDArray[Any]:
    """A read-only view of an array, or an empty array for None."""
    array = np.zeros(0, dtype) if values is None else np.asarray(values).astype(dtype, copy=False)
    view = array.view()
    # mapped files are read-only: with all arrays so, a kernel compiles once, for one signature
    view.flags.writeable = False
    return view


class ArrayFile:
    """A ``.npy`` file that grows along its first axis; ``close`` writes the length.

    Args:
        row: shape of one row, ``()`` for plain values.
    """

    def __init__(self, path: Path, dtype: npt.DTypeLike, row: tuple[int, ...] = ()) -> None:
        self._file = path.open("wb")
        self._dtype = np.dtype(dtype)
        self._row = row
        self._length = 0
        self._header()

    def append(self, values: npt.NDArray[Any]) -> None:
        """Add values, which must have the file's type and shape."""
        np.ascontiguousarray(values, self._dtype).tofile(self._file)
        self._length += len(values)

    def close(self) -> None:
        """Write the length into the header."""
        self._file.seek(0)  # NumPy pads the header, so that it has room for any length
        self._header()
        self._file.close()

    def _header(self) -> None:
        about = {"descr": np.lib.format.dtype_to_descr(self._dtype), "fortran_order": False}
        shape = (self._length, *self._row)
        np.lib.format.write_array_header_1_0(self._file, {**about, "shape": shape})


class ArrayFiles:
    """``.npy`` files of a folder, by name, that grow together; complete after the ``with`` body."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, ArrayFile] = {}

    def __call__(self, name: str, values: npt.NDArray[Any]) -> None:
        """Add values to a file, which has the type and shape of its first values."""
        if name not in self._files:
            path = self._folder / f"{name}.npy"
            self._files[name] = ArrayFile(path, values.dtype, values.shape[1:])
        self._files[name].append(values)

    def __enter__(self) -> ArrayFiles:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            file.close()
