"""Step 1: read, check and clean the tables of a tenant, with everything that events added.

Inputs: the tables of ``[data]``, the event log and the request log. Outputs: one clean Parquet file
a table, and ``check.json``, the report of the check.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from nextedge import schema
from nextedge.build.cache.fingerprint import objects_fingerprint
from nextedge.build.step import Step
from nextedge.build.suppression import SuppressedUsers, suppress, suppressed_users
from nextedge.config import Config, RankerConfig
from nextedge.data.erased_users import ErasedUsers
from nextedge.data.report import CheckReport, Finding
from nextedge.data.validation import validate
from nextedge.engines.base import Engine
from nextedge.errors import DataError
from nextedge.events.event import Event
from nextedge.events.request_log import RequestLog
from nextedge.events.to_tables.connections import recorded_events, with_blocks, with_connections
from nextedge.events.to_tables.entities import with_items, with_newcomers, with_profiles
from nextedge.events.to_tables.impressions import LOGGED, recommendation_ids, with_impressions
from nextedge.events.to_tables.interactions import with_interactions
from nextedge.events.to_tables.rows import event_rows
from nextedge.progress import Progress
from nextedge.types import MICROSECONDS_PER_DAY

REPORT = "check.json"
_log = logging.getLogger("nextedge")


class TablesStep(Step):
    """Writes the clean tables.

    ``fingerprint`` stands for the content of the inputs, ``objects`` for those in a bucket.
    """

    name = "tables"
    version = 3

    def __init__(
        self,
        config: Config,
        engine: Engine,
        fingerprint: str,
        frames: dict[str, pa.Table] | None = None,
        objects: str = "",
    ) -> None:
        self.objects = objects
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
            "create_users": self.config.events.create_users,
            "patience": _patience(self.config),
            # An erasure must make the tables anew, although no input has changed.
            "forgotten": ErasedUsers(self.config.state_path).fingerprint(),
        }

    def run(self, inputs: Mapping[str, Path], output: Path, progress: Progress) -> None:
        checked = validate(self.config, self.engine, self.frames)
        for number, (name, table) in enumerate(checked.tables.items()):
            progress(f"tables: {name}", number, len(checked.tables))
            self.engine.write(table, output / f"{name}.parquet")
        # No lock covers a bucket: other bytes than those of the fingerprint may have been read.
        if self.objects and objects_fingerprint(self.config, self.frames) != self.objects:
            raise DataError(
                "objects of [data] changed while they were read: wait until they are written, and "
                "build again"
            )
        progress("tables: events", len(checked.tables), len(checked.tables))
        report = _with_unreadable(checked.report, self._add_events(output))
        text = json.dumps(report.to_json(), ensure_ascii=False, indent=1)
        (output / REPORT).write_text(text, encoding="utf-8")
        # The engine's caches would add to the memory of the next step.
        self.engine.rest()

    def _add_events(self, output: Path) -> dict[str, Counter[str]]:
        """Add recorded events to the tables, and remove suppressed users and connections.

        Returns by table and column the number of values of events that cannot be read.
        """
        events = self._events(output)
        unreadable: dict[str, Counter[str]] = {}
        if events:
            tables = _Tables(output)
            # First, because a profile may state the flags that suppression reads.
            unreadable = _add_profiles(tables, events)
            suppressed = suppressed_users(output, events)
            rows = event_rows(events)
            rows = rows.filter(pa.array(~suppressed.mask(rows)))
            tables.change(schema.CONNECTIONS, lambda table: with_connections(table, events))
            tables.change(schema.BLOCKS, lambda table: with_blocks(table, events))
            tables.change(schema.INTERACTIONS, lambda table: with_interactions(table, rows))
            if self.config.events.create_users:
                tables.change(schema.USERS, lambda table: with_newcomers(table, rows))
            impressions = tables.read(schema.IMPRESSIONS)
            impressions = with_impressions(
                None if impressions is None else suppressed.without_answered(impressions),
                rows,
                self._logged(rows, suppressed),
                _patience(self.config),
                tables.id_types(),
            )
            tables.write(schema.IMPRESSIONS, impressions)
        # Also without events, because tables have flags of their own.
        suppress(output, events)
        return unreadable

    def _events(self, output: Path) -> list[Event]:
        """Recorded events, without erased users, and without unknown users that are dropped."""
        events = recorded_events(self.config)
        ids = {str(i) for e in events for i in (e.user_id, e.candidate_id) if i is not None}
        left_out = set(ErasedUsers(self.config.state_path).among(ids))
        users = output / f"{schema.USERS}.parquet"
        dropped = self.config.data.dangling == "drop" and not self.config.events.create_users
        if dropped and users.exists():
            known = pq.read_table(users, columns=[schema.USER_ID])[schema.USER_ID]
            named = pa.array(sorted(ids), pa.string())
            is_known = pc.is_in(named, value_set=known.cast(pa.string()))
            left_out |= set(named.filter(pc.invert(is_known)).to_pylist())
        return [e for e in events if not {str(e.user_id), str(e.candidate_id)} & left_out]

    def _logged(self, rows: pa.Table, suppressed: SuppressedUsers) -> pa.Table:
        """Entries of the request log with the recommendation ids of events."""
        kinds = {name: surface.kind for name, surface in self.config.surfaces.items()}
        log = RequestLog(self.config.state_path, self.config.serving)
        entries = [
            (rid, kinds[answer.surface], str(answer.user_id), str(target), position, chance, micros)
            for rid, micros, answer in log.answers(recommendation_ids(rows))
            if answer.surface in kinds
            for position, (target, chance) in enumerate(
                zip(answer.candidates, answer.propensities, strict=True), 1
            )
            if target is not None
        ]
        columns = zip(*entries, strict=True) if entries else ((),) * len(LOGGED)
        logged = pa.table(
            [pa.array(values, part.type) for values, part in zip(columns, LOGGED, strict=True)],
            schema=LOGGED,
        )
        return logged.filter(pa.array(~suppressed.mask(logged)))


class _Tables:
    """The clean tables of a folder, which events change."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, name: str) -> pa.Table | None:
        """A table, or None."""
        path = self.folder / f"{name}.parquet"
        return pq.read_table(path) if path.exists() else None

    def write(self, name: str, rows: pa.Table | None) -> None:
        """Replace a table; None changes nothing."""
        if rows is not None:
            pq.write_table(rows, self.folder / f"{name}.parquet", compression="zstd")

    def change(self, name: str, change: Callable[[pa.Table], pa.Table]) -> None:
        """Change a table where there is one."""
        rows = self.read(name)
        self.write(name, None if rows is None else change(rows))

    def id_types(self) -> dict[str, pa.DataType]:
        """Types of the ids of users and of items; text where no table has any."""
        types: dict[str, pa.DataType] = {}
        for name, table in schema.TABLES.items():
            path = self.folder / f"{name}.parquet"
            for part in pq.read_schema(path) if path.exists() else ():
                column = next((c for c in table.columns if c.name == part.name), None)
                if column is not None and column.kind is schema.ColumnKind.IDENTIFIER:
                    types.setdefault(column.refers_to or name, part.type)
        return {name: types.get(name, pa.string()) for name in (schema.USERS, schema.ITEMS)}


def _add_profiles(tables: _Tables, events: list[Event]) -> dict[str, Counter[str]]:
    """Write the profile fields of events into users and items; returns unreadable values."""
    users, items = tables.read(schema.USERS), tables.read(schema.ITEMS)
    changed = {
        schema.USERS: None if users is None else with_profiles(users, events),
        schema.ITEMS: with_items(items, events, tables.id_types()[schema.ITEMS]),
    }
    unreadable = {}
    for name, table in changed.items():
        if table is None:
            continue
        tables.write(name, table.rows)
        unreadable[name] = table.unreadable
        for column, values in table.unreadable.items():
            _log.warning(
                "%s: %d values of %s that events state cannot be read", name, values, column
            )
    return unreadable


def _patience(config: Config) -> dict[str, int]:
    """µs after an impression in which an action answers it, by kind: the longest of its surfaces."""
    days = {
        kind: max(
            (s.ranker.attribution_days for s in config.surfaces.values() if s.kind == kind),
            default=RankerConfig().attribution_days,
        )
        for kind in schema.FAVOURS
    }
    return {kind: int(longest * MICROSECONDS_PER_DAY) for kind, longest in days.items()}


def _with_unreadable(report: CheckReport, unreadable: Mapping[str, Counter[str]]) -> CheckReport:
    """The report of the check with the values of events that cannot be read."""
    tables = []
    for table in report.tables:
        findings = tuple(
            Finding(
                f"event_{column}",
                f"{column}, as events state it, cannot be read: left as it was (a flag) or empty",
                values,
                "converted",
            )
            for column, values in sorted(unreadable.get(table.table, {}).items())
        )
        tables.append(replace(table, findings=table.findings + findings))
    return replace(report, tables=tuple(tables))
