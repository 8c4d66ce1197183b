"""Step 2: id maps, encoded attributes, and every edge in dense positions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from nextedge import schema
from nextedge.config import Config
from nextedge.data.ids import IdMap
from nextedge.data.kinds import feature_kinds
from nextedge.engines.base import Engine
from nextedge.features.attributes import Attributes, encode_attributes
from nextedge.features.text import text_encoder
from nextedge.graph.snapshot import Entities
from nextedge.steps.occasions import occasions
from nextedge.steps.step import Progress, Step
from nextedge.steps.withheld import HIDDEN
from nextedge.storage import ArrayFiles, mapped

_ID_COLUMNS = {
    schema.USERS: (schema.USER_ID,),
    schema.CONNECTIONS: (schema.SRC, schema.DST),
    schema.INTERACTIONS: (schema.USER_ID,),
    schema.BLOCKS: (schema.USER_ID, schema.OTHER_ID),
}
ROWS = 4_000_000
"""Of a table, that are read at a time."""
_TEXT_ROWS = 4
"""Times as many where ids are text: each look-up of a batch hashes all ids of the map."""
RECORDS = ("connections", "interactions", "impressions", "blocks")


class EntitiesStep(Step):
    """``entities/`` and, per table of edges, ``<table>/{source,target,time,weight}.npy``."""

    name = "entities"
    version = 4

    def __init__(self, config: Config, engine: Engine) -> None:
        self.config = config
        self.engine = engine
        self.text = text_encoder(config.text_model_path, config.state_path / "text")

    def settings(self) -> Mapping[str, Any]:
        features = self.config.features
        return {"users": features.users.model_dump(), "items": features.items.model_dump(),
                "text": self.text.version}  # fmt: skip

    def run(self, inputs: Mapping[str, Path], output: Path, progress: Progress) -> None:
        tables = inputs["tables"]
        progress("entities: ids", 0, 3)
        users = IdMap(_distinct(tables, _ID_COLUMNS))
        items = IdMap(
            _distinct(
                tables, {schema.ITEMS: (schema.ITEM_ID,), schema.INTERACTIONS: (schema.ITEM_ID,)}
            )
        )
        progress("entities: attributes", 1, 3)
        entities = Entities(
            users, items,
            self._attributes(tables, schema.USERS, users, progress),
            self._attributes(tables, schema.ITEMS, items, progress),
        )  # fmt: skip
        self.engine.rest()
        (output / "entities").mkdir()
        entities.save(output / "entities")
        self._displays(tables, output, entities)
        progress("entities: edges", 2, 3)
        for name in RECORDS:
            if (tables / f"{name}.parquet").exists():
                _intern(tables / f"{name}.parquet", name, entities, output / name)
        if (tables / f"{HIDDEN}.parquet").exists():
            _intern_hidden(tables / f"{HIDDEN}.parquet", users, output / HIDDEN)

    def _attributes(self, tables: Path, name: str, ids: IdMap, progress: Progress) -> Attributes:
        path = tables / f"{name}.parquet"
        if not path.exists():
            return Attributes(len(ids), {}, {})
        expression = self.engine.read(f"clean_{name}", path.name, path.parent)
        settings = getattr(self.config.features, name)
        kinds = feature_kinds(expression, schema.TABLES[name], settings)
        return encode_attributes(
            _in_order(path, schema.TABLES[name].key[0], ids, list(kinds)),
            kinds,
            self.text,
            lambda done, total: progress(f"entities: texts of {name}", done, total),
        )

    def _displays(self, tables: Path, output: Path, entities: Entities) -> None:
        """What a person reads in place of an id: the users' names and items' titles."""
        for table, column, ids in (
            (schema.USERS, ("name",), entities.users), (schema.ITEMS, ("title", "name"), entities.items)
        ):  # fmt: skip
            path = tables / f"{table}.parquet"
            if not path.exists():
                continue
            names = [c for c in column if c in pq.read_schema(path).names]
            if names:
                rows = _in_order(path, schema.TABLES[table].key[0], ids, names[:1])
                shown = pa.table({"display": rows.column(names[0]).cast(pa.large_string())})
                with pa.OSFile(str(output / "entities" / f"{table}_display.arrow"), "wb") as sink:
                    with pa.ipc.new_file(sink, shown.schema) as writer:
                        writer.write_table(shown.combine_chunks())


def _distinct(tables: Path, columns: Mapping[str, tuple[str, ...]]) -> pa.Array | pa.ChunkedArray:
    """Every id of the columns at least once; of a column no more than its distinct ones at a time."""
    parts = []
    for table, names in columns.items():
        path = tables / f"{table}.parquet"
        if path.exists():
            parts += [_unique(path, name) for name in names]
    if not parts:
        return pa.array([], pa.int64())
    kind = pa.int64() if all(pa.types.is_integer(p.type) for p in parts) else pa.large_string()
    return pa.chunked_array([part.drop_null().cast(kind) for part in parts])


def _unique(path: Path, column: str) -> pa.Array:
    found = pa.array([], pq.read_schema(path).field(column).type)
    waiting: list[pa.Array] = []
    for batch in batches(path, [column]):
        waiting.append(pc.unique(batch.column(0)))
        if sum(map(len, waiting)) > max(len(found), ROWS):
            found, waiting = pc.unique(pa.chunked_array([found, *waiting])), []
    return pc.unique(pa.chunked_array([found, *waiting]))


def _in_order(path: Path, key: str, ids: IdMap, columns: list[str]) -> pa.Table:
    """The columns with one row a position; ids without a row get nulls."""
    rows = pq.read_table(path, columns=[key, *columns])
    place = np.full(len(ids), -1, np.int64)
    found = ids.positions(rows.column(key))
    place[found[found >= 0]] = np.flatnonzero(found >= 0)
    order = pa.array(place, mask=place < 0)
    return rows.select(columns).take(order)


def _intern(path: Path, name: str, entities: Entities, output: Path) -> None:
    """Edges of one table as arrays of positions, times (µs, 0 where none) and weights."""
    output.mkdir()
    users, items = entities.users, entities.items
    if name == schema.IMPRESSIONS:
        _intern_impressions(pq.read_table(path), entities, output)
        return
    left, right, others = {
        schema.CONNECTIONS: (schema.SRC, schema.DST, users),
        schema.BLOCKS: (schema.USER_ID, schema.OTHER_ID, users),
        schema.INTERACTIONS: (schema.USER_ID, schema.ITEM_ID, items),
    }[name]
    given = pq.read_schema(path).names
    wanted: tuple[str, ...] = (left, right, schema.TIMESTAMP, schema.ARRIVED_AT, schema.WEIGHT)
    if name == schema.INTERACTIONS:
        wanted += ("event",)
    text = users.values.type != pa.int64() or others.values.type != pa.int64()
    read = batches(
        path, [column for column in wanted if column in given], ROWS * (_TEXT_ROWS if text else 1)
    )
    with ArrayFiles(output) as write:
        for batch in read:
            rows = pa.Table.from_batches([batch])
            write("source", users.positions(rows.column(left)))
            write("target", others.positions(rows.column(right)))
            time = _micros(rows, schema.TIMESTAMP)
            write("time", time)
            if schema.ARRIVED_AT in given:
                write("arrived", np.maximum(time, _micros(rows, schema.ARRIVED_AT)))
            if "event" in rows.column_names:
                write("action", _actions(rows, "event"))
            write("weight", np.ones(len(rows), np.float32) if schema.WEIGHT not in given
                  else np.asarray(rows.column(schema.WEIGHT), dtype=np.float32))  # fmt: skip
    if name == schema.INTERACTIONS:
        ends = mapped(output / "source.npy"), mapped(output / "target.npy")
        known = {column.name for column in schema.TABLES[name].columns}
        rows = pq.read_table(path, columns=[column for column in given if column not in known])
        np.save(output / "occasion.npy", occasions(rows, *ends, mapped(output / "time.npy")))


def _intern_hidden(path: Path, users: IdMap, output: Path) -> None:
    """Hidden pairs in positions; those with an end that nothing else knows need no exclusion."""
    output.mkdir()
    rows = pq.read_table(path)
    ends = [users.positions(rows.column(name)) for name in (schema.SRC, schema.DST)]
    kept = (ends[0] >= 0) & (ends[1] >= 0)
    np.save(output / "source.npy", ends[0][kept])
    np.save(output / "target.npy", ends[1][kept])
    np.save(output / "time.npy", np.zeros(kept.sum(), np.int64))
    np.save(output / "weight.npy", np.ones(kept.sum(), np.float32))


def _actions(rows: pa.Table, name: str) -> np.ndarray:
    """int32[n] places in ``schema.ACTIONS``; -1 where there is none, -2 where it is another."""
    actions = _column(rows, name, pa.string())
    found = pc.fill_null(pc.index_in(actions, value_set=pa.array(schema.ACTIONS)), -2)
    return np.where(np.asarray(pc.is_null(actions)), -1, np.asarray(found)).astype(np.int32)


def _intern_impressions(rows: pa.Table, entities: Entities, output: Path) -> None:
    """Impressions of people and of items apart; position -1 and propensity NaN where none."""
    source = entities.users.positions(rows.column(schema.USER_ID))
    time, acted = _micros(rows, schema.TIMESTAMP), _micros(rows, "action_timestamp")
    position = pc.fill_null(_column(rows, "position", pa.float64()), -1.0)
    propensity = pc.fill_null(_column(rows, "propensity", pa.float64()), float("nan"))
    for column, ids in ((schema.CANDIDATE_ID, entities.users), (schema.ITEM_ID, entities.items)):
        if column not in rows.column_names:
            continue
        target = ids.positions(rows.column(column))
        kept = (source >= 0) & (target >= 0)
        (output / column).mkdir()
        arrays = {
            "source": source, "target": target, "time": time, "acted": acted,
            "arrived": np.maximum(time, _micros(rows, schema.ARRIVED_AT)),
            "action": _actions(rows, "action"),
            "position": np.asarray(position).astype(np.int32),
            "propensity": np.asarray(propensity, dtype=np.float32),
        }  # fmt: skip
        for name, values in arrays.items():
            np.save(output / column / f"{name}.npy", values[kept])


def batches(path: Path, columns: list[str], rows: int = ROWS) -> Iterator[pa.RecordBatch]:
    """The columns of a Parquet file, so many rows at a time; at least one batch, if of no row."""
    with pq.ParquetFile(path) as file:
        count = 0
        for batch in file.iter_batches(rows, columns=columns):
            count += 1
            yield batch.select(columns)
        if not count:
            empty = file.schema_arrow.empty_table().select(columns)
            yield pa.RecordBatch.from_arrays([c.combine_chunks() for c in empty.columns], columns)


def _column(rows: pa.Table, name: str, kind: pa.DataType) -> pa.ChunkedArray:
    if name in rows.column_names:
        return rows.column(name).cast(kind)
    return pa.chunked_array([pa.nulls(len(rows), kind)])


def _micros(rows: pa.Table, name: str) -> np.ndarray:
    column = _column(rows, name, pa.timestamp("us", "UTC")).cast(pa.int64())
    return np.asarray(pc.fill_null(column, 0), dtype=np.int64)
