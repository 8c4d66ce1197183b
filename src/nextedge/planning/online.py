"""The online line: from requests a second to worker processes, memory and store.

A worker answers one request at a time, and requests come to workers at random, so each is a
queue of its own: M/M/1, whose wait exceeds t with probability ρ e^−(μ − λ) t. The share ρ of its
time that a worker may be busy is the largest at which the measured 99th percentile of the work
itself and that of the wait fit into ``p99_ms``, and never above ``HEADROOM``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from nextedge.planning.coefficients import Coefficients
from nextedge.planning.drivers import reach
from nextedge.planning.offline import Term, vectors, wedges_of_asker
from nextedge.planning.workload import PEOPLE, Workload

HEADROOM = 0.7
"""Share of a worker's time that is planned at most: a peak within the peak, a restart, a swap."""
NODE_BYTES = 64
"""A worker's own arrays of a user or item: degrees, latest activity, counters of walks. Estimated:
at the sizes that are measured they vanish beside the libraries."""
_TAIL = 100.0
_WAYS = ("published", "features")


@dataclass(frozen=True)
class RequestLoad:
    """What one surface's requests need.

    Attributes:
        surface: its name.
        qps: its share of the requests.
        cpu_ms: CPU of one request.
        p99_ms: 99th percentile of an unqueued request.
        busy: ρ; 0 where no worker can keep the time.
        workers: processes, one core each; infinite where no number of them keeps the time.
        beyond: times the largest driver that was measured.
    """

    surface: str
    qps: float
    cpu_ms: float
    p99_ms: float
    busy: float
    workers: float
    beyond: float


@dataclass(frozen=True)
class Online:
    """What serving needs.

    Attributes:
        requests: by surface.
        event_share: of each worker's time, folding events in.
        worker_gib: memory of one worker's own.
        overlay_gib: of which live state, at the end of a refresh period.
        release_gib: mapped files of the release, once a machine.
        candidates_gib, lists_gib: values of the store: published candidates, ranked lists.
        events_gib: event log of a refresh period.
    """

    requests: tuple[RequestLoad, ...]
    event_share: float
    worker_gib: float
    overlay_gib: float
    release_gib: float
    candidates_gib: float
    lists_gib: float
    events_gib: float

    @property
    def workers(self) -> float:
        """Processes of all surfaces."""
        return sum(each.workers for each in self.requests)


def online_of(workload: Workload, coefficients: Coefficients, release_gib: float) -> Online:
    """Workers, memory and store for a workload's requests and events."""
    traffic = workload.traffic
    event_share = traffic.events_per_second * coefficients.law("cpu event").b
    found = tuple(
        _requests(name, workload, coefficients, event_share) for name in workload.surfaces
    )
    events = traffic.events_per_second * traffic.refresh_hours * 3600
    overlay_gib = events * coefficients.law("bytes event").b / 2**30
    base_mib = coefficients.law("memory worker").a + workload.size.nodes * NODE_BYTES / 2**20
    return Online(
        found,
        event_share,
        base_mib / 1024 + overlay_gib,
        overlay_gib,
        release_gib,
        sum(_candidates_gib(name, workload, coefficients) for name in workload.surfaces),
        traffic.qps * workload.cache_seconds * coefficients.law("bytes list").a / 2**30,
        events * coefficients.law("bytes logged").b / 2**30,
    )


def _requests(
    name: str, workload: Workload, coefficients: Coefficients, event_share: float
) -> RequestLoad:
    """A surface's workers; requests are divided evenly between the surfaces."""
    qps = workload.traffic.qps / len(workload.surfaces)
    terms, tail = request_terms(name, workload, coefficients)
    cpu_s = sum(t.times * coefficients.law(f"cpu {t.law}").at(t.driver) for t in terms)
    beyond = max(coefficients.law(f"cpu {t.law}").beyond(t.driver) for t in terms)
    own_p99 = cpu_s * tail
    busy = busy_share(cpu_s, own_p99, workload.traffic.p99_ms / 1e3, HEADROOM - event_share)
    workers = math.ceil(qps * cpu_s / busy - 1e-9) if busy > 0 else (math.inf if qps else 0.0)
    return RequestLoad(name, qps, cpu_s * 1e3, own_p99 * 1e3, busy, workers, beyond)


def request_terms(
    name: str, workload: Workload, coefficients: Coefficients
) -> tuple[list[Term], float]:
    """Parts of the CPU seconds of a request whose candidates are published, and its p99 over mean.

    What a candidate costs grows with the neighbours, or the items, that its features look at.
    """
    surface, size = workload.surfaces[name], workload.size
    kind = surface.kind
    way = "features" if workload.keep_features else "published"
    many = reach(size, surface)
    looked_at = _looked_at(kind, workload)
    law = f"request {kind} {way}"
    tail = coefficients.law(f"tail {kind} {way}")
    return [Term(law, looked_at, many)], max(tail.at(tail.largest), 1.0)


def _looked_at(kind: str, workload: Workload) -> float:
    """Neighbours, or items, that the features of a candidate look at; walks' hub cap is not theirs."""
    if kind == PEOPLE:
        return workload.degrees.neighbors
    return max(workload.size.history, 1e-9)


def computed_seconds(name: str, workload: Workload, coefficients: Coefficients) -> float:
    """CPU seconds of a request for somebody whose candidates are not published."""
    surface, size = workload.surfaces[name], workload.size
    many, looked_at = reach(size, surface), _looked_at(surface.kind, workload)
    spent = many * coefficients.law(f"cpu request {surface.kind} computed").at(looked_at)
    if surface.kind == PEOPLE:
        spent += coefficients.law("cpu two_hop").grown(wedges_of_asker(workload))
    for each in vectors(surface.kind, surface, size):
        spent += coefficients.law("cpu search").at(each)
    return spent


def busy_share(service_s: float, own_p99_s: float, target_s: float, most: float) -> float:
    """Largest ρ at which 99 of 100 are answered in time; 0 where none is.

    >>> busy_share(0.001, 0.002, 0.1, 0.7)
    0.7
    >>> busy_share(0.1, 0.2, 0.1, 0.7)
    0.0
    """
    left = target_s - own_p99_s
    if left <= 0 or most <= 0:
        return 0.0

    def late(busy: float) -> bool:  # p99 of the wait: ln(100 ρ) / (μ − λ), 0 while ρ ≤ 1 %
        return math.log(_TAIL * busy) * service_s / (1 - busy) > left if busy > 1 / _TAIL else False

    if not late(most):
        return most
    low, high = 0.0, most
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if late(middle) else (middle, high)
    return low


def _candidates_gib(name: str, workload: Workload, coefficients: Coefficients) -> float:
    surface, size = workload.surfaces[name], workload.size
    many = reach(size, surface)
    way = "features" if workload.keep_features else "published"
    value = coefficients.law(f"bytes {surface.kind} {way}").at(many)
    return size.users * value / 2**30
