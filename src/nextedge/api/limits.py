"""ASGI middleware: bodies of bounded size, a count and an id for every request."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from nextedge.api.problems import problem

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from nextedge.api.metrics import Metrics

_ID = b"x-request-id"
_LONGEST_ID = 128


class BodyLimit:
    """Refuses bodies beyond ``limit`` bytes with 413, whether or not they say their length."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self.app = app
        self.limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self.app(scope, receive, send)
            return
        parts, size, more = [], 0, True
        while more:  # a body of bounded size may be held whole
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            size += len(message.get("body", b""))
            if size > self.limit:
                text = f"the body is larger than {self.limit:,} bytes (serving.body_bytes)"
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

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = next((v for n, v in scope["headers"] if n == _ID), b"")
        request_id = given if 0 < len(given) <= _LONGEST_ID else uuid.uuid4().hex.encode()

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), (_ID, request_id)]
                route = getattr(scope.get("route"), "path", "other")
                self.metrics.request(route, message["status"])
            await send(message)

        await self.app(scope, receive, counted)
