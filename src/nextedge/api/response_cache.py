"""The response cache: encoded responses for repeated requests.

Its keys are path, query string and authorization. A response is sent again, each time with a new
recommendation id, while its release is active and no event changed the list of its user.
"""

from __future__ import annotations

import os
import time
from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from nextedge.serving.caches.lru import Cache

if TYPE_CHECKING:
    from nextedge.api.keys import ApiKeys
    from nextedge.recommender import Recommender
    from nextedge.serving.messages import RecommendationResponse

LOOK_SECONDS = 0.1
"""How long the cache may miss a promotion, or a revoked key."""


@dataclass(frozen=True, slots=True)
class EncodedResponse:
    """The bytes of a response before and after its recommendation id.

    Attributes:
        response: the response, without its recommendations.
    """

    before: bytes
    after: bytes
    response: RecommendationResponse


class ResponseCache:
    """Encoded responses of one tenant."""

    def __init__(self, recommender: Recommender, keys: ApiKeys) -> None:
        settings = recommender.config.serving
        self.recommender = recommender
        self.keys = keys
        self._responses: Cache[EncodedResponse]
        self._responses = Cache(settings.cache_entries, settings.cache_seconds)
        self._active: object = None
        self._keys_version = keys.version()
        self._looked = -1.0

    def key(self, scope: Any, authorization: bytes) -> Hashable:
        """The key of a request's response."""
        # two looks at files per request cost a third of a cached response's time
        if time.monotonic() - self._looked > LOOK_SECONDS:
            self._look()
        # The version of the keys is read before the response is computed: a response to a key that
        # is revoked meanwhile has an old version, and is never sent again.
        return scope["path"], scope["query_string"], authorization, self._keys_version

    def find(self, key: Hashable) -> tuple[bytes, str] | None:
        """The body to send and its surface; None if the response must be computed."""
        cached = self._responses.get(key)
        if cached is None or not self._is_valid(key, cached):
            return None
        response, recommendation_id = cached.response, os.urandom(16).hex()
        log = self.recommender.session.request_log
        if log is not None:
            log.repeat(recommendation_id, response.recommendation_id)
        return cached.before + recommendation_id.encode() + cached.after, response.surface

    def put(
        self, key: Hashable, response: RecommendationResponse, before: bytes, after: bytes
    ) -> None:
        """Cache a response, unless it is degraded or of a cold start."""
        # a degraded list would outlive the fault; events change a cold start at any time
        if not (response.degraded or response.cold_start):
            # the encoded bytes have the recommendations already
            slim = replace(response, recommendations=())
            self._responses.put(key, EncodedResponse(before, after, slim))

    def _is_valid(self, key: Hashable, cached: EncodedResponse) -> bool:
        """Whether the same release answers, and no event changed the user's list."""
        response, session = cached.response, self.recommender.session
        active, user, live = session.active.now_or_none(), response.user_id, response.live
        if active is None or live is None:
            return False
        release, overlay = active.of_user(user)[0], session.live.overlay
        # live edges replace the token, but change only the lists of their edition
        if live.release is not release.token and (
            response.release != release.id or response.edition != release.edition(response.query)
        ):
            return False
        # the cheaper look at the log; the pipeline relies on the complete one
        if overlay.current_version(user, shown=live.impressions, quick=True) != live.user:
            return False
        narrowed = len(overlay.narrowed)
        if narrowed != live.narrowed:
            since = live.narrowed, response.kind, response.query, response.positions
            if release.invalidation.invalidates(overlay, *since):
                return False
            # the next request checks later events only
            checked = replace(response, live=replace(live, narrowed=narrowed))
            self._responses.put(key, replace(cached, response=checked))
        return True

    def _look(self) -> None:
        """Clear the cache if other releases are active, and read the version of the keys."""
        self._looked, active = time.monotonic(), self.recommender.session.active.stamp
        if active != self._active:
            # else responses of the old release take memory until they expire
            self._responses.clear()
        self._active = active
        self._keys_version = self.keys.version()
