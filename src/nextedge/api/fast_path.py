"""The fast path: plain requests for recommendations skip FastAPI's routing.

Routing, validation by models and the way to a thread and back cost as much as the list itself. The
fast path answers requests with plain parameters, by the same code as the route. All others, and all
faults, go to the route, which answers with a problem document.
"""

from __future__ import annotations

import asyncio
import re
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from fastapi import FastAPI

from nextedge.api.keys import CALLER, header, token_of
from nextedge.api.models import LONGEST_CONTEXT, LONGEST_ID
from nextedge.api.request_body import url_fault
from nextedge.api.response_cache import LOOK_SECONDS
from nextedge.api.responses import Page, encoded_answer
from nextedge.api.telemetry import CACHED, SURFACE
from nextedge.cores import thread_count
from nextedge.types import MAX_LIMIT

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from nextedge.api.metrics import Metrics
    from nextedge.api.tenants import Caller, Tenant, Tenants
    from nextedge.serving.messages import RecommendationResponse

CACHE_KEY = "nextedge.cache_key"
"""Scope entry: the key under which the response may be cached."""
_PATH = re.compile(r"/pymk/recommendations|/v1/([A-Za-z0-9_.-]+)/recommendations")
_LIMIT = re.compile(r"[1-9][0-9]{0,2}")
_PLAIN = {"user_id": LONGEST_ID, "limit": 3, "context": LONGEST_CONTEXT, "region": LONGEST_CONTEXT}
"""Longest value of each parameter that the fast path reads."""


class CachingApp(FastAPI):
    """The application; it sends cached responses before any layer runs.

    Like all that the response cache reads from disk, keys are up to a tenth of a second old.

    Args:
        tenants: None if every request must be logged or traced.
    """

    def __init__(self, *, tenants: Tenants | None, **settings: Any) -> None:
        super().__init__(**settings)
        self._tenants = tenants
        self._callers: dict[bytes, Caller] = {}
        self._known_until = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._tenants is None or not await self._send_cached(self._tenants, scope, send):
            await super().__call__(scope, receive, send)

    async def _send_cached(self, tenants: Tenants, scope: Scope, send: Send) -> bool:
        if not _wants_recommendations(scope):
            return False
        authorization = encoding = b""
        for name, value in scope["headers"]:
            if name == b"authorization":
                authorization = bytes(value)
            elif name == b"accept-encoding":
                encoding = value
        # cached bytes are not compressed: such callers go through the layers
        if encoding not in (b"", b"identity"):
            return False
        tenant = self._tenant(tenants, authorization)
        # cached responses count, and the layer ``Authentication`` charges the quota
        if tenant is None or not tenant.quota.unlimited:
            return False
        return await _send_cached(tenant, scope, authorization, send, tenants.metrics)

    def _tenant(self, tenants: Tenants, authorization: bytes) -> Tenant | None:
        """The tenant of a key with the scope ``read``, at most a tenth of a second old."""
        now = time.monotonic()
        # else a revoked key would get cached responses for ever
        if now > self._known_until:
            self._callers.clear()
            self._known_until = now + LOOK_SECONDS
        caller = self._callers.get(authorization)
        if caller is None:
            caller = tenants.caller(token_of(authorization))
            if caller is None:
                return None
            self._callers[authorization] = caller
        return caller.tenant if "read" in caller.scopes else None


class FastPath:
    """ASGI middleware: the response cache for callers with compression or quota, then the pipeline."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics
        # threads beyond the cores would only take turns, each with scratch memory of its own
        self._cores = thread_count()
        self._threads = ThreadPoolExecutor(self._cores, thread_name_prefix="nextedge-answer")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        caller: Caller | None = scope.get(CALLER)
        if not _wants_recommendations(scope) or caller is None or caller.tenant is None:
            await self.app(scope, receive, send)
            return
        if CACHE_KEY not in scope:  # else the application has asked the cache
            authorization = header(scope, b"authorization")
            if await _send_cached(caller.tenant, scope, authorization, send, self.metrics):
                return
        plain = _plain(scope, caller)
        if plain is not None:
            try:
                answer, body = await self._answer(caller.tenant, *plain, scope[CACHE_KEY])
            except Exception:  # the route raises it again, and answers with a problem document
                pass
            else:
                scope[SURFACE] = answer.surface
                caller.tenant.answered(answer)
                await _send_json(send, body)
                return
        await self.app(scope, receive, send)

    async def _answer(self, *request: Any) -> tuple[RecommendationResponse, bytes]:
        # on one core the switch to a thread would cost half as much again as the answer
        if self._cores == 1:
            return encoded_answer(*request)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, encoded_answer, *request)


async def _send_cached(
    tenant: Tenant, scope: Scope, authorization: bytes, send: Send, metrics: Metrics
) -> bool:
    """Send the cached response of a request; without one, put its key into the scope."""
    key = tenant.responses.key(scope, authorization)
    cached = tenant.responses.find(key)
    if cached is None:
        scope[CACHE_KEY] = key
        return False
    body, surface = cached
    metrics.hit(tenant.name, surface)
    scope[SURFACE], scope[CACHED] = surface, True
    await _send_json(send, body, (b"x-cache", b"hit"))
    return True


async def _send_json(send: Send, body: bytes, *headers: tuple[bytes, bytes]) -> None:
    length = b"content-length", str(len(body)).encode()
    named = [(b"content-type", b"application/json"), *headers, length]
    await send({"type": "http.response.start", "status": 200, "headers": named})
    await send({"type": "http.response.body", "body": body})


def _wants_recommendations(scope: Any) -> bool:
    return bool(
        scope["type"] == "http"
        and scope["method"] == "GET"
        and scope["path"].endswith("/recommendations")
    )


def _plain(scope: Any, caller: Caller) -> tuple[str, str, Page, bool] | None:
    """User, surface, page and ``explain`` of a plain request; None sends it to the route."""
    path = _PATH.fullmatch(scope["path"])
    query: bytes = scope["query_string"]
    if path is None or "read" not in caller.scopes:
        return None
    if (b"%" in query or not query.isascii()) and url_fault(scope) is not None:
        return None
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    values = dict(pairs)
    # the validation of the route decides about repeated and unknown parameters
    if len(values) != len(pairs) or "user_id" not in values or values.keys() - _PLAIN.keys():
        return None
    if any(not 0 < len(value) <= _PLAIN[name] for name, value in values.items()):
        return None
    limit = values.get("limit")
    if limit is not None and not (_LIMIT.fullmatch(limit) and int(limit) <= MAX_LIMIT):
        return None
    page = Page(None if limit is None else int(limit), values.get("context"), values.get("region"))
    return values["user_id"], path[1] or "people", page, False
