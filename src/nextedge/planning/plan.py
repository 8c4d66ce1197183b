"""From a workload to machines, hours, memory, store and money, stage by stage."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from nextedge.planning.coefficients import Coefficients
from nextedge.planning.offline import Stage, stages_of
from nextedge.planning.online import HEADROOM, Online, Requests, computed_seconds, online_of
from nextedge.planning.workload import PEOPLE, Workload

USABLE = 0.8
"""Share of a machine's memory, and of the refresh period, that is planned with."""
HOURS_A_MONTH = 730.0
ENTRY_BYTES = 24
"""Of a graph's entry: neighbour int32, weight float32, first and last time int64."""


@dataclass(frozen=True)
class Row:
    """One stage of the plan.

    Attributes:
        stage, grows_with: in words.
        beyond: times the largest size that was measured.
        core_hours: of a refresh, or of a month for what serves.
        hours: of a refresh, on ``machines``; None for what serves.
        machines: of the stage while it runs; infinite where no number of them would do.
        memory_gib: of each.
        store_gib: what it writes or keeps.
        money: a month.
        runs: how the present code runs it there, or why it cannot.
        possible: whether it can.
    """

    stage: str
    grows_with: str
    beyond: float
    core_hours: float
    hours: float | None
    machines: float
    memory_gib: float
    store_gib: float
    money: float
    runs: str
    possible: bool


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
    machine = workload.machine
    allotted = workload.traffic.refresh_hours * USABLE
    alone = {stage.name: stage.seconds(coefficients, machine.cores) / 3600 for stage in stages}
    wanted = {
        stage.name: max(
            1, math.ceil(stage.memory_gib(coefficients) / (machine.memory_gib * USABLE))
        )
        for stage in stages
    }
    spread = sum(alone[name] / wanted[name] for name in alone)
    more = max(1, math.ceil(spread / allotted - 1e-9))
    offline = [
        _offline(stage, alone[stage.name], wanted[stage.name], more, workload, coefficients)
        for stage in stages
    ]
    release_gib = sum(stage.output_gib(coefficients) for stage in stages if stage.name != "tables")
    online = online_of(workload, coefficients, release_gib)
    rows = (*offline, *_online(online, workload, coefficients))
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


def _offline(
    stage: Stage, alone_hours: float, by_memory: int, by_time: int, workload: Workload,
    coefficients: Coefficients,
) -> Row:  # fmt: skip
    machine, months = workload.machine, HOURS_A_MONTH / workload.traffic.refresh_hours
    machines = by_memory * by_time
    hours = alone_hours / machines
    memory = stage.memory_gib(coefficients)
    store = stage.output_gib(coefficients)
    if machines == 1:
        runs, possible = "one machine", True
    elif stage.splits:
        runs, possible = stage.splits, True
    elif by_memory > 1:
        runs = f"not by this code: {memory:,.0f} GiB on one machine"
        possible = False
    else:
        runs, possible = f"not by this code: {alone_hours:,.0f} h on one machine", False
    money = hours * machines * months * machine.hour + store * machine.stored_gib_month
    return Row(
        stage.name, stage.grows_with, stage.beyond(coefficients),
        stage.cpu_seconds(coefficients) / 3600, hours, machines, memory / machines, store, money,
        runs, possible,
    )  # fmt: skip


def _online(online: Online, workload: Workload, coefficients: Coefficients) -> list[Row]:
    """Serving machines, store and event log."""
    machine, rows = workload.machine, []
    shares = _mapped_shares(online, workload)
    for each in online.requests:
        rows.append(_serving(each, online, shares, workload, coefficients))
    store_gib = online.candidates_gib + online.lists_gib
    rows.append(
        Row("store", "users × candidates, requests an hour", 1.0, 0.0, None,
            math.ceil(store_gib / (machine.memory_gib * USABLE)),
            min(store_gib, machine.memory_gib * USABLE), store_gib,
            store_gib * machine.redis_gib_hour * HOURS_A_MONTH, "Redis, or Redis Cluster", True)
    )  # fmt: skip
    busy = online.event_share
    rows.append(
        Row("events", "events a second, in every worker", 1.0,
            busy * online.workers * HOURS_A_MONTH if math.isfinite(online.workers) else math.inf,
            None, 0, online.overlay_gib, online.events_gib,
            online.events_gib * machine.stored_gib_month,
            f"{busy:.1%} of every worker" if busy < HEADROOM else
            f"not by this code: {busy:.0%} of every worker", busy < HEADROOM)
    )  # fmt: skip
    return rows


def _mapped_shares(online: Online, workload: Workload) -> int:
    """Machines that a release must be divided between for its files to fit into memory."""
    usable = workload.machine.memory_gib * USABLE - online.worker_gib
    return max(1, math.ceil(online.release_gib / usable)) if usable > 0 else 0


def _serving(
    each: Requests, online: Online, shares: int, workload: Workload, coefficients: Coefficients
) -> Row:
    machine = workload.machine
    usable = machine.memory_gib * USABLE
    share_gib = online.release_gib / max(shares, 1)
    fit = (usable - share_gib) / online.worker_gib if online.worker_gib else math.inf
    at_once = min(machine.cores, math.floor(fit)) if shares else 0
    if not math.isfinite(each.workers):
        machines, runs = math.inf, f"not in {workload.traffic.p99_ms:g} ms: one takes {each.p99_ms:,.0f}"  # fmt: skip
    elif at_once < 1:
        machines, runs = math.inf, f"not by this code: a worker takes {online.worker_gib:,.0f} GiB"
    else:
        machines = max(math.ceil(each.workers / at_once), shares)
        runs = f"{each.workers:,.0f} workers, {each.busy:.0%} busy"
        if shares > 1:
            runs = f"not by this code: release of {online.release_gib:,.0f} GiB mapped; {runs}"
    memory = share_gib + min(at_once, max(each.workers, 1)) * online.worker_gib
    looked = computed_seconds(each.surface, workload, coefficients) * 1e3
    return Row(
        f"requests {each.surface}", f"QPS × {each.cpu_ms:.2f} ms ({looked:.1f} if not published)",
        each.beyond, each.qps * each.cpu_ms / 1e3 * HOURS_A_MONTH, None, machines, memory,
        online.release_gib if shares else 0.0, machines * machine.hour * HOURS_A_MONTH, runs,
        math.isfinite(machines) and shares == 1,
    )  # fmt: skip


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
    if any(surface.kind == PEOPLE for surface in workload.surfaces.values()):
        found.append(
            f"degrees: {workload.degrees.said}; Σ degree² = {size.wedges:.3g}, of "
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
