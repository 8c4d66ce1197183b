"""Packed values: what goes in comes out, and any damage is said."""

from __future__ import annotations

import json
import struct
import zlib

import hypothesis.extra.numpy as arrays_of
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nextedge.errors import CorruptValueError
from nextedge.stores import packing
from nextedge.stores.packing import pack, unpack

DTYPES = st.one_of(
    arrays_of.boolean_dtypes(),
    arrays_of.integer_dtypes(endianness="?"),
    arrays_of.unsigned_integer_dtypes(endianness="?"),
    arrays_of.floating_dtypes(endianness="?", sizes=(16, 32, 64)),
)
ARRAYS = arrays_of.arrays(
    DTYPES, arrays_of.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=6)
)
METADATA = st.dictionaries(
    st.text(),
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.text()
        | st.floats(allow_nan=False, allow_infinity=False),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=8,
    ),
    max_size=4,
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.text(), ARRAYS, max_size=4), METADATA)
def test_what_is_packed_is_unpacked(arrays: dict[str, np.ndarray], metadata: dict) -> None:  # type: ignore[type-arg]
    found, told = unpack(pack(arrays, metadata))
    assert told == metadata
    assert list(found) == list(arrays)
    for name, values in arrays.items():
        assert found[name].dtype == values.dtype.newbyteorder("<")
        assert found[name].shape == values.shape
        assert found[name].tobytes() == values.astype(found[name].dtype).tobytes()
        assert not found[name].flags.writeable
        assert found[name].base is not None or not found[name].size, "a view, not a copy"


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_damage_is_said(data: st.DataObject) -> None:
    arrays = data.draw(st.dictionaries(st.text(max_size=3), ARRAYS, max_size=3))
    value = pack(arrays, data.draw(METADATA))
    place = data.draw(st.integers(0, len(value) - 1))
    flipped = bytearray(value)
    flipped[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(CorruptValueError):
        unpack(bytes(flipped))
    with pytest.raises(CorruptValueError):
        unpack(value[:place])
    with pytest.raises(CorruptValueError):
        unpack(value + data.draw(st.binary(min_size=1, max_size=9)))


def test_every_single_bit_counts() -> None:
    value = pack({"a": np.arange(5, dtype=np.int16)}, {"n": 1})
    for place in range(len(value) * 8):
        flipped = bytearray(value)
        flipped[place // 8] ^= 1 << place % 8
        with pytest.raises(CorruptValueError):
            unpack(bytes(flipped))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_noise_is_said(noise: bytes) -> None:
    for value in (noise, packing.MAGIC + noise, signed(noise)):
        with pytest.raises(CorruptValueError):
            unpack(value)


def signed(directory: bytes, body: bytes = b"", version: int = packing.VERSION) -> bytes:
    """A value with a right checksum, whatever is in it."""
    size = 24 + len(directory) + len(body)
    head = struct.pack("<4sHH", packing.MAGIC, version, 0)
    tail = struct.pack("<IQ", len(directory), size) + directory + body
    return head + struct.pack("<I", zlib.crc32(tail, zlib.crc32(head))) + tail


@pytest.mark.parametrize(
    "listed",
    [
        [["a", "<i4", [1 << 62]]],
        [["a", "<i4", [1 << 40, 1 << 40]]],
        [["a", "<i4", [0, 1 << 80]]],
        [["a", "<i4", [-1]]],
        [["a", "<i4", [2.0]]],
        [["a", "<i4", [True, 2]]],
        [["a", "<i4", [-2, -1]]],
        [],  # says nothing of the bytes that are there
        [["a", "<i4", [3]]],
        [["a", "<i4", [1]], ["b", "<i4", [1 << 20]]],
        [["a", "|O", [1]]],
        [["a", "<M8[us]", [1]]],
        [["a", "<c16", [1]]],
        [["a", ["<i4"], [1]]],
        [["a", "<i4", [1] * 100]],
        [["a", "<i4"]],
        {"a": 1},
        None,
    ],
)
def test_shapes_and_types_that_cannot_be_are_said(listed: object) -> None:
    directory = json.dumps({"metadata": {}, "arrays": listed}).encode()
    with pytest.raises(CorruptValueError):
        unpack(signed(directory, bytes(8)))


def test_another_version_is_named() -> None:
    directory = b'{"metadata": {}, "arrays": []}'
    assert unpack(signed(directory)) == ({}, {})
    with pytest.raises(CorruptValueError, match="format 2; this version reads 1"):
        unpack(signed(directory, version=2))


def test_a_directory_that_is_too_deep_is_said() -> None:
    with pytest.raises(CorruptValueError):
        unpack(signed(b"[" * 100_000))


@pytest.mark.parametrize("values", [np.array(["a"]), np.array([None]), np.zeros(1, complex)])
def test_other_types_are_not_packed(values: np.ndarray) -> None:  # type: ignore[type-arg]
    with pytest.raises(TypeError, match="expected one of"):
        pack({"a": values})


def test_metadata_is_json() -> None:
    with pytest.raises(TypeError):
        pack({}, {"a": object()})
    with pytest.raises(ValueError, match="JSON"):
        pack({}, {"a": float("nan")})
