"""Columns of users and items in the order of positions, each encoded by itself."""

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
    """The block function: a column's place and name in, its encoded arrays written.

    Attributes:
        path: of the table.
        order: file of int64[N], the row of each position, -1 where it has none.
        text_model, text_cache: as of ``text_encoder``.
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
        for place, name in zip(block["place"].to_pylist(), block["name"].to_pylist(), strict=True):
            column = in_order(self.path, name, mapped(self.order))
            encoded = encode_column(column, self.kinds[name], text)
            save_column(encoded, self.output / column_folder(place))
        return block

    def run(self, engine: Engine, progress: TextProgress) -> None:
        """Encode every column; texts that a model reads first, in blocks of their own."""
        text = text_encoder(self.text_model, self.text_cache)
        for name, kind in self.kinds.items():
            if kind is ColumnKind.TEXT:
                texts = pc.unique(pq.read_table(self.path, columns=[name])[name].cast(pa.string()))
                text.prepare(texts.drop_null().to_pylist(), engine.map_blocks, progress)
        for _ in engine.map_blocks(self, _blocks(self.kinds)):
            pass
        save_kinds(len(mapped(self.order)), self.kinds, self.output)


def _blocks(names: Mapping[str, ColumnKind]) -> Iterator[pa.Table]:
    for place, name in enumerate(names):
        yield pa.table({"place": [place], "name": [name]})


def write_order(path: Path, key: str, ids: IdMap, output: Path) -> Path:
    """The file of the row of each position, -1 for an id without one."""
    order = np.full(len(ids), -1, np.int64)
    found = ids.positions(pq.read_table(path, columns=[key])[key])
    order[found[found >= 0]] = np.flatnonzero(found >= 0)
    np.save(output, order)
    return output


def in_order(path: Path, name: str, order: np.ndarray) -> pa.ChunkedArray:
    """A column with one row a position; ids without a row get nulls."""
    rows = pq.read_table(path, columns=[name])[name]
    return rows.take(pa.array(order, mask=order < 0))
