"""An importer: one JSON file that maps each person to a list of friends."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from nextedge.data.importers.importer import Importer, ImportReport
from nextedge.errors import DataError


class FriendsJson(Importer):
    """``connections.parquet`` from ``{"ann": ["bob", …], …}``."""

    name = "friends_json"
    summary = "a JSON file of person = list of friends"

    def run(self, source: Path, target: Path) -> ImportReport:
        try:
            friends = json.loads(source.read_text())
        except (OSError, json.JSONDecodeError) as error:
            raise DataError(f"{source}: not readable as JSON: {error}") from None
        pairs = [(person, friend) for person, names in friends.items() for friend in names]
        columns = {"src": [src for src, _ in pairs], "dst": [dst for _, dst in pairs]}
        target.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(columns), target / "connections.parquet")
        return ImportReport({"connections": len(pairs)})
