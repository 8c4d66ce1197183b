"""The short way: a plain question for recommendations is answered beside FastAPI's routing.

Finding the route, reading the parameters through their models and the way into a thread and back
cost as much as the answer. What this reads without a doubt it answers by the same code as the
route; all else, and whatever goes wrong, goes on to the route, which says so.
"""

from __future__ import annotations

import asyncio
import re
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from nextedge.api.keys import CALLER
from nextedge.api.models import LONGEST_CONTEXT, LONGEST_ID
from nextedge.api.response_cache import KEY, SURFACE, send_json
from nextedge.api.responses import Page, encoded_answer
from nextedge.cores import thread_count
from nextedge.types import MAX_LIMIT

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from nextedge.api.tenants import Tenant
    from nextedge.serving.messages import RecommendationResponse

_PATH = re.compile(r"/pymk/recommendations|/v1/([A-Za-z0-9_.-]+)/recommendations")
_LIMIT = re.compile(r"[1-9]\d{0,2}")
_PLAIN = {"user_id": LONGEST_ID, "limit": 3, "context": LONGEST_CONTEXT, "region": LONGEST_CONTEXT}
"""Parameters that are read here, and how long they may be."""


class Direct:
    """ASGI middleware, the last before the routes."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        # threads beyond the cores would only take turns, each with scratch room of its own
        self._cores = thread_count()
        self._threads = ThreadPoolExecutor(self._cores, thread_name_prefix="nextedge-answer")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = _asked(scope)
        if asked is not None:
            try:
                answer, body = await self._answered(*asked)
            except Exception:  # the route meets it again, and makes a problem document of it
                pass
            else:
                scope[SURFACE] = answer.surface
                asked[0].answered(answer)
                await send_json(send, body)
                return
        await self.app(scope, receive, send)

    async def _answered(self, *asked: Any) -> tuple[RecommendationResponse, bytes]:
        """On a core of its own here and now: a thread's turn would cost half as much again."""
        if self._cores == 1:
            return encoded_answer(*asked)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, encoded_answer, *asked)


def _asked(scope: Any) -> tuple[Tenant, str, str, Page, bool, Any] | None:
    """The arguments of ``encoded_answer``, None where the route must look."""
    if scope["type"] != "http" or scope["method"] != "GET":
        return None
    path, caller = _PATH.fullmatch(scope["path"]), scope[CALLER]
    if path is None or caller is None or caller.tenant is None or "read" not in caller.scopes:
        return None
    pairs = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    given = dict(pairs)
    if len(given) != len(pairs) or "user_id" not in given or given.keys() - _PLAIN.keys():
        return None
    if any(not 0 < len(value) <= _PLAIN[name] for name, value in given.items()):
        return None
    limit = given.get("limit")
    if limit is not None and not (_LIMIT.fullmatch(limit) and int(limit) <= MAX_LIMIT):
        return None
    page = Page(None if limit is None else int(limit), given.get("context"), given.get("region"))
    return caller.tenant, given["user_id"], path[1] or "people", page, False, scope.get(KEY)
