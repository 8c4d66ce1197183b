"""Routes that recommend."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
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
from nextedge.errors import InputError
from nextedge.recommender import Recommender
from nextedge.serving.request import MAX_LIMIT, Answer, Question

UserId = Annotated[
    str,
    Query(min_length=1, max_length=256, description="id as in your tables", examples=["u000007"]),
]
Limit = Annotated[int | None, Query(ge=1, le=MAX_LIMIT, description="default: the surface's k")]
Context = Annotated[str | None, Query(max_length=64, description="mobile, web, email, …")]
Region = Annotated[str | None, Query(max_length=64, description="where it is to be offered")]
Exclude = Annotated[
    list[Annotated[str, Query(min_length=1, max_length=256)]] | None,
    Query(max_length=200, description="ids not to be shown; repeat the parameter for several"),
]
Filters = Annotated[
    list[Annotated[str, Query(min_length=3, max_length=512)]] | None,
    Query(
        alias="filter", max_length=100,
        description="column:value of the candidates, of numbers also column:low..high; one of the "
        "values of a column, and all columns, must fit",
        examples=[["category:books"]],
    ),
]  # fmt: skip
PageCursor = Annotated[
    str | None, Query(max_length=8192, description="next_cursor of the page before")
]
_CONTEXT = ("context", "region")
"""Names among the filters of the internal interface that are context."""


@dataclass(frozen=True)
class Page:
    """What may be asked of a list, beside whose it is."""

    limit: int | None
    context: str | None
    region: str | None
    exclude: tuple[str, ...]
    filters: tuple[str, ...]
    cursor: str | None

    def question(self, surface: str, deadline_ms: float, *, explain: bool) -> Question:
        """The same as the engine reads it.

        Raises:
            InputError: a filter is not column:value.
        """
        filters: dict[str, list[str]] = {}
        for text in self.filters:
            column, colon, value = text.partition(":")
            if not (column and colon and value):
                raise InputError(f"filter {text!r}: expected column:value")
            filters.setdefault(column, []).append(value)
        context = {"context": self.context, "region": self.region}
        return Question(
            surface, self.limit, {name: value for name, value in context.items() if value},
            self.exclude, filters, self.cursor, deadline_ms, explain,
        )  # fmt: skip


def _page(
    limit: Limit = None, context: Context = None, region: Region = None, exclude: Exclude = None,
    filters: Filters = None, cursor: PageCursor = None,
) -> Page:  # fmt: skip
    return Page(limit, context, region, tuple(exclude or ()), tuple(filters or ()), cursor)


def routes() -> APIRouter:
    """The routes over the tenant of whoever calls."""
    router = APIRouter(tags=["recommendations"])

    @router.get("/pymk/recommendations", response_model=RecommendationsOut)
    def people_you_may_know(
        request: Request, user_id: UserId, page: Annotated[Page, Depends(_page)]
    ) -> Response:
        """People you may know."""
        return ask(request, user_id, "people", page, explain=False)

    @router.get("/v1/{surface}/recommendations", response_model=RecommendationsOut)
    def recommendations(
        request: Request,
        surface: str,
        user_id: UserId,
        page: Annotated[Page, Depends(_page)],
        explain: bool = False,
    ) -> Response:
        """Recommendations on any surface."""
        return ask(request, user_id, surface, page, explain=explain)

    @router.post("/internal/ml/recommendations", response_model_exclude_none=True)
    def internal(
        request: InternalRequest, tenant: CurrentTenant, http: Request
    ) -> InternalResponse:
        """The engine's own interface, for other services of the house."""
        recommender = tenant.recommender
        if request.tenant_id != tenant.name:
            raise HTTPException(403, "tenant_id: this key is not of that tenant")
        name = recommender.surface_name(request.surface or _only_surface(recommender))
        asked = {key: value for key, value in request.filters.items() if key in _CONTEXT}
        context = {**{k: v for k, v in asked.items() if isinstance(v, str)}, **request.context}
        question = Question(
            name, request.count, context, request.exclude,
            {key: value for key, value in request.filters.items() if key not in _CONTEXT},
            request.cursor, recommender.config.serving.deadline_ms,
        )  # fmt: skip
        answer = recommender.recommend_many([request.user_id], question)[0]
        tenant.answered(http, answer)
        return InternalResponse(
            recommendations=rendered(answer), model_version=answer.release,
            cache_hit=answer.cached, latency_ms=answer.latency_ms,
            recommendation_id=answer.recommendation_id, degraded=list(answer.degraded),
            experiment=answer.experiment, next_cursor=answer.next_cursor,
        )  # fmt: skip

    def ask(request: Request, user_id: str, surface: str, page: Page, *, explain: bool) -> Response:
        tenant = tenant_of(request)
        recommender, hot = tenant.recommender, tenant.hot
        deadline_ms = recommender.config.serving.deadline_ms
        question = page.question(surface, deadline_ms, explain=explain)
        shown = _shown_matters(recommender, surface)
        overlay = recommender.overlay  # both are read before the answer is computed:
        version = overlay.current_version(user_id, shown=shown)
        narrowed = len(overlay.narrowed)
        answer = recommender.recommend_many([user_id], question)[0]
        tenant.answered(request, answer)
        out = RecommendationsOut(
            user_id=answer.user_id, surface=answer.surface, recommendations=rendered(answer),
            recommendation_id=answer.recommendation_id, release=answer.release,
            degraded=list(answer.degraded), cache="hit" if answer.cached else "miss",
            latency_ms=round(answer.latency_ms, 3), experiment=answer.experiment,
            next_cursor=answer.next_cursor,
        )  # fmt: skip
        if KEY in request.scope and not (answer.degraded or answer.cold_start):
            again = out.model_copy(update={"cache": "hit", "latency_ms": 0.0})
            before, _, after = _encoded(again).partition(answer.recommendation_id.encode())
            hot.keep(
                request.scope[KEY],
                Encoded(before, after, answer.recommendation_id, answer.surface, answer.release,
                        user_id, shown, version, narrowed, answer.kind, answer.query,
                        answer.positions),
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
            propensity=each.propensity, promoted=each.promoted,
            reason=ReasonOut(code=each.reason.code, text=each.reason.text, evidence=each.reason.evidence),
            contributions=each.contributions or None, **{key: each.id},
        )
        for each in answer.recommendations
    ]  # fmt: skip
