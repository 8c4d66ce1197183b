"""Layers over all nodes, a range of rows at a time: in this process, or as blocks of an engine.

A ``Layer`` has whole arrays and computes any range of its rows from them; an ``Inference`` runs it
over all rows.
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
"""Rows of a range, for which a layer needs some tens of MiB beside its arrays."""


class Layer(ABC):
    """An array that is computed from others, row by row.

    A subclass is a frozen dataclass whose fields are arrays, plain values, or tuples, mappings and
    dataclasses of these: an inference may replace the arrays by files.
    """

    @abstractmethod
    def __len__(self) -> int:
        """Rows in all."""

    @abstractmethod
    def rows(self, start: int, stop: int) -> FloatArray:
        """float32[stop - start, d]: a range of rows, which depends on no other rows."""


def unit_rows(x: FloatArray) -> FloatArray:
    """float32[n, d]: rows scaled to unit length; a row of zeros stays.

    >>> unit_rows(np.float32([[3, 4], [0, 0]])).tolist()
    [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    length = np.linalg.norm(x, axis=1, keepdims=True)
    # A row of zeros would become 0 / 0.
    return (x / np.maximum(length, 1e-12)).astype(np.float32, copy=False)


class Inference(ABC):
    """Runs layers."""

    @abstractmethod
    def run(self, name: str, layer: Layer) -> FloatArray:
        """float32[N, d]: all rows of a layer.

        Args:
            name: of the layer, unique in a model.
        """


@dataclass(frozen=True)
class InProcess(Inference):
    """Runs layers in this process, on all cores, into memory.

    Attributes:
        at_once: rows of a range.
    """

    at_once: int = ROWS

    def run(self, name: str, layer: Layer) -> FloatArray:
        """See ``Inference.run``."""
        out = None
        for start, stop in _ranges(len(layer), self.at_once):
            rows = layer.rows(start, stop)
            # A layer declares no width: its first range has it.
            if out is None:
                out = np.empty((len(layer), rows.shape[1]), np.float32)
            out[start:stop] = rows
        assert out is not None
        return out


IN_PROCESS = InProcess()


@dataclass(frozen=True, eq=False)
class ByEngine(Inference):
    """Runs layers as blocks of an engine, from files to files.

    Blocks read arrays that are mapped files where they lie; other arrays are written to the folder
    once. After an interruption, a run continues with the finished layers and blocks in the folder.
    Each process that runs a block uses the cores that its engine gives it.

    Attributes:
        engine: runs the blocks.
        folder: of this artifact over this data alone, on a disk that all machines of the engine
            see. The caller deletes it once nothing reads the results of ``run``.
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
        path, unfinished = self.folder / f"{name}.npy", self.folder / f"{name}-blocks"
        if not path.exists():
            with writing(path):
                unfinished.mkdir(parents=True, exist_ok=True)
                function = LayerRows(self._filed(name, layer))
                blocks = (
                    pa.table({"start": [start], "stop": [stop]})
                    for start, stop in _ranges(len(layer), self.at_once)
                )
                with ArrayFiles(unfinished) as write:
                    for rows in self.engine.map_blocks(function, blocks, unfinished):
                        write(name, _values(rows))
                # A later run takes an existing file as finished, so that it must appear whole.
                os.replace(unfinished / path.name, path)
        shutil.rmtree(unfinished, ignore_errors=True)
        return mapped(path)

    def _filed(self, name: str, layer: Layer) -> Any:
        """The layer with paths in place of its arrays."""
        count = 0

        def path_of(values: np.ndarray) -> Path:
            nonlocal count
            count += 1
            known = self._files.get(id(values))
            if known is None:
                path = mapped_file(values)
                if path is None or not path.exists():
                    # Named after layer and position: a task that a killed run left behind never
                    # reads another array under a name that it knows.
                    path = self.folder / f"{name}.{count}.npy"
                    _save(path, values)
                # Refer to the array, since another one may take its identity once it is deleted.
                known = self._files[id(values)] = values, path
            return known[1]

        return _changed(layer, np.ndarray, path_of)


@dataclass(frozen=True)
class LayerRows:
    """The block function: takes a range, returns the rows of a layer.

    Attributes:
        layer: a ``Layer`` whose arrays are paths of ``.npy`` files.
    """

    layer: Any

    def __call__(self, block: pa.Table) -> pa.Table:
        """One row: ``rows`` and ``width`` of the result, and its ``values`` as one list."""
        rows = self.open().rows(block["start"][0].as_py(), block["stop"][0].as_py())
        flat = np.ascontiguousarray(rows, np.float32).reshape(-1)
        values = pa.LargeListArray.from_arrays(pa.array([0, len(flat)], pa.int64()), pa.array(flat))
        return pa.table({"rows": [len(rows)], "width": [rows.shape[1]], "values": values})

    def open(self) -> Layer:
        """The layer over mapped files; takes some microseconds a file."""
        opened: Layer = _changed(self.layer, Path, mapped)
        return opened


def _changed(value: Any, kind: type, change: Callable[[Any], Any]) -> Any:
    """A copy of the value in which ``change`` replaces all parts of a kind."""
    if isinstance(value, kind):
        return change(value)
    if isinstance(value, tuple):
        return tuple(_changed(part, kind, change) for part in value)
    if isinstance(value, Mapping):
        return {name: _changed(part, kind, change) for name, part in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        parts = {field.name: getattr(value, field.name) for field in fields(value)}
        return replace(value, **{n: _changed(part, kind, change) for n, part in parts.items()})
    return value


def _save(path: Path, values: np.ndarray) -> None:
    """Write an array, whole or not at all, unless the file exists."""
    if not path.exists():
        # Named by machine and process: several may write the array into one shared folder.
        partial = path.with_suffix(f".{socket.gethostname()}-{os.getpid()}.part")
        try:
            with partial.open("wb") as file:
                np.save(file, values, allow_pickle=False)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)


def _ranges(rows: int, at_once: int) -> Iterator[tuple[int, int]]:
    """Bounds of ranges; one empty range where there is no row, so that the result has a width."""
    # The same bounds everywhere: the last bits of a product depend on its number of rows.
    for start in range(0, max(rows, 1), at_once):
        yield start, min(start + at_once, rows)


def _values(block: pa.Table) -> FloatArray:
    """float32[n, d] of a block of ``LayerRows``."""
    shape = block["rows"][0].as_py(), block["width"][0].as_py()
    values: FloatArray = block["values"].chunk(0).flatten().to_numpy().reshape(shape)
    return values
