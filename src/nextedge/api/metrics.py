"""Prometheus metrics: requests, their seconds by stage, caches, events and the request log.

Labels are surfaces that exist, routes that exist and status classes: their number is bounded
whatever is asked. With several workers each writes to a shared folder and any of them answers
for all.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from copy import copy
from functools import cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from nextedge.errors import NextEdgeError
from nextedge.events.logs.log import Log
from nextedge.serving.messages import RecommendationResponse

FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


class Metrics:
    """What one process counts, every line under the name of its tenant."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        requests = Counter(
            "nextedge_requests",
            "HTTP requests",
            ("tenant", "route", "status"),
            registry=self.registry,
        )
        answers = Counter(
            "nextedge_answers",
            "Recommendation lists",
            ("tenant", "surface", "cache"),
            registry=self.registry,
        )
        degraded = Counter(
            "nextedge_degraded",
            "Lists that were degraded",
            ("tenant", "surface", "how"),
            registry=self.registry,
        )
        stages = Histogram(
            "nextedge_stage_seconds",
            "Seconds by stage of a request",
            ("tenant", "surface", "stage"),
            buckets=_SECONDS,
            registry=self.registry,
        )
        lost = Gauge(
            "nextedge_requests_not_logged",
            "Requests that the request log lost",
            ("tenant",),
            multiprocess_mode="livesum",
            registry=self.registry,
        )
        stored = Gauge(
            "nextedge_store",
            "What became of reads and writes of stores, since the start",
            ("tenant", "of", "what"),
            multiprocess_mode="livesum",
            registry=self.registry,
        )
        shard_seconds = Histogram(
            "nextedge_shard_seconds",
            "Seconds until a process with shards of the indexes answered",
            ("tenant", "shard"),
            buckets=_SECONDS,
            registry=self.registry,
        )
        shard_questions = Counter(
            "nextedge_shard_questions",
            "What became of questions to processes with shards",
            ("tenant", "shard", "what"),
            registry=self.registry,
        )
        self._lag, self._lag_seconds = (
            Gauge(
                f"nextedge_events_{name}",
                said,
                ("tenant", "group"),
                multiprocess_mode="mostrecent",
                registry=self.registry,
            )
            for name, said in (
                ("lag", "Events that wait for a group of consumers"),
                ("lag_seconds", "For how long the oldest of them has waited"),
            )
        )
        self._dead_letters = Gauge(
            "nextedge_dead_letters",
            "Events that groups of consumers gave up",
            ("tenant",),
            multiprocess_mode="mostrecent",
            registry=self.registry,
        )
        self._stored = stored.labels
        self._request, self._answer = cache(requests.labels), cache(answers.labels)
        self._degraded, self._stage = cache(degraded.labels), cache(stages.labels)
        self._shard_seconds, self._shard = (
            cache(shard_seconds.labels),
            cache(shard_questions.labels),
        )
        self._lost = lost.labels

    def request(self, tenant: str, route: str, status: int) -> None:
        """Count a request by the template of its route (never by its path) and status class."""
        self._request(tenant, route, f"{status // 100}xx").inc()

    def hit(self, tenant: str, surface: str) -> None:
        """Count a list that was sent from bytes."""
        self._answer(tenant, surface, "encoded").inc()

    def answer(self, tenant: str, answer: RecommendationResponse) -> None:
        """Count a list that was computed, and its stages."""
        self._answer(tenant, answer.surface, "ranked" if answer.cached else "miss").inc()
        for how in answer.degraded:
            self._degraded(tenant, answer.surface, how).inc()
        for stage, spent_ms in answer.stages.items():
            self._stage(tenant, answer.surface, stage).observe(spent_ms / 1e3)

    def stored(self, tenant: str, of: str, counts: Mapping[str, int]) -> None:
        """Say what became of the reads and writes of a tenant's ranked lists or candidates."""
        for what, number in counts.items():
            self._stored(tenant, of, what).set(number)

    def shard(self, tenant: str, part: int, what: str, seconds: float) -> None:
        """Count what became of a question to a process with shards, and how long answers took."""
        self._shard(tenant, str(part), what).inc()
        if what == "answered":
            self._shard_seconds(tenant, str(part)).observe(seconds)

    def events(self, tenant: str, log: Log) -> None:
        """Say how far the consumers of a tenant's events are; what cannot be read stays as it was."""
        with suppress(NextEdgeError):
            for group in log.groups():
                lag = log.lag(group)
                self._lag.labels(tenant, group).set(lag.events)
                self._lag_seconds.labels(tenant, group).set(lag.seconds)
            self._dead_letters.labels(tenant).set(len(log.dead_letters()))

    def lost(self, tenant: str, requests: int) -> None:
        """Say how many requests the log of a tenant has lost."""
        self._lost(tenant).set(requests)

    def render(self, tenant: str | None = None) -> bytes:
        """The text that Prometheus reads, of all workers: of one tenant, or of all."""
        found = self.registry
        if FOLDER_VARIABLE in os.environ:
            found = CollectorRegistry()
            MultiProcessCollector(found)  # type: ignore[no-untyped-call]
        return generate_latest(found if tenant is None else _Of(found, tenant))


class _Of(Collector):
    """What a registry holds of one tenant."""

    def __init__(self, registry: CollectorRegistry, tenant: str) -> None:
        self.registry = registry
        self.tenant = tenant

    def collect(self) -> Iterator[Metric]:
        for metric in self.registry.collect():
            own = copy(metric)
            own.samples = [
                each for each in metric.samples if each.labels.get("tenant") == self.tenant
            ]
            yield own
