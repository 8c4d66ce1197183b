"""The machines that answer, the store behind them, and the events that every worker folds in.

Every machine maps the whole release, and every worker holds all of live state. Where that does
not fit, users are taken to be divided between shards, each with its part of both: the smallest
number of machines that has room for the workers that the requests need.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from nextedge.planning.coefficients import Coefficients
from nextedge.planning.online import HEADROOM, Online, RequestLoad, computed_seconds
from nextedge.planning.rows import HOURS_A_MONTH, USABLE, Row
from nextedge.planning.workload import Workload

_MOST_SHARDS = 1_000_000


@dataclass(frozen=True)
class Fleet:
    """Machines of one surface's requests.

    Attributes:
        shards: parts that users are divided into; 1 = each machine has all of them.
        machines: infinite where no number has room.
        memory_gib: of each.
    """

    shards: int
    machines: float
    memory_gib: float


def fleet_of(workers: float, online: Online, workload: Workload) -> Fleet:
    """The fewest machines with room for so many workers."""
    usable = workload.machine.memory_gib * USABLE
    own = online.worker_gib - online.overlay_gib
    best = Fleet(1, math.inf, 0.0)
    shards = 1
    while math.isfinite(workers) and shards <= min(_MOST_SHARDS, best.machines):
        release, worker = online.release_gib / shards, own + online.overlay_gib / shards
        room = (usable - release) / worker if worker > 0 else math.inf
        at_once = min(workload.machine.cores, math.floor(max(room, 0.0)))
        if at_once >= 1:
            machines = shards * max(math.ceil(workers / shards / at_once), 1)
            if machines < best.machines:
                each = min(at_once, max(math.ceil(workers / machines), 1))
                best = Fleet(shards, machines, release + each * worker)
        shards = max(shards + 1, math.ceil(shards * 1.05))
    return best


def online_rows(online: Online, workload: Workload, coefficients: Coefficients) -> list[Row]:
    """Serving machines, store and event log."""
    machine = workload.machine
    rows = [_serving(each, online, workload, coefficients) for each in online.requests]
    store_gib = online.candidates_gib + online.lists_gib
    usable, busy = machine.memory_gib * USABLE, online.event_share
    rows.append(
        Row(
            "store",
            "users × candidates, and requests an hour",
            1.0,
            0.0,
            None,
            math.ceil(store_gib / usable),
            min(store_gib, usable),
            store_gib,
            store_gib * machine.redis_gib_hour * HOURS_A_MONTH,
            "Redis" if store_gib <= usable else "Redis Cluster",
            True,
            "serving.candidates_days, publish --users, cache_seconds",
        )
    )
    possible = busy < HEADROOM
    rows.append(
        Row(
            "events",
            "events a second, folded by every worker",
            1.0,
            busy * online.workers * HOURS_A_MONTH,
            None,
            0,
            online.overlay_gib,
            online.events_gib,
            online.events_gib * machine.stored_gib_month,
            f"{busy:.1%} of every worker"
            if possible
            else f"not by this code: {busy:.0%} of every worker",
            possible,
            "the release period: a release takes in what came before it",
        )
    )
    return rows


def _busy(each: RequestLoad) -> float:
    """Share of its time that a worker is busy: what is asked of it, not what may be."""
    return each.qps * each.cpu_ms / 1e3 / each.workers


def _serving(
    each: RequestLoad, online: Online, workload: Workload, coefficients: Coefficients
) -> Row:
    machine = workload.machine
    fleet = fleet_of(each.workers, online, workload)
    if not math.isfinite(each.workers):
        runs = (
            f"not within {workload.traffic.p99_ms:g} ms: p99 of the work is {each.p99_ms:,.1f} ms"
        )
    elif not math.isfinite(fleet.machines):
        runs = f"not by this code: a worker takes {online.worker_gib:,.3g} GiB"
    elif fleet.shards > 1:
        runs = (
            f"not by this code: users in {fleet.shards:,} shards, as all of it is "
            f"{online.release_gib:,.0f} GiB of release and {online.worker_gib:,.0f} GiB a worker"
        )
    else:
        runs = (
            f"{each.workers:,.0f} workers, {_busy(each):.0%} busy"
            if each.workers
            else "no requests"
        )
    looked = computed_seconds(each.surface, workload, coefficients) * 1e3
    return Row(
        f"requests {each.surface}",
        f"QPS × {each.cpu_ms:.2f} ms ({looked:.1f} if not published)",
        each.beyond,
        each.qps * each.cpu_ms / 1e3 * HOURS_A_MONTH,
        None,
        fleet.machines,
        fleet.memory_gib,
        online.release_gib,
        fleet.machines * machine.hour * HOURS_A_MONTH,
        runs,
        math.isfinite(fleet.machines) and fleet.shards == 1,
        "serving.cache_entries, log_queue",
    )
