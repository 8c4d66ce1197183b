"""Routes for the contacts of new users. No response tells who is a member."""

from __future__ import annotations

import time
from typing import Annotated

from fastapi import APIRouter, Path, Response
from fastapi.responses import JSONResponse

from nextedge.api.models import ContactsIn, ContactsOut, RefusedEntry
from nextedge.api.problems import problem
from nextedge.api.tenants import CurrentTenant
from nextedge.errors import ContactBudgetError

_DAY_SECONDS = 86_400
UserId = Annotated[str, Path(min_length=1, max_length=256, description="id as in your tables")]


def routes() -> APIRouter:
    """The routes of the caller's tenant."""
    router = APIRouter(tags=["onboarding"])

    @router.put("/v1/users/{user_id}/contacts", response_model=ContactsOut)
    def put(tenant: CurrentTenant, user_id: UserId, body: ContactsIn) -> ContactsOut | JSONResponse:
        """Keep a user's identifiers and address book, as hashes. 429 beyond a day's budget."""
        try:
            upload = tenant.recommender.contacts.put(
                user_id,
                own=body.own,
                contacts=body.contacts,
                consent=body.consent,
                discoverable=body.discoverable_by_contacts,
            )
        except ContactBudgetError as error:
            # the budget is one of a day in UTC
            left = _DAY_SECONDS - int(time.time()) % _DAY_SECONDS
            return problem(429, "ContactBudget", str(error), {"Retry-After": str(left)})
        refused = [RefusedEntry(index=position, reason=fault) for position, fault in upload.refused]
        return ContactsOut(stored=upload.stored, refused=refused, left_today=upload.left_today)

    @router.delete("/v1/users/{user_id}/contacts", status_code=204)
    def delete(tenant: CurrentTenant, user_id: UserId) -> Response:
        """Withdraw a user's consent: the address book and given identifiers are deleted."""
        tenant.recommender.contacts.remove(user_id)
        return Response(status_code=204)

    return router
