"""The route that records events."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from nextedge.api.models import RecordedOut, RejectedEvent
from nextedge.api.tenants import CurrentTenant
from nextedge.errors import EventError
from nextedge.events.event import Event, parse_event

_IDS = ("user_id", "candidate_id", "item_id")


def routes() -> APIRouter:
    """The route over the tenant of whoever calls."""
    router = APIRouter(tags=["events"])

    @router.post("/v1/events", status_code=202)
    def record(tenant: CurrentTenant, body: dict[str, Any] | list[dict[str, Any]]) -> RecordedOut:
        """Record one event or a list. Malformed ones are named by index; the rest is kept.

        202 once what was accepted is on disk; 422 when nothing was.
        """
        good, rejected = [], []
        for index, raw in enumerate(body if isinstance(body, list) else [body]):
            try:
                good.append(_parsed(raw))
            except EventError as error:
                rejected.append(RejectedEvent(index=index, reason=str(error)))
        if rejected and not good:
            raise EventError(f"event {rejected[0].index}: {rejected[0].reason}")
        stored = tenant.recommender.record(good) if good else 0
        return RecordedOut(accepted=len(good), repeated=len(good) - stored, rejected=rejected)

    return router


def _parsed(raw: dict[str, Any]) -> Event:
    for name in _IDS:
        given = raw.get(name)
        if isinstance(given, int) and not -(2**63) <= given < 2**63:
            raise EventError(f"{name}: {given} does not fit 64 bits; send it as a string")
    try:
        return parse_event(raw)
    except OverflowError:
        raise EventError("timestamp: expected a time in UTC of the years 1 to 9999") from None
