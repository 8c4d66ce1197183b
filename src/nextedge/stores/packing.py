"""Pack named arrays and small metadata into bytes, and unpack them without a copy.

======  =====================================================================
bytes   what (little endian)
======  =====================================================================
4       magic ``NXPK``
2       version of the format
2       0
4       CRC-32 of everything else
4       bytes of the directory
8       bytes of the whole value
…       directory: JSON, metadata and each array's name, type and shape
…       the arrays one after another, each at a multiple of 8
======  =====================================================================

The checksum detects every damage of up to 32 bits in a row, and all but one in four billion others.
It is no defence against an attacker who can write into the store.
"""

from __future__ import annotations

import json
import math
import struct
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from nextedge.errors import CorruptValueError

Array = npt.NDArray[Any]
MAGIC = b"NXPK"
VERSION = 1
_HEADER = struct.Struct("<4sHHIIQ")
_CHECKSUM = slice(8, 12)
_ALIGNMENT = 8
# types of arrays that are packed, by how NumPy writes them
_TYPES = {
    name: np.dtype(name)
    for name in ("|b1", "|i1", "<i2", "<i4", "<i8", "|u1", "<u2", "<u4", "<u8", "<f2", "<f4", "<f8")
}


def pack(arrays: Mapping[str, Array], metadata: Mapping[str, Any] | None = None) -> bytes:
    """Pack arrays of booleans, integers and floats, and metadata of JSON values.

    Raises:
        TypeError: an array of another type, or metadata that JSON cannot hold.
        ValueError: metadata with an infinite or undefined number.
    """
    listed, parts = [], []
    for name, values in arrays.items():
        dtype = values.dtype.newbyteorder("<")
        if dtype.str not in _TYPES:
            raise TypeError(
                f"array {name!r} is of type {values.dtype}; expected one of {', '.join(_TYPES)}"
            )
        listed.append([name, dtype.str, list(values.shape)])
        parts.append(_padded(values.astype(dtype, copy=False).tobytes(), b"\0"))
    directory = json.dumps(
        {"metadata": dict(metadata or {}), "arrays": listed}, allow_nan=False, separators=(",", ":")
    )
    written = _padded(directory.encode(), b" ")
    body = b"".join((written, *parts))
    size = _HEADER.size + len(body)
    blank = _HEADER.pack(MAGIC, VERSION, 0, 0, len(written), size)
    return _HEADER.pack(MAGIC, VERSION, 0, _checksum(blank, body), len(written), size) + body


def unpack(value: bytes) -> tuple[dict[str, Array], dict[str, Any]]:
    """The arrays, as read-only views of ``value``, and the metadata.

    Raises:
        CorruptValueError: the value is cut, altered, or of another format.
    """
    if len(value) < _HEADER.size:
        raise CorruptValueError(f"a value of {len(value)} bytes is shorter than its header")
    magic, version, _, checksum, directory_bytes, size = _HEADER.unpack_from(value)
    if magic != MAGIC:
        raise CorruptValueError(f"not a packed value: begins with {magic!r}, expected {MAGIC!r}")
    if version != VERSION:
        raise CorruptValueError(f"packed by format {version}; this version reads {VERSION}")
    if size != len(value) or directory_bytes > size - _HEADER.size:
        raise CorruptValueError(f"a value of {len(value):,} bytes says that it has {size:,}")
    view = memoryview(value)
    if _checksum(value[: _HEADER.size], view[_HEADER.size :]) != checksum:
        raise CorruptValueError("the checksum is wrong: the value was altered")
    try:
        start = _HEADER.size + directory_bytes
        directory = json.loads(value[_HEADER.size : start])
        return _arrays(view[start:], directory["arrays"]), dict(directory["metadata"])
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise CorruptValueError(f"the directory cannot be read: {error!r}") from None


def _arrays(body: memoryview, listed: list[Any]) -> dict[str, Array]:
    arrays, offset = {}, 0
    for name, kind, shape in listed:
        dtype = _TYPES[kind]
        if not all(type(length) is int and length >= 0 for length in shape):
            raise ValueError(f"array {name!r} has the shape {shape}")
        count = math.prod(shape)
        if offset + count * dtype.itemsize > len(body):
            raise ValueError(f"array {name!r} of shape {shape} is larger than the value")
        arrays[str(name)] = np.frombuffer(body, dtype, count, offset).reshape(shape)
        offset += _multiple(count * dtype.itemsize)
    if offset != len(body):
        raise ValueError(f"the arrays have {offset:,} bytes of {len(body):,}")
    return arrays


def _checksum(header: bytes, body: bytes | memoryview) -> int:
    before, after = header[: _CHECKSUM.start], header[_CHECKSUM.stop :]
    return zlib.crc32(body, zlib.crc32(after, zlib.crc32(before)))


def _padded(part: bytes, by: bytes) -> bytes:
    return part.ljust(_multiple(len(part)), by)


def _multiple(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
