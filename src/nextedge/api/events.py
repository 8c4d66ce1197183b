"""The route that records events."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from nextedge.api.models import RecordedOut, RejectedEvent
from nextedge.api.tenants import CurrentTenant
from nextedge.errors import EventError


def routes() -> APIRouter:
    """The route of the caller's tenant."""
    router = APIRouter(tags=["events"])

    @router.post("/v1/events", status_code=202)
    def record(tenant: CurrentTenant, body: dict[str, Any] | list[dict[str, Any]]) -> RecordedOut:
        """Record one event or a list. Malformed ones are named by index; the rest is kept.

        202 once what was accepted is on disk; 422 when nothing was.
        """
        done = tenant.recommender.record_each(body if isinstance(body, list) else [body])
        # 202 would tell a sender that reads only the status that something is stored
        if done.rejected and not done.accepted:
            first = done.rejected[0]
            raise EventError(f"event {first.index}: {first.reason}")
        rejected = [RejectedEvent(index=e.index, reason=e.reason) for e in done.rejected]
        repeated = done.accepted - done.stored
        return RecordedOut(accepted=done.accepted, repeated=repeated, rejected=rejected)

    return router
