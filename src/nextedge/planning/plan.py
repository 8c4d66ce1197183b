"""From a workload to machines, hours, memory, store and money, stage by stage."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from nextedge.planning.coefficients import Coefficients
from nextedge.planning.offline import Stage, stages_of
from nextedge.planning.online import HEADROOM, Online, online_of
from nextedge.planning.rows import HOURS_A_MONTH, USABLE, Row
from nextedge.planning.servers import online_rows
from nextedge.planning.workload import PEOPLE, Workload

_SHORT = 0.1
"""Share of the period below which spreading a stage further wins nothing."""
POSITIONS = 2**31 - 1
"""Users, and items, that a release can number: int32."""
ENTRY_BYTES = 24
"""Of a graph's entry: neighbour int32, weight float32, first and last time int64."""


@dataclass(frozen=True)
class Plan:
    """The rows, what they add up to, and what was assumed."""

    rows: tuple[Row, ...]
    core_hours: float
    hours: float
    money: float
    tightest: str
    online: Online
    assumptions: tuple[str, ...]
    measured: dict[str, Any]
    workload: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Plain values; what no number of machines can do has ``machines`` null."""
        return {
            "workload": self.workload,
            "stages": [_finite(asdict(row)) for row in self.rows],
            "totals": {
                "core_hours_a_refresh": self.core_hours,
                "hours_a_refresh": self.hours,
                "money_a_month": self.money if math.isfinite(self.money) else None,
                "tightest": self.tightest,
                "possible_with_this_code": all(row.possible for row in self.rows),
            },
            "online": [_finite(asdict(each)) for each in self.online.requests],
            "assumptions": list(self.assumptions),
            "measured": self.measured,
        }


def make_plan(workload: Workload, coefficients: Coefficients) -> Plan:
    """Work out every stage.

    The offline stages run one after the other, on as many machines as the memory of each asks
    for, and more where otherwise all of them together outlast the refresh period.
    """
    stages = stages_of(workload, coefficients)
    machines = _machines(stages, workload, coefficients)
    offline = [_offline(each, machines[each.name], workload, coefficients) for each in stages]
    release_gib = sum(stage.output_gib(coefficients) for stage in stages if stage.name != "tables")
    online = online_of(workload, coefficients, release_gib)
    rows = (*offline, *online_rows(online, workload, coefficients))
    return Plan(
        rows=rows,
        core_hours=sum(row.core_hours for row in offline),
        hours=sum(row.hours or 0.0 for row in offline),
        money=sum(row.money for row in rows),
        tightest=_tightest(rows, workload),
        online=online,
        assumptions=_assumptions(workload, coefficients, rows),
        measured=dict(coefficients.measured),
        workload=_described(workload),
    )


def _machines(
    stages: Sequence[Stage], workload: Workload, coefficients: Coefficients
) -> dict[str, int]:
    """Machines of each stage: as its memory asks for, and more until all of them fit into the period.

    They run one after the other. More are given to the longest of those that the code can spread,
    and to others only when these are short.
    """
    usable = workload.machine.memory_gib * USABLE
    allotted = workload.traffic.refresh_hours * USABLE
    alone = {each.name: _hours(each, workload, coefficients) for each in stages}
    found = {
        each.name: max(1, math.ceil(_memory_gib(each, workload, coefficients) / usable))
        for each in stages
    }
    spread = {each.name for each in stages if each.spread_by}
    while sum(alone[name] / found[name] for name in alone) > allotted:
        long = [name for name in spread if alone[name] / found[name] > allotted * _SHORT]
        longest = max(long or alone, key=lambda name: alone[name] / found[name])
        found[longest] = math.ceil(found[longest] * 1.1)
    return found


def _memory_gib(stage: Stage, workload: Workload, coefficients: Coefficients) -> float:
    """What a stage asks for; one that spills to disk asks for no more than a machine has."""
    wanted = stage.memory_gib(coefficients)
    return min(wanted, workload.machine.memory_gib * USABLE) if stage.spills else wanted


def _hours(stage: Stage, workload: Workload, coefficients: Coefficients) -> float:
    return stage.seconds(coefficients, workload.machine.cores) / 3600


def _offline(stage: Stage, machines: int, workload: Workload, coefficients: Coefficients) -> Row:
    machine, months = workload.machine, HOURS_A_MONTH / workload.traffic.refresh_hours
    alone = _hours(stage, workload, coefficients)
    memory, store = _memory_gib(stage, workload, coefficients), stage.output_gib(coefficients)
    too_large = memory > machine.memory_gib * USABLE * (1 + 1e-9)
    by = stage.divided_by if too_large else stage.spread_by
    numbered = max(workload.size.users, workload.size.items) <= POSITIONS
    possible = numbered and (machines == 1 or bool(by))
    each = memory if possible and not too_large else memory / machines
    if not numbered:
        runs = f"not by this code: no more than {POSITIONS:,} users, or items, have positions"
    elif machines == 1:
        runs = "one machine"
    elif possible:
        runs = by
    else:
        needs = f"{memory:,.0f} GiB" if too_large else f"{alone:,.0f} h"
        runs = f"not by this code: {needs} on one machine"
    money = alone * months * machine.hour + store * machine.stored_gib_month
    return Row(
        stage.name,
        stage.grows_with,
        stage.beyond(coefficients),
        stage.cpu_seconds(coefficients) / 3600,
        alone / machines,
        machines,
        each,
        store,
        money,
        runs,
        possible,
        stage.bounded_by,
    )


def _tightest(rows: Sequence[Row], workload: Workload) -> str:
    """The stage that asks for most: of machines, or of one machine's memory or time."""
    usable = workload.machine.memory_gib * USABLE
    allotted = workload.traffic.refresh_hours * USABLE

    def asks(row: Row) -> tuple[float, float]:
        hours = 0.0 if row.hours is None else row.hours / allotted
        return row.machines, max(row.memory_gib / usable, hours)

    found = max(rows, key=asks)
    if found.machines > 1:
        many = f"{found.machines:,.0f}" if math.isfinite(found.machines) else "no number of"
        return f"{found.stage}: {many} machines"
    memory, hours = found.memory_gib / usable, (found.hours or 0.0) / allotted
    what = "memory" if memory >= hours else "time"
    return f"{found.stage}: {max(memory, hours):.0%} of one machine's {what}"


def _assumptions(
    workload: Workload, coefficients: Coefficients, rows: Sequence[Row]
) -> tuple[str, ...]:
    size, machine, measured = workload.size, workload.machine, coefficients.measured
    farthest = max(rows, key=lambda row: row.beyond)
    found = [
        f"measured on {measured.get('processor', 'an unnamed machine')}, {coefficients.cores:g} cores, "
        f"{measured.get('date', 'no date')}, load {measured.get('load', '?')}",
        f"carried furthest: {farthest.stage}, {farthest.beyond:,.0f} times the largest size measured",
        f"stages run one after the other; {USABLE:.0%} of a machine's memory and of the period are used",
        "a stage on several machines is taken to divide evenly, whatever engine would do it",
        f"a worker is busy {HEADROOM:.0%} of its time at most, and no more than p99 allows (M/M/1)",
        "candidates of everybody are published; requests are divided evenly between surfaces",
    ]
    if workload.left_out:
        found.append(
            f"nothing is planned for {', '.join(workload.left_out)}: no edges were given "
            "(--degree for people, --items and --interactions-per-user for items)"
        )
    if any(surface.kind == PEOPLE for surface in workload.surfaces.values()):
        squares = size.users * workload.degrees.second
        capped = f", {size.wedges:.3g} of it within the hub cap" if size.wedges < squares else ""
        found.append(
            f"degrees: {workload.degrees.said}; Σ degree² = {squares:.3g}{capped}, of "
            f"{size.entries:.3g} entries (each connection at both ends); who asks is drawn by degree"
        )
        found.append(
            f"the arrays of the graph of connections are {ENTRY_BYTES} bytes an entry: "
            f"{size.entries * ENTRY_BYTES / 2**30:,.0f} GiB"
        )
    found.append(
        f"{machine.cores:g} cores and {machine.memory_gib:g} GiB at {machine.hour:.3g} an hour, "
        f"Redis {machine.redis_gib_hour:g} a GiB and hour; one copy of the store, no replicas"
    )
    return tuple(found)


def _described(workload: Workload) -> dict[str, Any]:
    return {
        "size": asdict(workload.size),
        "degrees": asdict(workload.degrees),
        "traffic": asdict(workload.traffic),
        "machine": asdict(workload.machine),
        "surfaces": sorted(workload.surfaces),
        "keep_features": workload.keep_features,
    }


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    """Infinite values as None, which JSON can say."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in values.items()
    }
