"""ASGI middleware: bodies of bounded size, a count and an id for every request."""

from __future__ import annotations

import re
import uuid
from typing import TYPE_CHECKING, Any

from nextedge.api.keys import CALLER
from nextedge.api.problems import problem

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from nextedge.api.routes import Templates
    from nextedge.api.tenants import Caller, Tenants

REQUEST_ID = b"x-request-id"
_SCOPE = "nextedge.request_id"
_GIVEN = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")
_BYTES = 1 << 20
"""Of bodies that are of no tenant."""


def request_id(scope: Any) -> bytes:
    """The id of a request: its caller's, where it can stand in a log, or a new one."""
    found: bytes | None = scope.get(_SCOPE)
    if found is None:
        given = next((value for name, value in scope["headers"] if name == REQUEST_ID), b"")
        found = given if _GIVEN.fullmatch(given) else uuid.uuid4().hex.encode()
        scope[_SCOPE] = found
    return found


class BodyLimit:
    """Refuses bodies that are larger than their tenant allows, whether or not they say so."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self.app(scope, receive, send)
            return
        caller: Caller | None = scope[CALLER]
        limit = _BYTES
        if caller is not None and caller.tenant is not None:
            limit = caller.tenant.recommender.config.serving.body_bytes
        parts, size, more = [], 0, True
        while more:  # a body of bounded size may be held whole
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            size += len(message.get("body", b""))
            if size > limit:
                text = f"the body is larger than {limit:,} bytes (serving.body_bytes)"
                await problem(413, "Body too large", text)(scope, receive, send)
                return
            parts.append(message.get("body", b""))
            more = message.get("more_body", False)
        given = iter([{"type": "http.request", "body": b"".join(parts), "more_body": False}])

        async def replay() -> Message:
            return next(given, None) or await receive()

        await self.app(scope, replay, send)


class RequestCount:
    """Counts every request by the template of its route, and sends its id back."""

    def __init__(self, app: ASGIApp, tenants: Tenants, templates: Templates) -> None:
        self.app = app
        self.metrics = tenants.metrics
        self.templates = templates
        self.nobody = "" if tenants.only is None else tenants.only.name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        caller: Caller | None = scope[CALLER]
        tenant = self.nobody if caller is None or caller.tenant is None else caller.tenant.name
        given = request_id(scope)

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), (REQUEST_ID, given)]
                self.metrics.request(tenant, self.templates(scope), message["status"])
            await send(message)

        try:
            await self.app(scope, receive, counted)
        except Exception:  # the problem document is made further out
            self.metrics.request(tenant, self.templates(scope), 500)
            raise
