"""Routes that recommend."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from starlette.exceptions import HTTPException

from nextedge.api.hot import KEY, Encoded
from nextedge.api.models import (
    InternalRequest,
    InternalResponse,
    ReasonOut,
    RecommendationOut,
    RecommendationsOut,
)
from nextedge.api.tenants import CurrentTenant, tenant_of
from nextedge.recommender import Recommender
from nextedge.serving.request import MAX_LIMIT, Answer, Question

UserId = Annotated[
    str,
    Query(min_length=1, max_length=256, description="id as in your tables", examples=["u000007"]),
]
Limit = Annotated[int | None, Query(ge=1, le=MAX_LIMIT, description="default: the surface's k")]
Context = Annotated[str | None, Query(max_length=64, description="mobile, web, email, …")]


def routes() -> APIRouter:
    """The routes over the tenant of whoever calls."""
    router = APIRouter(tags=["recommendations"])

    @router.get("/pymk/recommendations", response_model=RecommendationsOut)
    def people_you_may_know(
        request: Request, user_id: UserId, limit: Limit = None, context: Context = None
    ) -> Response:
        """People you may know."""
        return ask(request, user_id, "people", limit, context, explain=False)

    @router.get("/v1/{surface}/recommendations", response_model=RecommendationsOut)
    def recommendations(
        request: Request,
        surface: str,
        user_id: UserId,
        limit: Limit = None,
        context: Context = None,
        explain: bool = False,
    ) -> Response:
        """Recommendations on any surface."""
        return ask(request, user_id, surface, limit, context, explain=explain)

    @router.post("/internal/ml/recommendations", response_model_exclude_none=True)
    def internal(
        request: InternalRequest, tenant: CurrentTenant, http: Request
    ) -> InternalResponse:
        """The engine's own interface, for other services of the house."""
        recommender = tenant.recommender
        if request.tenant_id != tenant.name:
            raise HTTPException(403, "tenant_id: this key is not of that tenant")
        name = recommender.surface_name(request.surface or _only_surface(recommender))
        answer = recommender.recommend(
            request.user_id, name, request.count, context=request.filters
        )
        tenant.answered(http, answer)
        return InternalResponse(
            recommendations=rendered(answer), model_version=answer.release,
            cache_hit=answer.cached, latency_ms=answer.latency_ms,
            recommendation_id=answer.recommendation_id,
        )  # fmt: skip

    def ask(
        request: Request, user_id: str, surface: str, limit: int | None, context: str | None, *,
        explain: bool,
    ) -> Response:  # fmt: skip
        tenant = tenant_of(request)
        recommender, hot = tenant.recommender, tenant.hot
        question = Question(
            surface, limit, {"context": context} if context else {}, explain=explain
        )
        shown = _shown_matters(recommender, surface)
        recommender.overlay.catch_up()
        version = recommender.overlay.version(user_id, shown=shown)  # before it is computed
        answer = recommender.recommend_many([user_id], question)[0]
        tenant.answered(request, answer)
        out = RecommendationsOut(
            user_id=answer.user_id, surface=answer.surface, recommendations=rendered(answer),
            recommendation_id=answer.recommendation_id, release=answer.release,
            degraded=list(answer.degraded), cache="hit" if answer.cached else "miss",
            latency_ms=round(answer.latency_ms, 3),
        )  # fmt: skip
        if KEY in request.scope and not answer.degraded:
            again = out.model_copy(update={"cache": "hit", "latency_ms": 0.0})
            before, _, after = _encoded(again).partition(answer.recommendation_id.encode())
            hot.keep(
                request.scope[KEY],
                Encoded(before, after, answer.recommendation_id, answer.surface, answer.release,
                        user_id, shown, version),
            )  # fmt: skip
        return Response(_encoded(out), media_type="application/json")

    return router


def _encoded(out: RecommendationsOut) -> bytes:
    return out.model_dump_json(exclude_none=True).encode()


def _shown_matters(recommender: Recommender, surface: str) -> bool:
    """Whether the surface leaves out what was shown of late."""
    return recommender.release.surface(surface).settings.policy.recently_shown_days > 0


def _only_surface(recommender: Recommender) -> str:
    return (
        "items"
        if "items" in recommender.release.surfaces
        else next(iter(recommender.release.surfaces))
    )


def rendered(answer: Answer) -> list[RecommendationOut]:
    """The recommendations of an answer as they go out."""
    key = "item_id" if answer.kind == "items" else "candidate_id"
    return [
        RecommendationOut(
            score=each.score, rank=each.rank, sources=list(each.sources), display=each.display,
            propensity=each.propensity,
            reason=ReasonOut(code=each.reason.code, text=each.reason.text, evidence=each.reason.evidence),
            contributions=each.contributions or None, **{key: each.id},
        )
        for each in answer.recommendations
    ]  # fmt: skip
