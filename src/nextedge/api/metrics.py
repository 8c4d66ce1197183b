"""Prometheus metrics: requests, their seconds by stage, caches, events and the request log.

Labels are surfaces that exist, routes that exist and status classes: their number is bounded
whatever is asked. With several workers each writes to a shared folder and any of them answers
for all.
"""

from __future__ import annotations

import os
from functools import cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from nextedge.recommender import Recommender
from nextedge.serving.request import Answer

FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


class Metrics:
    """What one process counts."""

    def __init__(self, recommender: Recommender) -> None:
        self.recommender = recommender
        self.registry = CollectorRegistry()
        tenant = recommender.config.tenant
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
            "nextedge_stage_seconds", "Seconds by stage of a request",
            ("tenant", "surface", "stage"), buckets=_SECONDS, registry=self.registry,
        )  # fmt: skip
        self._request = cache(lambda route, status: requests.labels(tenant, route, status))
        self._answer = cache(lambda surface, kept: answers.labels(tenant, surface, kept))
        self._degraded = cache(lambda surface, how: degraded.labels(tenant, surface, how))
        self._stage = cache(lambda surface, stage: stages.labels(tenant, surface, stage))
        self._lost = Gauge(
            "nextedge_requests_not_logged", "Requests that the request log lost", ("tenant",),
            multiprocess_mode="livesum", registry=self.registry,
        ).labels(tenant)  # fmt: skip

    def request(self, route: str, status: int) -> None:
        """Count a request by the template of its route (never by its path) and status class."""
        self._request(route, f"{status // 100}xx").inc()

    def hit(self, surface: str) -> None:
        """Count a list that was sent from bytes."""
        self._answer(surface, "encoded").inc()

    def answer(self, answer: Answer) -> None:
        """Count a list that was computed, and its stages."""
        self._answer(answer.surface, "ranked" if answer.cached else "miss").inc()
        for how in answer.degraded:
            self._degraded(answer.surface, how).inc()
        for stage, spent_ms in answer.stages.items():
            self._stage(answer.surface, stage).observe(spent_ms / 1e3)

    def render(self) -> bytes:
        """The text that Prometheus reads, of all workers."""
        log = self.recommender.request_log
        self._lost.set(0 if log is None else log.lost)
        if FOLDER_VARIABLE not in os.environ:
            return generate_latest(self.registry)
        joined = CollectorRegistry()
        MultiProcessCollector(joined)  # type: ignore[no-untyped-call]
        return generate_latest(joined)
