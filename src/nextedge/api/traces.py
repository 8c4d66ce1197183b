"""OpenTelemetry traces: a span for each request, and one for each stage of a computed list.

Spans have the route, tenant and surface.
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
    """The provider that sends spans to a collector by OTLP over HTTP, in batches.

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
    # in batches, by a thread: no request waits for the collector
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=collector)))
    return provider


def stage_spans(provider: TracerProvider, answer: RecommendationResponse) -> None:
    """Send a span for each stage of a computed list, within the current span."""
    tracer = provider.get_tracer(__name__)
    # only durations are known: the last stage ends now
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
        providers: by tenant.
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
        # spans copy path, query string, headers and address, which name people
        redacted = {
            "type": "http",
            "method": scope["method"],
            "path": self.templates(scope),
            "query_string": b"",
            "scheme": scope["scheme"],
            "http_version": scope["http_version"],
            "headers": [pair for pair in scope["headers"] if pair[0] in _CARRIERS],
            "server": scope["server"],
            _REAL: scope,
        }
        await traced(redacted, receive, send)

    async def _real(self, redacted: Scope, receive: Receive, send: Send) -> None:
        await self.app(redacted[_REAL], receive, send)


def _details(redacted: Any) -> tuple[str, dict[str, str]]:
    tenant = redacted[_REAL][CALLER].tenant.name
    attributes = {"http.route": redacted["path"], "nextedge.tenant": tenant}
    return f"{redacted['method']} {redacted['path']}", attributes
