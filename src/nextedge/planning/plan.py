"""From a workload to machines, hours, memory, storage and cost, step by step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from nextedge.planning.coefficients import Coefficients
from nextedge.planning.online import (
    HEADROOM,
    USABLE,
    Memory,
    RequestLoad,
    computed_ms,
    fleet,
    memory_of,
    request_load,
    stores_gib,
)
from nextedge.planning.steps import Step, steps_of
from nextedge.planning.workload import PEOPLE, Workload

HOURS_A_MONTH = 730.0
POSITIONS = 2**31 - 1
"""Users, and items, that a release can number: int32."""
ENTRY_BYTES = 24
"""Of a graph's entry: neighbor int32, weight float32, first and last time int64."""
EXTRAPOLATED = 100.0
"""Multiple of the largest measured size beyond which a figure is an extrapolation."""
_SHORT = 0.1
"""Share of the period below which more machines for a step save nothing."""


@dataclass(frozen=True)
class Row:
    """One line of the plan; the names are those of ``--json``.

    Attributes:
        beyond: the size as a multiple of the largest measured one.
        core_hours: of a refresh, or of a month for what serves.
        hours: of a refresh on ``machines``; None for what serves.
        machines: infinite where no number of them is enough.
        memory_gib: of each machine.
        money: a month.
        runs: how the code runs it, or why it cannot.
    """

    stage: str
    grows_with: str
    runs: str
    bounded_by: str = ""
    beyond: float = 1.0
    core_hours: float = 0.0
    hours: float | None = None
    machines: float = 0
    memory_gib: float = 0.0
    store_gib: float = 0.0
    money: float = 0.0
    possible: bool = True


@dataclass(frozen=True)
class Plan:
    """The rows, their sums, and the assumptions."""

    workload: Workload
    rows: tuple[Row, ...]
    online: tuple[RequestLoad, ...]
    measured: dict[str, Any]

    @property
    def core_hours(self) -> float:
        """Core-hours of a refresh."""
        return sum(row.core_hours for row in self.rows if row.hours is not None)

    @property
    def hours(self) -> float:
        """Hours of a refresh: the steps run one after the other."""
        return sum(row.hours or 0.0 for row in self.rows)

    @property
    def money(self) -> float:
        """Cost of a month."""
        return sum(row.money for row in self.rows)

    @property
    def tightest(self) -> str:
        """The row that needs most machines, or most of one machine."""
        memory = self.workload.machine.memory_gib * USABLE
        period = self.workload.traffic.refresh_hours * USABLE
        shares = {
            row: max((row.memory_gib / memory, "memory"), ((row.hours or 0.0) / period, "time"))
            for row in self.rows
        }
        row = max(shares, key=lambda row: (row.machines, shares[row]))
        if row.machines > 1:
            count = f"{row.machines:,.0f}" if math.isfinite(row.machines) else "no number of"
            return f"{row.stage}: {count} machines"
        return f"{row.stage}: {shares[row][0]:.0%} of one machine's {shares[row][1]}"

    @property
    def warnings(self) -> list[str]:
        """A line for each row that goes far beyond the measured sizes."""
        return [
            f"{row.stage}: {row.beyond:,.0f} times the largest size measured, an extrapolation: "
            "right to an order of magnitude at best"
            for row in self.rows
            if row.beyond > EXTRAPOLATED
        ]

    def to_json(self) -> dict[str, Any]:
        """Plain values; infinite ones are None."""
        named = ("size", "degrees", "traffic", "machine")
        return {
            "workload": {name: asdict(getattr(self.workload, name)) for name in named}
            | {
                "surfaces": sorted(self.workload.surfaces),
                "keep_features": self.workload.keep_features,
            },
            "stages": [_finite(asdict(row)) for row in self.rows],
            "totals": _finite(
                {
                    "core_hours_a_refresh": self.core_hours,
                    "hours_a_refresh": self.hours,
                    "money_a_month": self.money,
                    "tightest": self.tightest,
                    "possible_with_this_code": all(row.possible for row in self.rows),
                }
            ),
            "online": [_finite(asdict(load)) for load in self.online],
            "assumptions": self.assumptions(),
            "warnings": self.warnings,
            "measured": self.measured,
        }

    def assumptions(self) -> list[str]:
        """What the plan takes for granted, one line each."""
        size, machine, degrees = self.workload.size, self.workload.machine, self.workload.degrees
        lines = [
            f"measured on {self.measured.get('processor')}, {self.measured.get('cores')} cores, "
            f"{self.measured.get('date')}",
            f"steps run one after the other, on {USABLE:.0%} of a machine's memory and of the period",
            "a step on several machines divides evenly",
            f"a worker is busy {HEADROOM:.0%} of its time at most, and no more than p99 allows (M/M/1)",
            "candidates of all users are published; requests are divided evenly between surfaces",
        ]
        if self.workload.left_out:
            lines.append(
                f"nothing is planned for {', '.join(self.workload.left_out)}: no edges were given "
                "(--degree for people, --items and --interactions-per-user for items)"
            )
        if any(surface.kind == PEOPLE for surface in self.workload.surfaces.values()):
            squares = size.users * degrees.second
            capped = (
                f", {size.wedges:.3g} of it within the hub cap" if size.wedges < squares else ""
            )
            lines.append(
                f"degrees: {degrees.said}; Σ degree² = {squares:.3g}{capped}, of {size.entries:.3g} "
                f"entries (each connection at both ends) of {ENTRY_BYTES} bytes: "
                f"{size.entries * ENTRY_BYTES / 2**30:,.0f} GiB; requests are drawn by degree"
            )
        lines.append(
            f"{machine.cores:g} cores and {machine.memory_gib:g} GiB at {machine.hour:.3g} an hour, "
            f"Redis {machine.redis_gib_hour:g} a GiB and hour; one copy of the store, no replicas"
        )
        return lines


def make_plan(workload: Workload, table: Coefficients) -> Plan:
    """Work out every step of a refresh, and the serving fleet."""
    steps = steps_of(workload, table)
    machines = _machines(steps, workload)
    built = [_built(step, machines[step.name], workload) for step in steps]
    # Clean tables are an input of the build, no part of the release.
    release_gib = sum(step.output_gib for step in steps if step.name != "tables")
    memory = memory_of(workload, table, release_gib)
    event_share = workload.traffic.events_per_second * table.law("cpu event").b
    loads = tuple(request_load(name, workload, table, event_share) for name in workload.surfaces)
    served = [_served(load, memory, workload, table) for load in loads]
    workers = sum(load.workers for load in loads)
    stores = _stores(workload, table, memory, event_share, workers)
    return Plan(workload, (*built, *served, *stores), loads, dict(table.measured))


def _memory_gib(step: Step, workload: Workload) -> float:
    # tables spill to disk instead of taking more memory
    most = workload.machine.memory_gib * USABLE if step.kind == "tables" else math.inf
    return min(step.memory_gib, most)


def _machines(steps: Sequence[Step], workload: Workload) -> dict[str, int]:
    """Machines of each step: as its memory needs, and more until all steps fit into the period."""
    usable = workload.machine.memory_gib * USABLE
    period = workload.traffic.refresh_hours * USABLE
    alone = {step.name: step.hours(workload.machine.cores) for step in steps}
    counts = {step.name: max(1, math.ceil(_memory_gib(step, workload) / usable)) for step in steps}
    spread = [step.name for step in steps if step.spread_by]
    while sum(alone[name] / counts[name] for name in alone) > period:
        # steps that the code cannot spread get machines only once all others are short
        long = [name for name in spread if alone[name] / counts[name] > period * _SHORT]
        longest = max(long or alone, key=lambda name: alone[name] / counts[name])
        counts[longest] = math.ceil(counts[longest] * 1.1)
    return counts


def _built(step: Step, machines: int, workload: Workload) -> Row:
    machine, alone = workload.machine, step.hours(workload.machine.cores)
    memory = _memory_gib(step, workload)
    large = memory > machine.memory_gib * USABLE * (1 + 1e-9)
    # shards alone divide the memory of a step: Spark divides its work
    way = step.spread_by if not large else "index.shards" if step.kind == "index" else ""
    numbered = max(workload.size.users, workload.size.items) <= POSITIONS
    possible = numbered and (machines == 1 or bool(way))
    if not numbered:
        runs = f"not by this code: no more than {POSITIONS:,} users, or items, have positions"
    elif possible:
        runs = "one machine" if machines == 1 else way
    else:
        need = f"{memory:,.0f} GiB" if large else f"{alone:,.0f} h"
        runs = f"not by this code: {need} on one machine"
    refreshes = HOURS_A_MONTH / workload.traffic.refresh_hours
    return Row(
        stage=step.name,
        grows_with=step.text.grows_with,
        bounded_by=step.text.bounded_by,
        beyond=step.beyond,
        core_hours=step.cpu_seconds / 3600,
        hours=alone / machines,
        machines=machines,
        memory_gib=memory if possible and not large else memory / machines,
        store_gib=step.output_gib,
        # More machines for fewer hours cost the same.
        money=alone * refreshes * machine.hour + step.output_gib * machine.stored_gib_month,
        runs=runs,
        possible=possible,
    )


def _served(load: RequestLoad, memory: Memory, workload: Workload, table: Coefficients) -> Row:
    shards, machines, gib = fleet(load.workers, memory, workload)
    if not math.isfinite(load.workers):
        runs = (
            f"not within {workload.traffic.p99_ms:g} ms: p99 of the work is {load.p99_ms:,.1f} ms"
        )
    elif not math.isfinite(machines):
        runs = f"not by this code: a worker takes {memory.worker + memory.live:,.3g} GiB"
    elif shards > 1:
        need = f"{memory.release:,.0f} GiB of release and {memory.worker + memory.live:,.0f} GiB a worker"
        runs = f"not by this code: users in {shards:,} shards, as all of it is {need}"
    elif load.workers:
        busy = load.qps * load.cpu_ms / 1e3 / load.workers
        runs = f"{load.workers:,.0f} workers, {busy:.0%} busy"
    else:
        runs = "no requests"
    other = computed_ms(load.surface, workload, table)
    return Row(
        stage=f"requests {load.surface}",
        grows_with=f"QPS × {load.cpu_ms:.2f} ms ({other:.1f} if not published)",
        bounded_by="serving.cache_entries, log_queue",
        beyond=load.beyond,
        core_hours=load.qps * load.cpu_ms / 1e3 * HOURS_A_MONTH,
        machines=machines,
        memory_gib=gib,
        store_gib=memory.release,
        money=machines * workload.machine.hour * HOURS_A_MONTH,
        runs=runs,
        possible=math.isfinite(machines) and shards == 1,  # no server takes a part of the users
    )


def _stores(
    workload: Workload, table: Coefficients, memory: Memory, event_share: float, workers: float
) -> tuple[Row, Row]:
    """The store of candidates and lists, and the log of events, which every worker applies."""
    machine, store = workload.machine, stores_gib(workload, table)
    usable = machine.memory_gib * USABLE
    events = workload.traffic.events_per_second * workload.traffic.refresh_hours * 3600
    log = events * table.law("bytes logged").b / 2**30
    possible = event_share < HEADROOM
    return (
        Row(
            stage="store",
            grows_with="users × candidates, and requests an hour",
            bounded_by="serving.candidates_days, publish --users, cache_seconds",
            machines=math.ceil(store / usable),
            memory_gib=min(store, usable),
            store_gib=store,
            money=store * machine.redis_gib_hour * HOURS_A_MONTH,
            runs="Redis" if store <= usable else "Redis Cluster",
        ),
        Row(
            stage="events",
            grows_with="events a second, applied by every worker",
            bounded_by="the release period: a release contains the events before it",
            core_hours=event_share * workers * HOURS_A_MONTH,
            memory_gib=memory.live,
            store_gib=log,
            money=log * machine.stored_gib_month,
            runs=("" if possible else "not by this code: ") + f"{event_share:.1%} of every worker",
            possible=possible,
        ),
    )


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    """The values, with None for infinite ones."""
    # JSON has no infinity.
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in values.items()
    }
