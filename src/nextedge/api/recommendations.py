"""Routes that recommend."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from starlette.exceptions import HTTPException

from nextedge.api.fast_path import CACHE_KEY
from nextedge.api.models import (
    LONGEST_CONTEXT,
    LONGEST_ID,
    InternalRequest,
    InternalResponse,
    RecommendationsOut,
)
from nextedge.api.responses import Page, encoded_answer, rendered
from nextedge.api.telemetry import SURFACE
from nextedge.api.tenants import CurrentTenant, tenant_of
from nextedge.recommender import Recommender
from nextedge.serving.messages import RecommendationRequest
from nextedge.types import MAX_LIMIT

UserId = Annotated[
    str,
    Query(
        min_length=1,
        max_length=LONGEST_ID,
        description="id as in your tables",
        examples=["u000007"],
    ),
]
Limit = Annotated[int | None, Query(ge=1, le=MAX_LIMIT, description="default: the surface's k")]
Context = Annotated[
    str | None, Query(max_length=LONGEST_CONTEXT, description="mobile, web, email, …")
]
Region = Annotated[
    str | None, Query(max_length=LONGEST_CONTEXT, description="where it is to be offered")
]
Exclude = Annotated[
    list[Annotated[str, Query(min_length=1, max_length=LONGEST_ID)]] | None,
    Query(max_length=200, description="ids not to be shown; repeat the parameter for several"),
]
Filters = Annotated[
    list[Annotated[str, Query(min_length=3, max_length=512)]] | None,
    Query(
        alias="filter",
        max_length=100,
        description="column:value of the candidates, of numbers also column:low..high; one of the "
        "values of a column, and all columns, must fit",
        examples=[["category:books"]],
    ),
]
PageCursor = Annotated[
    str | None, Query(max_length=8192, description="next_cursor of the page before")
]
_CONTEXT = ("context", "region")
"""Filters of the internal interface that are context."""


def _page(
    limit: Limit = None,
    context: Context = None,
    region: Region = None,
    exclude: Exclude = None,
    filters: Filters = None,
    cursor: PageCursor = None,
) -> Page:
    return Page(limit, context, region, tuple(exclude or ()), tuple(filters or ()), cursor)


def routes() -> APIRouter:
    """The routes of the caller's tenant."""
    router = APIRouter(tags=["recommendations"])

    @router.get("/pymk/recommendations", response_model=RecommendationsOut)
    def people_you_may_know(
        request: Request, user_id: UserId, page: Annotated[Page, Depends(_page)]
    ) -> Response:
        """People you may know."""
        return answered(request, user_id, "people", page, explain=False)

    @router.get("/v1/{surface}/recommendations", response_model=RecommendationsOut)
    def recommendations(
        request: Request,
        surface: str,
        user_id: UserId,
        page: Annotated[Page, Depends(_page)],
        explain: bool = False,
    ) -> Response:
        """Recommendations on any surface."""
        return answered(request, user_id, surface, page, explain=explain)

    @router.post("/internal/ml/recommendations", response_model_exclude_none=True)
    def internal(
        request: InternalRequest, tenant: CurrentTenant, http: Request
    ) -> InternalResponse:
        """The engine's own interface, for other services of the house."""
        recommender = tenant.recommender
        # 403 for unknown tenants too: the response must not tell which ones exist
        if request.tenant_id != tenant.name:
            raise HTTPException(403, "tenant_id: this key is not of that tenant")
        name = recommender.surface_name(request.surface or _only_surface(recommender))
        filters, context = {}, dict[str, str]()
        for key, value in request.filters.items():
            if key not in _CONTEXT:
                filters[key] = value
            elif isinstance(value, str):
                context[key] = value
        query = RecommendationRequest(
            name,
            request.count,
            context | request.context,
            request.exclude,
            filters,
            request.cursor,
            recommender.config.serving.deadline_ms,
        )
        answer = recommender.recommend_many([request.user_id], query)[0]
        http.scope[SURFACE] = answer.surface
        tenant.answered(answer)
        return InternalResponse(
            recommendations=rendered(answer),
            model_version=answer.release,
            cache_hit=answer.cached,
            latency_ms=answer.latency_ms,
            recommendation_id=answer.recommendation_id,
            degraded=list(answer.degraded),
            experiment=answer.experiment,
            next_cursor=answer.next_cursor,
        )

    def answered(
        request: Request, user_id: str, surface: str, page: Page, *, explain: bool
    ) -> Response:
        tenant, key = tenant_of(request), request.scope.get(CACHE_KEY)
        answer, body = encoded_answer(tenant, user_id, surface, page, explain, key)
        request.scope[SURFACE] = answer.surface
        tenant.answered(answer)
        return Response(body, media_type="application/json")

    return router


def _only_surface(recommender: Recommender) -> str:
    surfaces = recommender.release.surfaces
    return "items" if "items" in surfaces else next(iter(surfaces))
