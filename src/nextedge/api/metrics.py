"""Prometheus metrics: requests, their seconds by stage, caches, events and the request log.

Several workers write to a shared folder, and any of them answers for all.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from copy import copy
from functools import cache
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from nextedge.errors import NextEdgeError
from nextedge.events.logs.log import Log
from nextedge.serving.messages import RecommendationResponse

FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
Mode = Literal["livesum", "mostrecent"]


class Metrics:
    """The metrics of one process, each labelled with its tenant."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"nextedge_{name}", text, ("tenant", *labels), registry=registry)

        def histogram(name: str, text: str, *labels: str) -> Histogram:
            names = ("tenant", *labels)
            return Histogram(f"nextedge_{name}", text, names, buckets=_SECONDS, registry=registry)

        def gauge(name: str, text: str, *labels: str, mode: Mode = "livesum") -> Gauge:
            names = ("tenant", *labels)
            return Gauge(f"nextedge_{name}", text, names, multiprocess_mode=mode, registry=registry)

        requests = counter("requests", "HTTP requests", "route", "status")
        answers = counter("answers", "Recommendation lists", "surface", "cache")
        degraded = counter("degraded", "Lists that were degraded", "surface", "how")
        stages = histogram("stage_seconds", "Seconds by stage of a request", "surface", "stage")
        lost = gauge("requests_not_logged", "Requests that the request log lost")
        text = "What became of reads and writes of stores, since the start"
        self._stored = gauge("store", text, "of", "what").labels
        text = "Seconds until a process with shards of the indexes answered"
        shard_seconds = histogram("shard_seconds", text, "shard")
        text = "What became of questions to processes with shards"
        shard_questions = counter("shard_questions", text, "shard", "what")
        # every worker reads the same log: the numbers of one of them are those of all
        text = "Events that wait for a group of consumers"
        self._lag = gauge("events_lag", text, "group", mode="mostrecent")
        text = "For how long the oldest of them has waited"
        self._lag_seconds = gauge("events_lag_seconds", text, "group", mode="mostrecent")
        text = "Events that groups of consumers gave up"
        self._dead_letters = gauge("dead_letters", text, mode="mostrecent")
        # ``labels`` takes a lock at each call
        self._request, self._answer = cache(requests.labels), cache(answers.labels)
        self._degraded, self._stage = cache(degraded.labels), cache(stages.labels)
        self._shard_seconds = cache(shard_seconds.labels)
        self._shard = cache(shard_questions.labels)
        self._lost = lost.labels

    def request(self, tenant: str, route: str, status: int) -> None:
        """Count a request by the template of its route (never by its path) and status class."""
        # no path and no exact status: the number of labels stays bounded
        self._request(tenant, route, f"{status // 100}xx").inc()

    def hit(self, tenant: str, surface: str) -> None:
        """Count a cached response."""
        self._answer(tenant, surface, "encoded").inc()

    def answer(self, tenant: str, answer: RecommendationResponse) -> None:
        """Count a computed list, and observe its stages."""
        self._answer(tenant, answer.surface, "ranked" if answer.cached else "miss").inc()
        for how in answer.degraded:
            self._degraded(tenant, answer.surface, how).inc()
        for stage, spent_ms in answer.stages.items():
            self._stage(tenant, answer.surface, stage).observe(spent_ms / 1e3)

    def stored(self, tenant: str, of: str, counts: Mapping[str, int]) -> None:
        """Set the numbers of reads and writes of a tenant's ranked lists or candidates."""
        for what, number in counts.items():
            self._stored(tenant, of, what).set(number)

    def shard(self, tenant: str, part: int, what: str, seconds: float) -> None:
        """Count the outcome of a request to a shard process, and observe its latency."""
        self._shard(tenant, str(part), what).inc()
        if what == "answered":
            self._shard_seconds(tenant, str(part)).observe(seconds)

    def events(self, tenant: str, log: Log) -> None:
        """Set the lag of a tenant's groups of consumers; a log that cannot be read changes nothing."""
        # the other metrics must be readable while the log is not
        with suppress(NextEdgeError):
            for group in log.groups():
                lag = log.lag(group)
                self._lag.labels(tenant, group).set(lag.events)
                self._lag_seconds.labels(tenant, group).set(lag.seconds)
            self._dead_letters.labels(tenant).set(len(log.dead_letters()))

    def lost(self, tenant: str, requests: int) -> None:
        """Set the number of requests that a tenant's request log lost."""
        self._lost(tenant).set(requests)

    def render(self, tenant: str | None = None) -> bytes:
        """The metrics of all workers, of one tenant or of all, in the text format of Prometheus."""
        registry = self.registry
        # each worker counts its own requests; the folder has the counts of all
        if FOLDER_VARIABLE in os.environ:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry if tenant is None else _TenantMetrics(registry, tenant))


class _TenantMetrics(Collector):
    """The metrics of one tenant in a registry."""

    def __init__(self, registry: CollectorRegistry, tenant: str) -> None:
        self.registry = registry
        self.tenant = tenant

    def collect(self) -> Iterator[Metric]:
        for metric in self.registry.collect():
            part = copy(metric)
            part.samples = [s for s in metric.samples if s.labels.get("tenant") == self.tenant]
            yield part
