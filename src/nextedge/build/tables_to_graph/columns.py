"""Columns of users and items, encoded one by one in the order of positions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from nextedge.data.ids import IdMap
from nextedge.engines.base import Engine
from nextedge.graph.attributes import column_folder, encode_column, save_column, save_kinds
from nextedge.graph.text_encoder import TextProgress, text_encoder
from nextedge.schema import ColumnKind
from nextedge.storage.arrays import mapped


@dataclass(frozen=True)
class EncodeColumns:
    """The block function: number and name of a column in, its encoded arrays written.

    Attributes:
        path: the table.
        order: file of int64[N], the row of each position, -1 for none.
        text_model, text_cache: see ``text_encoder``.
        output: folder of all columns.
    """

    path: Path
    order: Path
    kinds: Mapping[str, ColumnKind]
    text_model: Path | None
    text_cache: Path
    output: Path

    def __call__(self, block: pa.Table) -> pa.Table:
        text = text_encoder(self.text_model, self.text_cache)
        for number, name in zip(
            block["number"].to_pylist(), block["name"].to_pylist(), strict=True
        ):
            column = in_order(self.path, name, mapped(self.order))
            encoded = encode_column(column, self.kinds[name], text)
            save_column(encoded, self.output / column_folder(number))
        return block

    def run(self, engine: Engine, progress: TextProgress) -> None:
        """Encode every column; texts first, since a model reads them in blocks of their own."""
        text = text_encoder(self.text_model, self.text_cache)
        for name, kind in self.kinds.items():
            if kind is ColumnKind.TEXT:
                # Distinct, so that the model encodes each text once.
                texts = pc.unique(pq.read_table(self.path, columns=[name])[name].cast(pa.string()))
                text.prepare(texts.drop_null().to_pylist(), engine.map_blocks, progress)
        for _ in engine.map_blocks(self, _blocks(self.kinds)):
            pass
        save_kinds(len(mapped(self.order)), self.kinds, self.output)


def _blocks(names: Mapping[str, ColumnKind]) -> Iterator[pa.Table]:
    for number, name in enumerate(names):
        yield pa.table({"number": [number], "name": [name]})


def write_order(path: Path, key: str, ids: IdMap, output: Path) -> Path:
    """Write the row of each position, -1 for an id without a row; returns the file."""
    order = np.full(len(ids), -1, np.int64)
    position = ids.positions(pq.read_table(path, columns=[key])[key])
    order[position[position >= 0]] = np.flatnonzero(position >= 0)
    np.save(output, order)
    return output


def in_order(path: Path, name: str, order: np.ndarray) -> pa.ChunkedArray:
    """A column with one row a position; null for an id without a row."""
    rows = pq.read_table(path, columns=[name])[name]
    return rows.take(pa.array(order, mask=order < 0))
