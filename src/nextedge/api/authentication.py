"""Authentication of requests by API key, and the quota of their tenant.

A request without a valid key reaches the open paths alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

from nextedge.api.keys import CALLER, header, token_of
from nextedge.api.problems import problem, problem_of
from nextedge.api.tenants import unknown_key

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from nextedge.api.problems import ProblemResponse
    from nextedge.api.tenants import Tenants

METRICS = "/metrics"


class Authentication:
    """ASGI middleware that adds the caller to the scope, or refuses the request.

    Args:
        open_paths: paths that need no key.
    """

    def __init__(self, app: ASGIApp, tenants: Tenants, open_paths: Iterable[str]) -> None:
        self.app = app
        self.tenants = tenants
        self.open_paths = frozenset(open_paths)
        # a used-up quota must not hide the server from probes and scrapes
        self.unlimited = self.open_paths | {METRICS}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        caller = scope[CALLER] = self.tenants.caller(token_of(header(scope, b"authorization")))
        if caller is None and scope["path"] not in self.open_paths:
            await problem_of(unknown_key())(scope, receive, send)
            return
        tenant = None if caller is None else caller.tenant
        quota = None if tenant is None or tenant.quota.unlimited else tenant.quota
        if quota is not None and scope["path"] not in self.unlimited:
            seconds = quota.wait()
            if seconds > 0:
                await _too_many(seconds)(scope, receive, send)
                return
        await self.app(scope, receive, send)


def _too_many(seconds: float) -> ProblemResponse:
    text = "this tenant's requests of now are used up (serving.requests_per_second)"
    # a Retry-After of 0 would make clients repeat at once
    return problem(429, "Too Many Requests", text, {"Retry-After": str(max(1, math.ceil(seconds)))})
