"""Traces by OpenTelemetry: a span for a request, and one for each stage of what it computes.

Spans say which route, tenant and surface; never a path, a query string or an address, since those
name people.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from nextedge.api.keys import CALLER
from nextedge.errors import MissingDependencyError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from starlette.types import ASGIApp, Receive, Scope, Send

    from nextedge.serving.messages import RecommendationResponse

_REAL = "nextedge.scope"
_CARRIERS = (b"traceparent", b"tracestate", b"baggage")


def tracer_provider(collector: str) -> TracerProvider:
    """Sends spans to a collector by OTLP over HTTP, in batches and by a thread of its own.

    Raises:
        MissingDependencyError: OpenTelemetry is not installed.
    """
    try:
        import opentelemetry.instrumentation.asgi  # noqa: F401  (what ``Traces`` needs)
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        raise MissingDependencyError("opentelemetry-sdk", "otel", "serving.traces") from None
    if urlsplit(collector).path in ("", "/"):
        collector = collector.rstrip("/") + "/v1/traces"
    provider = TracerProvider(resource=Resource.create({"service.name": "nextedge"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=collector)))
    return provider


def stage_spans(provider: TracerProvider, answer: RecommendationResponse) -> None:
    """One span for each stage of an answer that has just been computed, within the current one."""
    tracer = provider.get_tracer(__name__)
    at = time.time_ns() - int(sum(answer.stages.values()) * 1e6)
    for stage, spent_ms in answer.stages.items():
        span = tracer.start_span(
            f"nextedge.{stage}", start_time=at, attributes={"nextedge.surface": answer.surface}
        )
        at += int(spent_ms * 1e6)
        span.end(at)


class Traces:
    """ASGI middleware: a span for every request of a tenant that sends traces.

    Args:
        providers: of the tenants that do, by name.
    """

    def __init__(
        self, app: ASGIApp, providers: Mapping[str, TracerProvider], templates: Callable[[Any], str]
    ) -> None:
        from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware

        self.app = app
        self.templates = templates
        self.traced = {
            name: OpenTelemetryMiddleware(
                self._real,
                default_span_details=_details,
                tracer_provider=provider,
                exclude_spans=["receive", "send"],
            )
            for name, provider in providers.items()
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        caller = scope.get(CALLER)
        traced = self.traced.get(caller.tenant.name) if caller and caller.tenant else None
        if traced is None:
            await self.app(scope, receive, send)
            return
        shown = {
            "type": "http",
            "method": scope["method"],
            "path": self.templates(scope),
            "query_string": b"",
            "scheme": scope["scheme"],
            "http_version": scope["http_version"],
            "headers": [each for each in scope["headers"] if each[0] in _CARRIERS],
            "server": scope["server"],
            _REAL: scope,
        }
        await traced(shown, receive, send)

    async def _real(self, shown: Scope, receive: Receive, send: Send) -> None:
        await self.app(shown[_REAL], receive, send)


def _details(shown: Any) -> tuple[str, dict[str, str]]:
    tenant = shown[_REAL][CALLER].tenant.name
    attributes = {"http.route": shown["path"], "nextedge.tenant": tenant}
    return f"{shown['method']} {shown['path']}", attributes
