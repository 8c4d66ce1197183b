"""Step 1, read and validate: the tenant's tables, and what events added, cleaned as Parquet."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from nextedge import schema
from nextedge.config import Config
from nextedge.data.forgotten import Forgotten
from nextedge.data.validation import validate
from nextedge.engines.base import Engine
from nextedge.events.tables import (
    recorded_events,
    with_blocks,
    with_connections,
    with_interactions,
)
from nextedge.steps.step import Progress, Step
from nextedge.steps.withheld import withhold

if TYPE_CHECKING:
    import pyarrow as pa

REPORT = "check.json"


class TablesStep(Step):
    """Clean tables, one Parquet file each, and the report of the check.

    ``fingerprint`` stands for the content of the inputs; ``events`` are rows that were
    recorded since, by table, and are added to the tables.
    """

    name = "tables"
    version = 2

    def __init__(
        self,
        config: Config,
        engine: Engine,
        fingerprint: str,
        frames: dict[str, pa.Table] | None = None,
    ) -> None:
        self.config = config
        self.engine = engine
        self.fingerprint = fingerprint
        self.frames = frames

    def settings(self) -> Mapping[str, Any]:
        left_out = self.config.onboarding.identifier_columns
        return {
            **({"left_out": list(left_out)} if left_out else {}),
            "data": self.config.data.model_dump(),
            "surfaces": {name: surface.kind for name, surface in self.config.surfaces.items()},
            "fingerprint": self.fingerprint,
            "forgotten": Forgotten(self.config.state_path).fingerprint(),
        }

    def run(self, inputs: Mapping[str, Path], output: Path, progress: Progress) -> None:
        found = validate(self.config, self.engine, self.frames)
        for place, (name, table) in enumerate(found.tables.items()):
            progress(f"tables: {name}", place, len(found.tables))
            self.engine.write(table, output / f"{name}.parquet")
        self._add_events(output)
        report = json.dumps(found.report.to_json(), ensure_ascii=False, indent=1)
        (output / REPORT).write_text(report, encoding="utf-8")

    def _add_events(self, output: Path) -> None:
        """Append what was recorded since to the tables that are given; take out what is withheld."""
        forgotten = Forgotten(self.config.state_path)
        events = [
            event
            for event in recorded_events(self.config)
            if not forgotten.among((event.user_id, event.candidate_id))
        ]
        for name, add in _ADDITIONS.items() if events else ():
            path = output / f"{name}.parquet"
            if path.exists():
                pq.write_table(add(pq.read_table(path), events), path, compression="zstd")
        withhold(output, events)


_ADDITIONS = {
    schema.CONNECTIONS: with_connections,
    schema.INTERACTIONS: with_interactions,
    schema.BLOCKS: with_blocks,
}
