"""Step 1, read and validate: the tenant's tables, and what events added, cleaned as Parquet."""

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
from nextedge.build.suppression import SuppressedUsers, concealed, withhold
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
    """Clean tables, one Parquet file each, and the report of the check.

    ``fingerprint`` stands for the content of the inputs, ``objects`` for those of them that are
    in a bucket: they must still be the same when all is read.
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
            "forgotten": ErasedUsers(self.config.state_path).fingerprint(),
        }

    def run(self, inputs: Mapping[str, Path], output: Path, progress: Progress) -> None:
        found = validate(self.config, self.engine, self.frames)
        for place, (name, table) in enumerate(found.tables.items()):
            progress(f"tables: {name}", place, len(found.tables))
            self.engine.write(table, output / f"{name}.parquet")
        if self.objects and objects_fingerprint(self.config, self.frames) != self.objects:
            raise DataError(
                "objects of [data] changed while they were read: wait until they are written, and "
                "build again"
            )
        progress("tables: events", len(found.tables), len(found.tables))
        unreadable = self._add_events(output)
        report = json.dumps(_told(found.report, unreadable).to_json(), ensure_ascii=False, indent=1)
        (output / REPORT).write_text(report, encoding="utf-8")
        self.engine.rest()

    def _add_events(self, output: Path) -> dict[str, Counter[str]]:
        """Add what was recorded since to the tables; take out what is withheld.

        Returns by table and column how many values that events state could not be taken.
        """
        events = self._events(output)
        unreadable: dict[str, Counter[str]] = {}
        if events:
            tables = _Tables(output)
            unreadable = self._restate(tables, events)
            hidden = concealed(output, events)
            rows = event_rows(events)
            rows = rows.filter(pa.array(~hidden.of(rows)))
            tables.change(schema.CONNECTIONS, lambda given: with_connections(given, events))
            tables.change(schema.BLOCKS, lambda given: with_blocks(given, events))
            tables.change(schema.INTERACTIONS, lambda given: with_interactions(given, rows))
            if self.config.events.create_users:
                tables.change(schema.USERS, lambda given: with_newcomers(given, rows))
            given = tables.read(schema.IMPRESSIONS)
            shown = with_impressions(
                None if given is None else hidden.without_answered(given),
                rows,
                self._logged(rows, hidden),
                _patience(self.config),
                tables.id_types(),
            )
            tables.write(schema.IMPRESSIONS, shown)
        withhold(output, events)
        return unreadable

    def _events(self, output: Path) -> list[Event]:
        """What was recorded, but for the forgotten, and for strangers where none are taken."""
        events = recorded_events(self.config)
        ids = {str(i) for e in events for i in (e.user_id, e.candidate_id) if i is not None}
        left_out = set(ErasedUsers(self.config.state_path).among(ids))
        users = output / f"{schema.USERS}.parquet"
        dropped = self.config.data.dangling == "drop" and not self.config.events.create_users
        if dropped and users.exists():
            known = pq.read_table(users, columns=[schema.USER_ID])[schema.USER_ID]
            named = pa.array(sorted(ids), pa.string())
            found = pc.is_in(named, value_set=known.cast(pa.string()))
            left_out |= set(named.filter(pc.invert(found)).to_pylist())
        if not left_out:
            return events
        return [e for e in events if not {str(e.user_id), str(e.candidate_id)} & left_out]

    def _restate(self, tables: _Tables, events: list[Event]) -> dict[str, Counter[str]]:
        """Users and items as events state them; returns what could not be taken."""
        users, items = tables.read(schema.USERS), tables.read(schema.ITEMS)
        stated = {
            schema.USERS: None if users is None else with_profiles(users, events),
            schema.ITEMS: with_items(items, events, tables.id_types()[schema.ITEMS]),
        }
        found = {name: each for name, each in stated.items() if each is not None}
        for name, each in found.items():
            tables.write(name, each.rows)
            for column, values in each.unreadable.items():
                _log.warning(
                    "%s: %d values of %s that events state cannot be read", name, values, column
                )
        return {name: each.unreadable for name, each in found.items()}

    def _logged(self, rows: pa.Table, hidden: SuppressedUsers) -> pa.Table:
        """What the request log knows of the recommendation ids that events name."""
        kinds = {name: surface.kind for name, surface in self.config.surfaces.items()}
        log = RequestLog(self.config.state_path, self.config.serving)
        found = [
            (rid, kinds[answer.surface], str(answer.user_id), str(target), place, chance, micros)
            for rid, micros, answer in log.answers(recommendation_ids(rows))
            if answer.surface in kinds
            for place, (target, chance) in enumerate(
                zip(answer.candidates, answer.propensities, strict=True), 1
            )
            if target is not None
        ]
        columns = zip(*found, strict=True) if found else ((),) * len(LOGGED)
        logged = pa.table(
            [pa.array(values, part.type) for values, part in zip(columns, LOGGED, strict=True)],
            schema=LOGGED,
        )
        return logged.filter(pa.array(~hidden.of(logged)))


class _Tables:
    """The clean tables of a folder, which events change."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, name: str) -> pa.Table | None:
        """A table, or None where it is not given."""
        path = self.folder / f"{name}.parquet"
        return pq.read_table(path) if path.exists() else None

    def write(self, name: str, rows: pa.Table | None) -> None:
        """Put rows in the place of a table; None is no table."""
        if rows is not None:
            pq.write_table(rows, self.folder / f"{name}.parquet", compression="zstd")

    def change(self, name: str, change: Callable[[pa.Table], pa.Table]) -> None:
        """Change a table where it is given."""
        given = self.read(name)
        if given is not None:
            self.write(name, change(given))

    def id_types(self) -> dict[str, pa.DataType]:
        """The types of the ids of users and of items: text where no table has any."""
        found: dict[str, pa.DataType] = {}
        for name, table in schema.TABLES.items():
            path = self.folder / f"{name}.parquet"
            for part in pq.read_schema(path) if path.exists() else ():
                column = next((c for c in table.columns if c.name == part.name), None)
                if column is not None and column.kind is schema.ColumnKind.IDENTIFIER:
                    found.setdefault(column.refers_to or name, part.type)
        return {name: found.get(name, pa.string()) for name in (schema.USERS, schema.ITEMS)}


def _patience(config: Config) -> dict[str, int]:
    """µs after an impression in which an action answers it, by kind: the longest of its surfaces."""
    usual = RankerConfig().attribution_days
    days = {
        kind: max(
            (s.ranker.attribution_days for s in config.surfaces.values() if s.kind == kind),
            default=usual,
        )
        for kind in schema.FAVOURS
    }
    return {kind: int(longest * MICROSECONDS_PER_DAY) for kind, longest in days.items()}


def _told(report: CheckReport, unreadable: Mapping[str, Counter[str]]) -> CheckReport:
    """The report of the check with what events state and cannot be read."""
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
