"""Attributes of users or items: typed columns, encoded once for offline and online reads."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nextedge.graph.propagate import SparseRows
from nextedge.graph.text_encoder import TextEncoder
from nextedge.schema import ColumnKind
from nextedge.storage.arrays import mapped
from nextedge.types import FloatArray, IndexArray, IntArray

_NUMERIC = (ColumnKind.NUMBER, ColumnKind.FLAG, ColumnKind.LATITUDE, ColumnKind.LONGITUDE)


@dataclass(frozen=True, eq=False)
class Category:
    """One value a row: codes int32[N], -1 where missing, and the values by code."""

    codes: IndexArray
    values: pa.Array

    def as_sets(self) -> SparseRows:
        """Sets of at most one value, unit weights."""
        present = self.codes >= 0
        indptr = np.concatenate(([0], np.cumsum(present, dtype=np.int64)))
        codes = self.codes[present]
        return SparseRows(indptr, codes, np.ones(len(codes), np.float32), len(self.values))


@dataclass(frozen=True, eq=False)
class Tags:
    """A set of values a row, as sparse rows of codes ascending, and the values."""

    rows: SparseRows
    values: pa.Array

    def as_sets(self) -> SparseRows:
        """The sets, unit weights."""
        return self.rows


@dataclass(frozen=True, eq=False)
class Text:
    """Rows of unit length from the text encoder; the dot product of two is their cosine."""

    rows: SparseRows


@dataclass(frozen=True, eq=False)
class Number:
    """float32[N], NaN where missing."""

    values: FloatArray


@dataclass(frozen=True, eq=False)
class Instant:
    """int64[N] microseconds UTC, 0 where missing."""

    values: IntArray


Encoded = Category | Tags | Text | Number | Instant
Column = TypeVar("Column", Category, Number)


@dataclass(frozen=True, eq=False)
class Attributes:
    """Encoded columns of N rows by name, each with its declared or inferred kind."""

    rows: int
    kinds: Mapping[str, ColumnKind]
    columns: Mapping[str, Encoded]

    def of_kind(self, *kinds: ColumnKind) -> list[str]:
        """Names of the columns of some kinds, in the order of the columns."""
        return [name for name, kind in self.kinds.items() if kind in kinds]

    def encoded(self, encoding: type[Column], *kinds: ColumnKind) -> Iterator[tuple[str, Column]]:
        """Names and columns of some kinds that have one encoding, in the order of the columns."""
        for name in self.of_kind(*kinds):
            column = self.columns[name]
            assert isinstance(column, encoding)
            yield name, column

    def instant(self, name: str) -> IntArray | None:
        """The timestamp column of a name, or None."""
        column = self.columns.get(name)
        return column.values if isinstance(column, Instant) else None

    def flag(self, name: str, default: bool) -> np.ndarray:
        """bool[N] of a flag column; ``default`` where the column or a value is missing."""
        column = self.columns.get(name)
        if not isinstance(column, Number):
            return np.full(self.rows, default)
        return np.where(np.isnan(column.values), default, column.values > 0)

    def save(self, directory: Path) -> None:
        """Write each column's arrays and one index of names and kinds."""
        directory.mkdir()
        for number, column in enumerate(self.columns.values()):
            save_column(column, directory / column_folder(number))
        save_kinds(self.rows, self.kinds, directory)

    @classmethod
    def load(cls, directory: Path) -> Attributes:
        """Memory-map columns that ``save`` wrote."""
        about = json.loads((directory / "attributes.json").read_text())
        kinds = {name: ColumnKind(kind) for name, kind in about["kinds"].items()}
        columns = {
            name: _load_column(directory / column_folder(number), kind)
            for number, (name, kind) in enumerate(kinds.items())
        }
        return cls(about["rows"], kinds, columns)


def encode_column(column: pa.ChunkedArray, kind: ColumnKind, text: TextEncoder) -> Encoded:
    """Encode one column by its kind."""
    if kind is ColumnKind.CATEGORY:
        return _encode_category(column)
    if kind is ColumnKind.TAGS:
        return _encode_tags(column)
    if kind is ColumnKind.TEXT:
        return Text(text.encode(column.cast(pa.string()).fill_null("").to_pylist()))
    if kind is ColumnKind.TIMESTAMP:
        micros = column.cast(pa.timestamp("us", "UTC")).cast(pa.int64())
        return Instant(np.asarray(pc.fill_null(micros, 0), dtype=np.int64))
    numbers = np.asarray(column.cast(pa.float64()).fill_null(np.nan), dtype=np.float32)
    return Number(np.where(np.isfinite(numbers), numbers, np.nan).astype(np.float32))


def _encode_category(column: pa.ChunkedArray) -> Category:
    encoded = column.cast(pa.string()).combine_chunks().dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    codes = np.asarray(pc.fill_null(encoded.indices, -1), dtype=np.int32)
    return Category(codes, encoded.dictionary)


def _encode_tags(column: pa.ChunkedArray) -> Tags:
    lists = column.combine_chunks()
    sizes = np.asarray(pc.fill_null(pc.list_value_length(lists), 0), dtype=np.int64)
    row = np.repeat(np.arange(len(lists), dtype=np.int64), sizes)
    encoded = _encode_category(pa.chunked_array([pc.list_flatten(lists).cast(pa.string())]))
    present = encoded.codes >= 0
    pairs = np.unique(np.stack((row[present], encoded.codes[present].astype(np.int64))), axis=1)
    indptr = np.concatenate(([0], np.cumsum(np.bincount(pairs[0], minlength=len(lists)))))
    codes = pairs[1].astype(np.int32)
    values = np.ones(len(codes), np.float32)
    return Tags(SparseRows(indptr, codes, values, len(encoded.values)), encoded.values)


def _arrays(column: Encoded) -> dict[str, np.ndarray]:
    if isinstance(column, Category):
        return {"codes": column.codes}
    if isinstance(column, Number | Instant):
        return {"values": column.values}
    rows = column.rows
    return {
        "indptr": rows.indptr,
        "indices": rows.indices,
        "weights": rows.values,
        "columns": np.array(rows.columns),
    }


def column_folder(number: int) -> str:
    """Name of the folder of a column, by its number."""
    return f"{number:03d}"


def save_kinds(rows: int, kinds: Mapping[str, ColumnKind], directory: Path) -> None:
    """Write the index of columns that ``save_column`` saved one by one."""
    about = {"rows": rows, "kinds": {name: kind.value for name, kind in kinds.items()}}
    (directory / "attributes.json").write_text(json.dumps(about, ensure_ascii=False))


def save_column(column: Encoded, directory: Path) -> None:
    """Write the arrays of a column into its folder."""
    directory.mkdir(exist_ok=True)
    for name, array in _arrays(column).items():
        np.save(directory / f"{name}.npy", array)
    if isinstance(column, Category | Tags):
        table = pa.table({"value": column.values})
        with pa.OSFile(str(directory / "values.arrow"), "wb") as sink:
            with pa.ipc.new_file(sink, table.schema) as writer:
                writer.write_table(table)


def _load_column(directory: Path, kind: ColumnKind) -> Encoded:
    def array(name: str) -> Any:
        return mapped(directory / f"{name}.npy")

    if kind in _NUMERIC:
        return Number(array("values"))
    if kind is ColumnKind.TIMESTAMP:
        return Instant(array("values"))
    if kind is ColumnKind.CATEGORY:
        return Category(array("codes"), _load_values(directory))
    columns = int(np.load(directory / "columns.npy"))
    rows = SparseRows(array("indptr"), array("indices"), array("weights"), columns)
    return Text(rows) if kind is ColumnKind.TEXT else Tags(rows, _load_values(directory))


def _load_values(directory: Path) -> pa.Array:
    with pa.memory_map(str(directory / "values.arrow")) as source:
        return pa.ipc.open_file(source).read_all().column("value").combine_chunks()
