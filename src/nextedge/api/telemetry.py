"""Telemetry of requests: their ids, counts by route and status, and the access log.

A line of the access log has no user and no text of the caller: it has the template of the route, a
configured surface, and the request's id.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from fastapi.routing import iter_route_contexts
from starlette.routing import compile_path

from nextedge.api.keys import CALLER, header

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from nextedge.api.tenants import Tenant, Tenants

REQUEST_ID = b"x-request-id"
SURFACE = "nextedge.surface"
"""Scope entry: the surface that answered."""
CACHED = "nextedge.cached"
"""Scope entry: the response is a cached one."""
OTHER = "other"
"""The template of a path without a route."""
# the caller's text goes into a header and the log: short, and on one line
_VALID_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

log = logging.getLogger("nextedge.access")


class Telemetry:
    """ASGI middleware around all others but compression."""

    def __init__(self, app: ASGIApp, tenants: Tenants, templates: Templates) -> None:
        self.app = app
        self.metrics = tenants.metrics
        self.templates = templates
        self.only = tenants.only
        self.logs = any(tenant.logs_access for tenant in tenants)
        if self.logs:
            log_to_stdout()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status, request_id = time.perf_counter(), 500, b""

        async def observed(message: Message) -> None:
            nonlocal status, request_id
            if message["type"] == "http.response.start":
                status, cached = message["status"], CACHED in scope
                # a cached response counts as a hit of its surface; without a log no line has its id
                if self.logs or not cached:
                    request_id = _request_id(scope)
                    message["headers"] = [*message.get("headers", ()), (REQUEST_ID, request_id)]
                if not cached:
                    self._count(scope, status)
            await send(message)

        try:
            await self.app(scope, receive, observed)
        except Exception:  # an outer layer of Starlette answers with 500
            self._count(scope, 500)
            raise
        finally:
            if self.logs:
                spent_ms = (time.perf_counter() - started) * 1e3
                self._log(scope, request_id or _request_id(scope), status, spent_ms)

    def _tenant(self, scope: Any) -> Tenant | None:
        """The caller's tenant; the only tenant, for a caller without a key."""
        caller = scope.get(CALLER)
        return self.only if caller is None else caller.tenant

    def _count(self, scope: Any, status: int) -> None:
        tenant = self._tenant(scope)
        name = "" if tenant is None else tenant.name
        self.metrics.request(name, self.templates(scope), status)

    def _log(self, scope: Any, request_id: bytes, status: int, spent_ms: float) -> None:
        tenant = self._tenant(scope)
        if tenant is not None and not tenant.logs_access:
            return
        line = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "request_id": request_id.decode("ascii"),
            "tenant": None if tenant is None else tenant.name,
            # the method is the caller's text, too
            "method": scope["method"] if scope["method"] in _METHODS else "other",
            "route": self.templates(scope),
            "status": status,
            "ms": round(spent_ms, 3),
            "surface": _surface(scope, tenant),
        }
        log.info(json.dumps(line))


class Templates:
    """Finds the route template of a request."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._compiled: list[tuple[Any, str]] = []

    def __call__(self, scope: Any) -> str:
        """The template of the router, or of the path if a layer answered before it."""
        route = scope.get("route")
        if route is not None:
            return str(route.path)
        for pattern, template in self._patterns():
            if pattern.match(scope["path"]):
                return template
        return OTHER

    def _patterns(self) -> list[tuple[Any, str]]:
        if not self._compiled:  # routes are added after the middleware
            paths = [str(context.path) for context in iter_route_contexts(self._app.routes)]
            self._compiled = [(compile_path(path)[0], path) for path in paths]
        return self._compiled


def log_to_stdout() -> None:
    """Write the access log to stdout, unless it has a handler already."""
    if not log.handlers:
        handler = logging.StreamHandler(sys.stdout)
        handler.setFormatter(logging.Formatter("%(message)s"))
        log.addHandler(handler)
        log.propagate = False  # else the root logger prints each line again
    log.setLevel(logging.INFO)


def _request_id(scope: Any) -> bytes:
    """The caller's request id if it is valid, else a new one."""
    sent = header(scope, REQUEST_ID)
    return sent if _VALID_ID.fullmatch(sent) else uuid.uuid4().hex.encode()


def _surface(scope: Any, tenant: Tenant | None) -> str | None:
    """The surface that answered, or that the path names; None if it is not configured."""
    name = scope.get(SURFACE) or scope.get("path_params", {}).get("surface")
    known = () if tenant is None else tenant.recommender.config.surfaces
    # the path may name anything, also a person
    return name if name in known else None
