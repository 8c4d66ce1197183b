"""Rows of tables as arrays in dense positions, block by block."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from nextedge import schema
from nextedge.build.tables_to_graph.co_occurrence import occasions
from nextedge.data.ids import IdMap
from nextedge.engines.base import Engine
from nextedge.engines.blocks import OpenedFiles, run_where_worth
from nextedge.storage.arrays import ArrayFiles, mapped

ROWS = 2_000_000
"""Rows of a block."""
_TEXT_ROWS = 8
"""Times as many where ids are text: the look-up of each block hashes all ids of the map."""
_ENDS = {
    schema.CONNECTIONS: (schema.SRC, schema.DST, schema.USERS),
    schema.BLOCKS: (schema.USER_ID, schema.OTHER_ID, schema.USERS),
    schema.INTERACTIONS: (schema.USER_ID, schema.ITEM_ID, schema.ITEMS),
}
"""Columns of the ends of an edge, and the table of the second end."""
_id_maps: OpenedFiles[Path, IdMap] = OpenedFiles(2)
"""Of users and of items, which both block functions of this module read."""


def _ids(entities: Path, table: str) -> IdMap:
    path = entities / f"{table}.arrow"
    return _id_maps.get(path, lambda: IdMap.load(path))


def close_ids() -> None:
    """Let go of the id maps of this process."""
    _id_maps.clear()


@dataclass(frozen=True)
class InternEdges:
    """The block function: row groups of a table of edges in, their arrays out.

    Attributes:
        path: of the table.
        name: which table.
        entities: folder of the id maps.
        one_core: see ``BlockFunction``.
    """

    path: Path
    name: str
    entities: Path
    one_core: bool = True

    def __call__(self, block: pa.Table) -> pa.Table:
        """Positions ``source`` and ``target``, ``time`` (µs, 0 where none), ``weight``, and where
        the table has them ``arrived`` (µs) and ``action`` (an index into ``schema.ACTIONS``).
        """
        left, right, others = _ENDS[self.name]
        wanted = [left, right, schema.TIMESTAMP, schema.ARRIVED_AT, schema.WEIGHT]
        wanted += ["event"] if self.name == schema.INTERACTIONS else []
        rows = _rows(self.path, block, wanted)
        time = micros(rows, schema.TIMESTAMP)
        arrays = {
            "source": _ids(self.entities, schema.USERS).positions(rows.column(left)),
            "target": _ids(self.entities, others).positions(rows.column(right)),
            "time": time,
            "weight": np.ones(len(rows), np.float32),
        }
        if schema.ARRIVED_AT in rows.column_names:
            # A missing arrival is 0, and no record is known before its time.
            arrays["arrived"] = np.maximum(time, micros(rows, schema.ARRIVED_AT))
        if "event" in rows.column_names:
            arrays["action"] = actions(rows, "event")
        if schema.WEIGHT in rows.column_names:
            arrays["weight"] = np.asarray(rows.column(schema.WEIGHT), dtype=np.float32)
        return pa.table(arrays)


@dataclass(frozen=True)
class InternImpressions:
    """The block function: row groups of impressions in, the rows of one kind of candidate out.

    Attributes:
        column: ``candidate_id`` or ``item_id``.
    """

    path: Path
    column: str
    entities: Path
    one_core: bool = True

    def __call__(self, block: pa.Table) -> pa.Table:
        """As for edges, with ``acted`` (µs), ``position`` (-1 where none) and ``propensity`` (NaN)."""
        rows = _rows(
            self.path,
            block,
            [
                schema.USER_ID,
                self.column,
                schema.TIMESTAMP,
                schema.ARRIVED_AT,
                "action",
                "action_timestamp",
                "position",
                "propensity",
            ],
        )
        others = schema.USERS if self.column == schema.CANDIDATE_ID else schema.ITEMS
        source = _ids(self.entities, schema.USERS).positions(rows.column(schema.USER_ID))
        target = _ids(self.entities, others).positions(rows.column(self.column))
        time = micros(rows, schema.TIMESTAMP)
        position = pc.fill_null(_column(rows, "position", pa.float64()), -1.0)
        propensity = pc.fill_null(_column(rows, "propensity", pa.float64()), float("nan"))
        arrays = {
            "source": source,
            "target": target,
            "time": time,
            "acted": micros(rows, "action_timestamp"),
            "arrived": np.maximum(time, micros(rows, schema.ARRIVED_AT)),
            "action": actions(rows, "action"),
            "position": np.asarray(position).astype(np.int32),
            "propensity": np.asarray(propensity, dtype=np.float32),
        }
        # Impressions number no ids, so that an end may be in no other table.
        known = (source >= 0) & (target >= 0)
        return pa.table({name: values[known] for name, values in arrays.items()})


def intern(engine: Engine, path: Path, name: str, entities: Path, output: Path) -> None:
    """Write the rows of a table as arrays; impressions of people and of items in folders of their own."""
    output.mkdir()
    if name != schema.IMPRESSIONS:
        text = any(
            _ids(entities, of).values.type != pa.int64() for of in (schema.USERS, _ENDS[name][2])
        )
        _write(engine, InternEdges(path, name, entities, not text), path, output)
        if name == schema.INTERACTIONS:
            _write_occasions(path, output)
        return
    columns = pq.read_schema(path).names
    for column in (schema.CANDIDATE_ID, schema.ITEM_ID):
        if column in columns:
            (output / column).mkdir()
            _write(engine, InternImpressions(path, column, entities), path, output / column)


def _write(
    engine: Engine, function: InternEdges | InternImpressions, path: Path, output: Path
) -> None:
    rows = ROWS if function.one_core else ROWS * _TEXT_ROWS
    with ArrayFiles(output) as write:
        blocks = _row_groups(path, rows)
        for made in run_where_worth(engine.map_blocks, function, blocks):
            for name in made.column_names:
                write(name, made[name].to_numpy())


def _row_groups(path: Path, rows: int) -> Iterator[pa.Table]:
    """Blocks of neighbouring row groups of about ``rows`` rows; one empty block for an empty file."""
    metadata = pq.read_metadata(path)
    groups: list[int] = []
    size = 0
    for group in range(metadata.num_row_groups):
        groups.append(group)
        size += metadata.row_group(group).num_rows
        if size >= rows:
            yield pa.table({"group": pa.array(groups, pa.int32())})
            groups, size = [], 0
    # An empty table must still write its arrays.
    if groups or not metadata.num_row_groups:
        yield pa.table({"group": pa.array(groups, pa.int32())})


def _rows(path: Path, block: pa.Table, columns: list[str]) -> pa.Table:
    """Read the row groups of a block, those of the columns that the file has."""
    with pq.ParquetFile(path) as file:
        present = [name for name in columns if name in file.schema_arrow.names]
        return file.read_row_groups(block["group"].to_pylist(), columns=present)


def _write_occasions(path: Path, output: Path) -> None:
    known = {column.name for column in schema.TABLES[schema.INTERACTIONS].columns}
    columns = [name for name in pq.read_schema(path).names if name not in known]
    arrays = (mapped(output / f"{name}.npy") for name in ("source", "target", "time"))
    np.save(output / "occasion.npy", occasions(pq.read_table(path, columns=columns), *arrays))


def intern_hidden(path: Path, users: IdMap, output: Path) -> None:
    """Write hidden pairs in positions; a pair with an unknown end needs no exclusion."""
    output.mkdir()
    rows = pq.read_table(path)
    ends = [users.positions(rows.column(name)) for name in (schema.SRC, schema.DST)]
    kept = (ends[0] >= 0) & (ends[1] >= 0)
    np.save(output / "source.npy", ends[0][kept])
    np.save(output / "target.npy", ends[1][kept])
    # The reader of records expects a time and a weight.
    np.save(output / "time.npy", np.zeros(kept.sum(), np.int64))
    np.save(output / "weight.npy", np.ones(kept.sum(), np.float32))


def actions(rows: pa.Table, name: str) -> np.ndarray:
    """int32[n] indices into ``schema.ACTIONS``; -1 for no action, -2 for another."""
    values = _column(rows, name, pa.string())
    index = pc.fill_null(pc.index_in(values, value_set=pa.array(schema.ACTIONS)), -2)
    return np.where(np.asarray(pc.is_null(values)), -1, np.asarray(index)).astype(np.int32)


def micros(rows: pa.Table, name: str) -> np.ndarray:
    """int64[n] microseconds UTC; 0 where there is none."""
    column = _column(rows, name, pa.timestamp("us", "UTC")).cast(pa.int64())
    return np.asarray(pc.fill_null(column, 0), dtype=np.int64)


def _column(rows: pa.Table, name: str, kind: pa.DataType) -> pa.ChunkedArray:
    if name in rows.column_names:
        return rows.column(name).cast(kind)
    return pa.chunked_array([pa.nulls(len(rows), kind)])
