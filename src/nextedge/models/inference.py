"""Layers over all nodes, some rows at a time: in this process, or as blocks of an engine.

A ``Layer`` holds whole arrays and says what it makes of a range of their rows: the arithmetic is
there, once. An ``Inference`` runs it over all rows. Ranges have the same bounds wherever they run,
since the last bits of a matrix product depend on how many rows it has.
"""

from __future__ import annotations

import os
import shutil
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from nextedge.storage.arrays import ArrayFiles, mapped, mapped_file
from nextedge.storage.files import writing
from nextedge.types import FloatArray

if TYPE_CHECKING:
    from nextedge.engines.base import Engine

ROWS = 1 << 16
"""Rows of a range: what a layer makes of them beside its arrays is some tens of MiB."""


class Layer(ABC):
    """One array from others, row by row.

    A subclass is a frozen dataclass whose fields are arrays, plain values, or tuples, mappings and
    dataclasses of these: an inference may put files in the place of the arrays.
    """

    @abstractmethod
    def __len__(self) -> int:
        """Rows in all."""

    @abstractmethod
    def rows(self, start: int, stop: int) -> FloatArray:
        """float32[stop - start, d]: some of its rows; what they are depends on no others."""


def unit_rows(x: FloatArray) -> FloatArray:
    """float32[n, d]: rows brought to unit length; one of zeros stays.

    >>> unit_rows(np.float32([[3, 4], [0, 0]])).tolist()
    [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    length = np.linalg.norm(x, axis=1, keepdims=True)
    return (x / np.maximum(length, 1e-12)).astype(np.float32, copy=False)


class Inference(ABC):
    """Where layers are run."""

    @abstractmethod
    def run(self, name: str, layer: Layer) -> FloatArray:
        """float32[N, d]: all rows of a layer.

        Args:
            name: of the layer, once in a model.
        """


@dataclass(frozen=True)
class InProcess(Inference):
    """Here, on all cores, into memory; beside the result one range is held.

    Attributes:
        at_once: rows of a range.
    """

    at_once: int = ROWS

    def run(self, name: str, layer: Layer) -> FloatArray:
        """See ``Inference.run``."""
        out = None
        for start, stop in _ranges(len(layer), self.at_once):
            made = layer.rows(start, stop)
            if out is None:
                out = np.empty((len(layer), made.shape[1]), np.float32)
            out[start:stop] = made
        assert out is not None
        return out


IN_PROCESS = InProcess()


@dataclass(frozen=True, eq=False)
class ByEngine(Inference):
    """As blocks of an engine, from files to files; no layer lies in this process's memory.

    Arrays that are mapped files already are read where they lie, the others are written to the
    folder once. A run that was stopped finds there the layers that were done, and the blocks of the
    one that was not. Each process that runs a block uses the cores that its engine gave it.

    Attributes:
        engine: runs the blocks.
        folder: of this artifact over this data alone; made where it is missing, and the caller's to
            delete once nobody reads what ``run`` gave. All machines of the engine see it.
        at_once: rows of a block.
    """

    engine: Engine
    folder: Path
    at_once: int = ROWS
    _files: dict[int, tuple[np.ndarray, Path]] = field(default_factory=dict, repr=False)

    def run(self, name: str, layer: Layer) -> FloatArray:
        """See ``Inference.run``; the array is a mapped file of the folder.

        Raises:
            StorageError: the folder cannot be written, or executors do not see it.
        """
        path, keep = self.folder / f"{name}.npy", self.folder / f"{name}-blocks"
        if not path.exists():
            with writing(path):
                keep.mkdir(parents=True, exist_ok=True)
                function = LayerRows(self._filed(name, layer))
                with ArrayFiles(keep) as write:
                    blocks = _blocks(len(layer), self.at_once)
                    for made in self.engine.map_blocks(function, blocks, keep):
                        write(name, _values(made))
                os.replace(keep / path.name, path)
        shutil.rmtree(keep, ignore_errors=True)
        return mapped(path)

    def _filed(self, name: str, layer: Layer) -> Any:
        """The layer with paths in the place of its arrays.

        A file is named after the layer and the place in it, so that a task which a killed run
        left behind never finds another array under a name that it knows.
        """
        place = 0

        def path_of(values: np.ndarray) -> Path:
            nonlocal place
            place += 1
            known = self._files.get(id(values))
            if known is None:
                path = mapped_file(values)
                if path is None or not path.exists():
                    path = self.folder / f"{name}.{place}.npy"
                    _save(path, values)
                # the array is kept, since its identity is that of another once it is gone
                known = self._files[id(values)] = values, path
            return known[1]

        return _changed(layer, np.ndarray, path_of)


@dataclass(frozen=True)
class LayerRows:
    """The block function: a range of rows in, what a layer makes of them out.

    Attributes:
        layer: a ``Layer`` whose arrays are paths of ``.npy`` files.
    """

    layer: Any

    def __call__(self, block: pa.Table) -> pa.Table:
        """One row: ``rows`` and ``width`` of the result, and its ``values`` as one list."""
        made = self.open().rows(block["start"][0].as_py(), block["stop"][0].as_py())
        flat = np.ascontiguousarray(made, np.float32).reshape(-1)
        values = pa.LargeListArray.from_arrays(pa.array([0, len(flat)], pa.int64()), pa.array(flat))
        return pa.table({"rows": [len(made)], "width": [made.shape[1]], "values": values})

    def open(self) -> Layer:
        """The layer over mapped files, which costs some microseconds a file."""
        opened: Layer = _changed(self.layer, Path, mapped)
        return opened


def _changed(value: Any, kind: type, change: Callable[[Any], Any]) -> Any:
    """The value with everything of a kind in it changed."""
    if isinstance(value, kind):
        return change(value)
    if isinstance(value, tuple):
        return tuple(_changed(each, kind, change) for each in value)
    if isinstance(value, Mapping):
        return {name: _changed(each, kind, change) for name, each in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        parts = {each.name: getattr(value, each.name) for each in fields(value)}
        return replace(value, **{n: _changed(part, kind, change) for n, part in parts.items()})
    return value


def _save(path: Path, values: np.ndarray) -> None:
    """Write an array, whole or not at all, unless it is there."""
    if not path.exists():
        partial = path.with_suffix(f".{socket.gethostname()}-{os.getpid()}.part")
        try:
            with partial.open("wb") as file:
                np.save(file, values, allow_pickle=False)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)


def _ranges(rows: int, at_once: int) -> Iterator[tuple[int, int]]:
    """Bounds of ranges; one of no row where there is none, which has a width yet."""
    for start in range(0, max(rows, 1), at_once):
        yield start, min(start + at_once, rows)


def _blocks(rows: int, at_once: int) -> Iterator[pa.Table]:
    for start, stop in _ranges(rows, at_once):
        yield pa.table({"start": [start], "stop": [stop]})


def _values(made: pa.Table) -> FloatArray:
    """float32[n, d] of what ``LayerRows`` gave."""
    shape = made["rows"][0].as_py(), made["width"][0].as_py()
    found: FloatArray = made["values"].chunk(0).flatten().to_numpy().reshape(shape)
    return found
