"""The access log: one line of JSON a request, without ids of users or what was asked.

What a line names is bounded or made here: the template of the route and never its path, a surface
that is configured, the request's own id.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from nextedge.api.keys import CALLER
from nextedge.api.limits import REQUEST_ID, request_id
from nextedge.api.response_cache import SURFACE

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from nextedge.api.routes import Templates
    from nextedge.api.tenants import Tenant, Tenants

log = logging.getLogger("nextedge.access")


def log_to_stdout() -> None:
    """Let lines out, unless logging was set up otherwise."""
    if not log.handlers:
        handler = logging.StreamHandler(sys.stdout)
        handler.setFormatter(logging.Formatter("%(message)s"))
        log.addHandler(handler)
        log.propagate = False
    log.setLevel(logging.INFO)


class AccessLog:
    """ASGI middleware that writes a line for every request of the tenants that keep a log."""

    def __init__(self, app: ASGIApp, tenants: Tenants, templates: Templates) -> None:
        self.app = app
        self.only = tenants.only
        self.templates = templates

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500
        given = request_id(scope)

        async def seen(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = list(message.get("headers", ()))
                if all(name != REQUEST_ID for name, _ in headers):
                    message = {**message, "headers": [*headers, (REQUEST_ID, given)]}
            await send(message)

        try:
            await self.app(scope, receive, seen)
        finally:
            self._write(scope, given, status, (time.perf_counter() - started) * 1e3)

    def _write(self, scope: Any, given: bytes, status: int, spent_ms: float) -> None:
        caller = scope.get(CALLER)
        tenant: Tenant | None = self.only if caller is None else caller.tenant
        if tenant is not None and not tenant.recommender.config.serving.access_log:
            return
        log.info(
            json.dumps(
                {
                    "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
                    "request_id": given.decode("ascii"),
                    "tenant": None if tenant is None else tenant.name,
                    "method": scope["method"] if scope["method"] in _METHODS else "other",
                    "route": self.templates(scope),
                    "status": status,
                    "ms": round(spent_ms, 3),
                    "surface": _surface(scope, tenant),
                }
            )
        )


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def _surface(scope: Any, tenant: Tenant | None) -> str | None:
    """The surface that answered, or was named by the path; None for what is no surface."""
    name = scope.get(SURFACE) or scope.get("path_params", {}).get("surface")
    known = () if tenant is None else tenant.recommender.config.surfaces
    return name if name in known else None
