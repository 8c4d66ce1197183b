"""Id maps: the tenant's ids (int64 or string) to dense positions and back.

Ids are sorted in one memory-mapped Arrow file, which processes share and open at no cost. A look-up
is a binary search; a batch of look-ups is a hash join.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numba
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nextedge.storage.arrays import plain
from nextedge.types import UNKNOWN, Identifier, IndexArray, IntArray

_BATCH = 64
_MANY = 100_000  # integers in one look-up, from which it pays to slice their range
# a hash join reads the whole map: from 64 ids on it is cheaper than binary searches, unless the map
# is so many times as long
_SEARCHED = 50


@dataclass(frozen=True, eq=False)
class Slices:
    """Equal slices of the range of ascending integers, with the first position of each slice.

    A look-up searches one slice: two memory accesses, not twenty, if ids are evenly spread, and never
    more than without slices.

    Attributes:
        low: the smallest integer.
        shift: a slice is 2**shift wide.
        start: int32[slices + 1], the first position of each slice.
    """

    low: int
    shift: int
    start: IndexArray

    @classmethod
    def of(cls, integers: IntArray) -> Slices:
        """About as many slices as integers."""
        low, width = int(integers[0]), int(integers[-1]) - int(integers[0])
        shift = max(0, width.bit_length() - len(integers).bit_length())
        start = np.zeros((width >> shift) + 2, np.int32)
        _count_slices(integers, low, shift, start[1:])
        return cls(low, shift, np.cumsum(start, dtype=np.int32))

    def positions(self, integers: IntArray, wanted: IntArray) -> IntArray:
        """int64[n]: ``np.searchsorted(integers, wanted)`` for integers in the map, else any position."""
        position = np.zeros(len(wanted), np.int64)
        arrays = plain(integers, np.int64), plain(wanted, np.int64)
        _search_slices(*arrays, self.low, self.shift, self.start, position)
        return position


@numba.njit(cache=True, nogil=True)
def _count_slices(integers, low, shift, count):  # type: ignore[no-untyped-def]
    for value in integers:
        # Unsigned: the difference of two int64 may not fit int64.
        count[(np.uint64(value) - np.uint64(low)) >> np.uint64(shift)] += 1


@numba.njit(cache=True, nogil=True)
def _search_slices(integers, wanted, low, shift, start, position):  # type: ignore[no-untyped-def]
    for number in range(len(wanted)):
        value = wanted[number]
        if value < low or value > integers[-1]:  # it has no slice
            continue
        slot = (np.uint64(value) - np.uint64(low)) >> np.uint64(shift)
        begin, end = start[slot], start[slot + np.uint64(1)]
        while begin < end:
            middle = (begin + end) >> 1
            if integers[middle] < value:
                begin = middle + 1
            else:
                end = middle
        position[number] = begin


class IdMap:
    """Ids of one kind, sorted ascending; an id's position is its index in that order.

    >>> ids = IdMap(pa.array(["bo", "ada"]))
    >>> ids.positions(["ada", "zoe"]).tolist(), ids.identifiers([1]).to_pylist()
    ([0, -1], ['bo'])
    """

    def __init__(self, values: pa.Array | pa.ChunkedArray) -> None:
        # Large strings: the text of all ids may pass the 2 GiB of plain ones.
        kind = pa.int64() if pa.types.is_integer(values.type) else pa.large_string()
        unique = pc.unique(values.cast(kind))
        self.values: pa.Array = unique.take(pc.sort_indices(unique))
        self._integers = self._as_integers()

    @classmethod
    def of_sorted(cls, values: pa.Array | pa.ChunkedArray) -> IdMap:
        """A map of ids that are ascending and distinct."""
        kind = pa.int64() if pa.types.is_integer(values.type) else pa.large_string()
        cast = values.cast(kind)
        ids = cls.__new__(cls)
        ids.values = _combined(cast) if isinstance(cast, pa.ChunkedArray) else cast
        ids._integers = ids._as_integers()
        return ids

    def _as_integers(self) -> np.ndarray | None:
        if pa.types.is_integer(self.values.type):
            if self.values.null_count:  # an empty position sorts as the one before it
                filled = np.asarray(pc.fill_null(self.values, np.iinfo(np.int64).min))
                return np.maximum.accumulate(filled)
            return np.asarray(self.values.to_numpy(zero_copy_only=len(self.values) > 0))
        return None

    def __len__(self) -> int:
        return len(self.values)

    def __contains__(self, identifier: Identifier) -> bool:
        return self.position(identifier) != UNKNOWN

    def position(self, identifier: Identifier) -> int:
        """Position of one id, or UNKNOWN; ``"7"`` finds the integer id 7, and 7 the text."""
        # "07" finds nothing: an id has one spelling, in live state too
        if self._integers is not None:
            try:
                integer = int(identifier)
                position = int(np.searchsorted(self._integers, integer))
            except (ValueError, OverflowError):
                return UNKNOWN
            known = position < len(self) and int(self._integers[position]) == integer
            known = known and self.values[position].is_valid
            return position if known and str(integer) == str(identifier) else UNKNOWN
        text = str(identifier)
        position = bisect_left(_Strings(self.values), text.encode())
        known = position < len(self) and self.values[position].as_py() == text
        return position if known else UNKNOWN

    def positions(self, identifiers: Sequence[Identifier] | pa.Array) -> IndexArray:
        """int32[n]: positions of many ids; UNKNOWN for an id that is not in the map."""
        if not isinstance(identifiers, pa.Array | pa.ChunkedArray):
            few = len(identifiers) < max(_BATCH, len(self) // _SEARCHED)
            if (self._integers is None and few) or len(identifiers) < _BATCH:
                return np.array(list(map(self.position, identifiers)), dtype=np.int32)
            # Arrow refuses a list of numbers and text.
            text = any(isinstance(identifier, str) for identifier in identifiers)
            identifiers = pa.array(list(map(str, identifiers)) if text else identifiers)
        if identifiers.type != self.values.type:
            identifiers = _castable(identifiers, self.values.type)
        if self._integers is not None:
            return self._search(identifiers)
        positions = pc.index_in(identifiers, value_set=self.values, skip_nulls=True)
        return np.asarray(pc.fill_null(positions, UNKNOWN), dtype=np.int32)

    def _search(self, identifiers: pa.Array | pa.ChunkedArray) -> IndexArray:
        assert self._integers is not None
        known = np.asarray(pc.is_valid(identifiers))
        wanted = np.asarray(pc.fill_null(identifiers, 0), dtype=np.int64)
        if len(self) == 0:
            return np.full(len(wanted), UNKNOWN, dtype=np.int32)
        if len(wanted) < _MANY or self.values.null_count:
            position = np.searchsorted(self._integers, wanted)
        else:
            position = self._slices.positions(self._integers, wanted)
        # An id beyond the last one has the position after it.
        position = np.minimum(position, len(self) - 1)
        known &= self._integers[position] == wanted
        if self.values.null_count:
            known &= np.asarray(pc.is_valid(self.values))[position]
        return np.where(known, position, UNKNOWN).astype(np.int32)

    @cached_property
    def _slices(self) -> Slices:
        assert self._integers is not None
        return Slices.of(self._integers)

    def identifier(self, position: int) -> Identifier | None:
        """The id at a position; None for an erased user."""
        identifier: Identifier | None = self.values[position].as_py()
        return identifier

    def identifiers(self, positions: IndexArray | Sequence[int]) -> pa.Array:
        """The ids at some positions, as int64 or string."""
        taken = self.values.take(arrow_positions(positions))
        return taken.cast(pa.string()) if self._integers is None else taken

    def without(self, position: int) -> IdMap:
        """The same map with one position empty."""
        mask = np.zeros(len(self), bool)
        mask[position] = True
        mask |= np.asarray(pc.is_null(self.values))  # users erased before
        ids = IdMap.__new__(IdMap)
        if pa.types.is_integer(self.values.type):
            # The erased id must not stay in the bytes below its null.
            bare = np.where(mask, 0, np.asarray(pc.fill_null(self.values, 0)))
            ids.values = pa.array(bare, mask=mask)
        else:
            ids.values = emptied(self.values, mask)
        ids._integers = ids._as_integers()
        return ids

    def save(self, path: Path) -> None:
        """Write the ids as one uncompressed Arrow file that can be memory-mapped."""
        table = pa.table({"identifier": self.values})
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)

    @classmethod
    def load(cls, path: Path) -> IdMap:
        """Memory-map ids that ``save`` wrote."""
        with pa.memory_map(str(path)) as source:
            column = pa.ipc.open_file(source).read_all().column("identifier")
        ids = cls.__new__(cls)
        # combining one chunk would copy it out of the map
        ids.values = column.chunk(0) if column.num_chunks == 1 else _combined(column)
        ids._integers = ids._as_integers()
        return ids


class _Strings(Sequence[bytes]):
    """An Arrow string array as a sorted sequence of UTF-8, for ``bisect``."""

    def __init__(self, values: pa.Array) -> None:
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: int) -> bytes:  # type: ignore[override]
        while index >= 0:  # an empty position sorts as the one before it
            if self.values[index].is_valid:
                return bytes(self.values[index].as_buffer())
            index -= 1
        return b""


def _combined(column: pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays(column.chunks or [pa.array([], column.type)])


def arrow_positions(positions: IndexArray | Sequence[int]) -> pa.Array:
    """Positions as an int64 Arrow array, without a copy if they are int64 already."""
    # `pa.array` of a NumPy array imports pandas: 30 MB that a server process does without
    values = np.ascontiguousarray(positions, np.int64)
    return pa.Array.from_buffers(pa.int64(), len(values), [None, pa.py_buffer(values)])


def emptied(values: pa.Array, mask: np.ndarray) -> pa.Array:
    """The values with nulls where masked; unlike ``if_else``, without the bytes of masked values."""
    return values.take(pa.array(np.arange(len(values)), mask=mask))


def _castable(identifiers: pa.Array | pa.ChunkedArray, kind: pa.DataType) -> pa.Array:
    """Cast ids to the map's type; text that is no integer becomes null, hence UNKNOWN."""
    if pa.types.is_integer(kind) and not pa.types.is_integer(identifiers.type):
        identifiers = pc.if_else(is_int64(identifiers), identifiers, None)
    return identifiers.cast(kind)


def is_int64(text: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Whether each text is an int64 as Python writes it: no plus sign, no leading zeros."""
    text = text.cast(pa.string())
    canonical = pc.match_substring_regex(text, r"^(0|-?[1-9][0-9]{0,18})$")
    digits = pc.utf8_ltrim(text, "-")
    # Compared as text, since a cast fails at the first number beyond int64.
    most = pc.if_else(pc.starts_with(text, "-"), "9223372036854775808", "9223372036854775807")
    fits = pc.or_(pc.less(pc.utf8_length(digits), 19), pc.less_equal(digits, most))
    return pc.and_(canonical, fits)
