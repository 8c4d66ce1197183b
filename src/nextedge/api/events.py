"""The route that records events."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from nextedge.api.tenants import CurrentTenant
from nextedge.errors import EventError
from nextedge.events.event import parse_event


def routes() -> APIRouter:
    """The route over the tenant of whoever calls."""
    router = APIRouter(tags=["events"])

    @router.post("/v1/events", status_code=202)
    def record(tenant: CurrentTenant, body: dict[str, Any] | list[dict[str, Any]]) -> JSONResponse:
        """Record one event or a list. Malformed ones are named by index; the rest is kept.

        202 once what was accepted is on disk; 422 when nothing was.
        """
        given = body if isinstance(body, list) else [body]
        good, rejected = [], []
        for index, raw in enumerate(given):
            try:
                good.append(parse_event(raw))
            except EventError as error:
                rejected.append({"index": index, "reason": str(error)})
        if rejected and not good:
            raise EventError(f"event {rejected[0]['index']}: {rejected[0]['reason']}")
        stored = tenant.recommender.record(good) if good else 0
        return JSONResponse(
            {"accepted": len(good), "repeated": len(good) - stored, "rejected": rejected}, 202
        )

    return router
