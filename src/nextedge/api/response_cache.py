"""The hot route: repeated questions are answered from bytes, before any routing.

An answer is kept encoded, under its path, query string and authorization. It is sent again only
while its release is served and no event has changed what its user may be shown; each time with
a recommendation id of its own. Everything else goes on to the application.
"""

from __future__ import annotations

import os
import time
from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from nextedge.api.keys import CALLER, header, token_of
from nextedge.errors import NextEdgeError
from nextedge.serving.caches.lru import Cache

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from nextedge.api.keys import ApiKeys
    from nextedge.api.metrics import Metrics
    from nextedge.api.tenants import Caller, Tenant, Tenants
    from nextedge.recommender import Recommender
    from nextedge.serving.release.loaded import LoadedRelease
    from nextedge.types import Identifier, IndexArray

KEY = "nextedge.hot"
"""Where the scope of a request carries the key under which its answer may be kept."""
SURFACE = "nextedge.surface"
"""Where the scope of a request carries the surface that has answered it."""
_SECONDS = 0.1
"""How long a promotion, or a revoked key, may go unseen by the hot route."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """An answer in bytes, in two parts around its recommendation id."""

    before: bytes
    after: bytes
    recommendation_id: str
    surface: str
    release: str
    user_id: Identifier
    shown: bool
    """Whether what was shown of late changes it."""
    version: tuple[int, int, int]
    narrowed: int
    """Of live state, and how many events had taken somebody out of others' sight: both read
    before it was computed."""
    kind: str
    query: int
    positions: IndexArray
    """Of the user, and of the recommended, in the release."""
    edition: int
    """Of the user's lists: of the live edges in the release's graphs."""


class HotAnswers:
    """Encoded answers of one recommender."""

    def __init__(self, recommender: Recommender, keys: ApiKeys) -> None:
        settings = recommender.config.serving
        self.recommender = recommender
        self.keys = keys
        self._keys = keys.version()
        self._answers: Cache[Encoded] = Cache(settings.cache_entries, settings.cache_seconds)
        self._served: object = None
        self._looked = -1.0

    def key(self, scope: Any, authorization: bytes) -> Hashable:
        """Under what the answer is kept. The keys' version is read before the answer is
        computed: one to a key that is revoked meanwhile is never found again.
        """
        self._look()
        return scope["path"], scope["query_string"], authorization, self._keys

    def find(self, key: Hashable) -> tuple[bytes, Encoded] | None:
        """The body to send, or None where the answer must be computed."""
        kept = self._answers.get(key)
        if kept is None:
            return None
        release, overlay = self._release_of(kept.user_id), self.recommender.overlay
        if release is None or kept.release != release.id:
            return None
        if kept.edition != release.edition(kept.query):
            return None
        version = overlay.current_version(kept.user_id, shown=kept.shown, quick=True)
        if version != kept.version:
            return None
        narrowed = len(overlay.narrowed)
        if narrowed != kept.narrowed:
            since = kept.narrowed, kept.kind, kept.query, kept.positions
            if release.touched.touches(overlay, *since):
                return None
            self._answers.put(key, replace(kept, narrowed=narrowed))
        recommendation_id = os.urandom(16).hex()
        log = self.recommender.session.request_log
        if log is not None:
            log.repeat(recommendation_id, kept.recommendation_id)
        return kept.before + recommendation_id.encode() + kept.after, kept

    def _release_of(self, user_id: Identifier) -> LoadedRelease | None:
        try:
            return self.recommender.session.active.now().of_user(user_id)[0]
        except NextEdgeError:
            return None

    def keep(self, key: Hashable, answer: Encoded) -> None:
        """Keep an answer for the next who asks the same."""
        self._answers.put(key, answer)

    def _look(self) -> None:
        """Which release is served, and whether who may ask has changed; so often, not always."""
        now = time.monotonic()
        if now - self._looked <= _SECONDS:
            return
        self._looked, served = now, self.recommender.session.active.stamp
        if served != self._served:
            self._answers.clear()  # none of them is sent again
        self._served = served
        self._keys = self.keys.version()


class Front:
    """Sends what is kept before anything else is done; what it cannot do at once it leaves.

    Whose a key is holds here for a tenth of a second, as everything that the hot route looks at
    on disk. Callers who want an answer compressed take the long way, as do those with a quota.
    """

    def __init__(self, tenants: Tenants) -> None:
        self.tenants = tenants
        self._callers: dict[bytes, Caller] = {}
        self._known_until = 0.0

    async def sent(self, scope: Scope, send: Send) -> bool:
        """Whether the answer was kept, and sent."""
        if not _asks(scope) or header(scope, b"accept-encoding") not in (b"", b"identity"):
            return False
        authorization = header(scope, b"authorization")
        tenant = self._tenant(authorization)
        if tenant is None or not tenant.quota.unlimited:
            return False
        return await _sent(tenant, scope, authorization, send, self.tenants.metrics)

    def _tenant(self, authorization: bytes) -> Tenant | None:
        """The tenant of a key that may read, as was known a moment ago."""
        now = time.monotonic()
        if now > self._known_until:
            self._callers.clear()
            self._known_until = now + _SECONDS
        caller = self._callers.get(authorization)
        if caller is None:
            caller = self.tenants.caller(token_of(authorization))
            if caller is None:
                return None
            self._callers[authorization] = caller
        return caller.tenant if "read" in caller.scopes else None


class HotRoute:
    """ASGI middleware that sends what is kept to those whom ``Front`` leaves."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if _asks(scope) and KEY not in scope:  # else the front has looked
            caller: Caller | None = scope[CALLER]
            if caller is not None and caller.tenant is not None:
                authorization = header(scope, b"authorization")
                if await _sent(caller.tenant, scope, authorization, send, self.metrics):
                    return
        await self.app(scope, receive, send)


async def _sent(
    tenant: Tenant, scope: Scope, authorization: bytes, send: Send, metrics: Metrics
) -> bool:
    """Send the answer where it is kept; else say in the scope under what it may be."""
    key = tenant.hot.key(scope, authorization)
    found = tenant.hot.find(key)
    if found is None:
        scope[KEY] = key
        return False
    body, answer = found
    metrics.hit(tenant.name, answer.surface)
    scope[SURFACE] = answer.surface
    await send_json(send, body, (b"x-cache", b"hit"))
    return True


async def send_json(send: Send, body: bytes, *headers: tuple[bytes, bytes]) -> None:
    """A whole answer of JSON."""
    length = b"content-length", str(len(body)).encode()
    named = [(b"content-type", b"application/json"), *headers, length]
    await send({"type": "http.response.start", "status": 200, "headers": named})
    await send({"type": "http.response.body", "body": body})


def _asks(scope: Any) -> bool:
    """Whether recommendations are asked for."""
    return bool(
        scope["type"] == "http"
        and scope["method"] == "GET"
        and scope["path"].endswith("/recommendations")
    )
