"""The route that forgets a person."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter
from fastapi import Path as InPath
from pydantic import BaseModel

from nextedge.recommender import Recommender


class Forgotten(BaseModel):
    """What was changed: the same answer for whoever was never known, with zeros."""

    releases: int
    events: int
    requests: int


def routes(recommender: Recommender) -> APIRouter:
    """The route over one tenant."""
    router = APIRouter(tags=["users"])

    @router.delete("/v1/users/{user_id}")
    def forget(user_id: Annotated[str, InPath(min_length=1, max_length=256)]) -> Forgotten:
        """Forget a person: what is kept of them is erased, and no later build reads them."""
        return Forgotten(**recommender.forget(user_id).to_json())

    return router
