"""The route that erases a user."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter
from fastapi import Path as InPath

from nextedge.api.models import ForgottenOut
from nextedge.api.tenants import CurrentTenant


def routes() -> APIRouter:
    """The route of the caller's tenant."""
    router = APIRouter(tags=["users"])

    @router.delete("/v1/users/{user_id}")
    def forget(
        tenant: CurrentTenant, user_id: Annotated[str, InPath(min_length=1, max_length=256)]
    ) -> ForgottenOut:
        """Forget a person: what is kept of them is erased, and no later build reads them."""
        return ForgottenOut(**tenant.recommender.forget(user_id).to_json())

    return router
