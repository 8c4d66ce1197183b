"""The serving fleet: from requests a second to worker processes, machines, memory and stores.

A worker answers one request at a time, and requests reach workers at random, so each worker is a
queue (M/M/1) whose wait exceeds t with probability ρ e^-(μ - λ) t. The planned share ρ is the largest
at which the 99th percentiles of the work and of the wait fit into ``p99_ms``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from nextedge.planning.coefficients import Coefficients
from nextedge.planning.steps import Part, indexed_components, query_wedges, reach
from nextedge.planning.workload import PEOPLE, Workload

HEADROOM = 0.7
"""Largest planned share of a worker's time: a peak within the peak, a restart and a swap need room."""
USABLE = 0.8
"""Planned share of a machine's memory, and of the time between releases."""
_NODE_BYTES, _WORKER_MIB, _LIST_BYTES, _TAIL = 64, 208, 6868, 1.7
"""A worker's arrays of a user or item, its libraries, a cached list; p99 of a request over its mean."""


@dataclass(frozen=True)
class RequestLoad:
    """The workers of one surface's requests.

    Attributes:
        cpu_ms, p99_ms: CPU of a request, and the 99th percentile without a queue.
        busy: ρ; 0 where no worker meets the latency bound.
        workers: processes of one core; infinite where no number of them meets the bound.
        beyond: the driver as a multiple of the largest measured one.
    """

    surface: str
    qps: float
    cpu_ms: float
    p99_ms: float
    busy: float
    workers: float
    beyond: float


@dataclass(frozen=True)
class Memory:
    """GiB of a worker without live state, of live state, and of the mapped release."""

    worker: float
    live: float
    release: float


def request_load(
    name: str, workload: Workload, table: Coefficients, event_share: float
) -> RequestLoad:
    """The load of a surface; requests are divided evenly between surfaces."""
    qps = workload.traffic.qps / len(workload.surfaces)
    part = request_part(name, workload, table)
    cpu_s, p99_s = part.seconds, part.seconds * _TAIL
    bound_s = workload.traffic.p99_ms / 1e3
    # Every worker applies all events: their share is lost to requests.
    busy = busy_share(cpu_s, p99_s, bound_s, HEADROOM - event_share)
    # A rounding error must not add a worker.
    workers = math.ceil(qps * cpu_s / busy - 1e-9) if busy > 0 else (math.inf if qps else 0.0)
    beyond = max(part.driver / part.law.largest, 1.0)
    return RequestLoad(name, qps, cpu_s * 1e3, p99_s * 1e3, busy, workers, beyond)


def request_part(name: str, workload: Workload, table: Coefficients, way: str = "") -> Part:
    """The work of a request: its candidates, times what their features look at."""
    surface = workload.surfaces[name]
    way = way or ("features" if workload.keep_features else "published")
    per_user = workload.size.interactions / workload.size.users
    # features look at neighbors above the hub cap too: it bounds walks alone
    looked_at = workload.degrees.neighbors if surface.kind == PEOPLE else max(per_user, 1e-9)
    law = table.law(f"cpu request {surface.kind} {way}")
    return Part(law, looked_at, reach(workload.size, surface))


def computed_ms(name: str, workload: Workload, table: Coefficients) -> float:
    """CPU of a request of a user who has no published candidates."""
    surface = workload.surfaces[name]
    parts = [request_part(name, workload, table, "computed")]
    if surface.kind == PEOPLE:
        # the fixed part is the start of a batch, which a server has behind it
        two_hop = replace(table.law("cpu two_hop"), a=0.0)
        parts.append(Part(two_hop, query_wedges(workload)))
    indexes = indexed_components(surface, workload.size)
    parts += [Part(table.law("cpu search"), components) for components in indexes]
    return sum(part.seconds for part in parts) * 1e3


def busy_share(service_s: float, own_p99_s: float, target_s: float, most: float) -> float:
    """Largest ρ at which 99 of 100 requests are answered in time; 0 where none is.

    >>> busy_share(0.001, 0.002, 0.1, 0.7), busy_share(0.1, 0.2, 0.1, 0.7)
    (0.7, 0.0)
    """
    left = target_s - own_p99_s
    if left <= 0 or most <= 0:
        return 0.0

    def late(busy: float) -> bool:  # p99 of the wait: ln(100 ρ) / (μ - λ), 0 up to ρ of 1 %
        return busy > 0.01 and math.log(100 * busy) * service_s / (1 - busy) > left

    low, high = (0.0, most) if late(most) else (most, most)
    for _ in range(60):  # halvings to the last bit of a float64
        middle = (low + high) / 2
        low, high = (low, middle) if late(middle) else (middle, high)
    return low


def memory_of(workload: Workload, table: Coefficients, release_gib: float) -> Memory:
    """Memory of serving at the end of a refresh period, when live state is largest."""
    events = workload.traffic.events_per_second * workload.traffic.refresh_hours * 3600
    nodes = workload.size.users + workload.size.items
    worker = _WORKER_MIB / 1024 + nodes * _NODE_BYTES / 2**30
    return Memory(worker, events * table.law("bytes event").b / 2**30, release_gib)


def fleet(workers: float, memory: Memory, workload: Workload) -> tuple[int, float, float]:
    """Shards of the users, machines, and GiB of each: the fewest machines for the workers.

    Every machine maps the whole release and every worker holds all live state. Where they do not
    fit, the plan divides users between shards. Machines are infinite where no number fits.
    """
    usable = workload.machine.memory_gib * USABLE
    best, shards = (1, math.inf, 0.0), 1
    # A shard takes a machine or more: more shards than the fewest machines cannot win.
    while math.isfinite(workers) and shards <= min(1e6, best[1]):
        release, worker = memory.release / shards, memory.worker + memory.live / shards
        at_once = min(workload.machine.cores, max(usable - release, 0.0) // worker)
        if at_once >= 1:
            machines = shards * max(math.ceil(workers / shards / at_once), 1)
            if machines < best[1]:
                running = min(at_once, max(math.ceil(workers / machines), 1))
                best = shards, float(machines), release + running * worker
        # Steps of 5 %: a million shards are some three hundred steps.
        shards = max(shards + 1, math.ceil(shards * 1.05))
    return best


def stores_gib(workload: Workload, table: Coefficients) -> float:
    """Published candidates of all users, and cached ranked lists."""
    way = "features" if workload.keep_features else "published"
    lists = workload.traffic.qps * workload.cache_seconds * _LIST_BYTES
    for surface in workload.surfaces.values():
        law = table.law(f"bytes {surface.kind} {way}")
        lists += workload.size.users * law.at(reach(workload.size, surface))
    return lists / 2**30
