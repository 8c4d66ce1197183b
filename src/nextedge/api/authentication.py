"""The first door: whose a request is, and whether its tenant may make one more.

Without a key only what is open to all goes on.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

from nextedge.api.keys import CALLER, header, token_of
from nextedge.api.limits import RequestCount
from nextedge.api.problems import problem, problem_of
from nextedge.api.tenants import unknown_key

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from nextedge.api.problems import ProblemResponse
    from nextedge.api.routes import Templates
    from nextedge.api.tenants import Tenants

METRICS = "/metrics"


class Admission:
    """ASGI middleware that puts the caller into the scope, or refuses.

    Args:
        open_paths: what is answered without a key.
    """

    def __init__(
        self, app: ASGIApp, tenants: Tenants, templates: Templates, open_paths: Iterable[str]
    ) -> None:
        self.app = app
        self.tenants = tenants
        self.open_paths = frozenset(open_paths)
        self.unlimited = self.open_paths | {METRICS}

        def answering(response: ProblemResponse) -> ASGIApp:
            return RequestCount(response, tenants, templates)

        self.answering = answering

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        caller = scope[CALLER] = self.tenants.caller(token_of(header(scope, b"authorization")))
        if caller is None and scope["path"] not in self.open_paths:
            await self.answering(problem_of(unknown_key()))(scope, receive, send)
            return
        tenant = None if caller is None else caller.tenant
        if tenant is not None and scope["path"] not in self.unlimited:
            seconds = tenant.quota.wait()
            if seconds > 0:
                await self.answering(_too_many(seconds))(scope, receive, send)
                return
        await self.app(scope, receive, send)


def _too_many(seconds: float) -> ProblemResponse:
    text = "this tenant's requests of now are used up (serving.requests_per_second)"
    return problem(429, "Too Many Requests", text, {"Retry-After": str(max(1, math.ceil(seconds)))})
