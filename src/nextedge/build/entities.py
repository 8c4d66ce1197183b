"""Step 2: number users and items, encode their attributes, and turn every edge into positions.

Input: the clean tables. Outputs: ``entities/`` with id maps, attributes and display names, and for
each table of edges a folder of arrays: source, target, time, weight, ….
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ibis
import pyarrow as pa
import pyarrow.parquet as pq

from nextedge import schema
from nextedge.build.step import Step
from nextedge.build.tables_to_graph.columns import EncodeColumns, in_order, write_order
from nextedge.build.tables_to_graph.edges import close_ids, intern, intern_hidden
from nextedge.config import Config
from nextedge.data.ids import IdMap
from nextedge.data.kinds import feature_kinds
from nextedge.engines.base import Engine
from nextedge.graph.attributes import Attributes
from nextedge.graph.text_encoder import text_encoder
from nextedge.progress import Progress
from nextedge.storage.arrays import mapped
from nextedge.storage.files import vanishing

_USER_COLUMNS = {
    schema.USERS: (schema.USER_ID,),
    schema.CONNECTIONS: (schema.SRC, schema.DST),
    schema.INTERACTIONS: (schema.USER_ID,),
    schema.BLOCKS: (schema.USER_ID, schema.OTHER_ID),
}
_ITEM_COLUMNS = {schema.ITEMS: (schema.ITEM_ID,), schema.INTERACTIONS: (schema.ITEM_ID,)}
_DISPLAYS = {schema.USERS: ("name",), schema.ITEMS: ("title", "name")}
"""Columns to display in place of an id; the first one that a table has."""
RECORDS = ("connections", "interactions", "impressions", "blocks")


class EntitiesStep(Step):
    """Numbers and encodes the entities of a tenant."""

    name = "entities"
    version = 4

    def __init__(self, config: Config, engine: Engine) -> None:
        self.config = config
        self.engine = engine
        self.texts = config.state_path / "text"
        self.text = text_encoder(config.text_model_path, self.texts)

    def settings(self) -> Mapping[str, Any]:
        features = self.config.features
        return {
            "users": features.users.model_dump(),
            "items": features.items.model_dump(),
            "text": self.text.version,
        }

    def run(self, inputs: Mapping[str, Path], output: Path, progress: Progress) -> None:
        tables, entities = inputs["tables"], output / "entities"
        progress("entities: ids", 0, 3)
        entities.mkdir()
        ids = {
            name: identifiers(self.engine, tables, columns)
            for name, columns in ((schema.USERS, _USER_COLUMNS), (schema.ITEMS, _ITEM_COLUMNS))
        }
        progress("entities: attributes", 1, 3)
        for name, id_map in ids.items():
            id_map.save(entities / f"{name}.arrow")
            self._encode(tables / f"{name}.parquet", name, id_map, entities, progress)
        # The engine's caches would add to the memory of the edges.
        self.engine.rest()
        progress("entities: edges", 2, 3)
        for name in RECORDS:
            if (tables / f"{name}.parquet").exists():
                intern(self.engine, tables / f"{name}.parquet", name, entities, output / name)
        hidden = tables / f"{schema.HIDDEN_CONNECTIONS}.parquet"
        if hidden.exists():
            intern_hidden(hidden, ids[schema.USERS], output / schema.HIDDEN_CONNECTIONS)
        # The maps would take memory through the steps that follow.
        close_ids()

    def _encode(
        self, path: Path, name: str, ids: IdMap, entities: Path, progress: Progress
    ) -> None:
        """Write ``user_attributes/`` or ``item_attributes/``, and the display names."""
        attributes = entities / f"{name.removesuffix('s')}_attributes"
        if not path.exists():
            Attributes(len(ids), {}, {}).save(attributes)
            return
        expression = self.engine.read(f"clean_{name}", path.name, path.parent)
        settings = getattr(self.config.features, name)
        kinds = feature_kinds(expression, schema.TABLES[name], settings)
        attributes.mkdir()

        def report(done: int, total: int) -> None:
            progress(f"entities: texts of {name}", done, total)

        with vanishing(entities) as scratch:
            order = write_order(path, schema.TABLES[name].key[0], ids, scratch / "order.npy")
            model = self.config.text_model_path
            encode = EncodeColumns(path, order, kinds, model, self.texts, attributes)
            encode.run(self.engine, report)
            columns = pq.read_schema(path).names
            display = next((column for column in _DISPLAYS[name] if column in columns), None)
            if display is not None:
                # Large: names beyond 2 GiB overflow the offsets of string.
                values = in_order(path, display, mapped(order)).cast(pa.large_string())
                write_display(values, entities / f"{name}_display.arrow")


def write_display(column: pa.ChunkedArray, path: Path) -> None:
    """Write a column as an Arrow file that can be memory-mapped."""
    table = pa.table({"display": column}).combine_chunks()
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def identifiers(engine: Engine, tables: Path, columns: Mapping[str, tuple[str, ...]]) -> IdMap:
    """Every distinct id in the columns of the tables that exist."""
    parts = []
    for table, names in columns.items():
        path = tables / f"{table}.parquet"
        if path.exists():
            rows = engine.read(f"clean_{table}", path.name, path.parent)
            parts += [rows.select(identifier=rows[name]) for name in names]
    if not parts:
        return IdMap(pa.array([], pa.int64()))
    # One type for all: 7 and "7" would be two users.
    whole = all(part.identifier.type().is_integer() for part in parts)
    kind = "int64" if whole else "string"
    alike = [part.select(identifier=part.identifier.cast(kind)).distinct() for part in parts]
    ids = ibis.union(*alike, distinct=True) if len(alike) > 1 else alike[0]
    # Sorted, so that positions do not depend on the order of rows.
    ids = ids.filter(ids.identifier.notnull()).order_by("identifier")
    batches = [batch.column(0) for batch in engine.to_batches(ids)]
    return IdMap.of_sorted(pa.chunked_array(batches, pa.int64() if whole else pa.string()))
