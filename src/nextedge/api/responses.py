"""Responses with recommendations: the parameters of a list, and its JSON as bytes."""

from __future__ import annotations

import re
from collections.abc import Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic_core import to_json

from nextedge.api.models import RecommendationOut
from nextedge.errors import InputError
from nextedge.serving.messages import RecommendationRequest, RecommendationResponse

if TYPE_CHECKING:
    from nextedge.api.tenants import Tenant


_CACHE_FIELDS = re.compile(rb'"cache":"\w+","latency_ms":[\d.e+-]+')
"""The fields of an encoded response that differ in a cached one; they follow the recommendation id."""


@dataclass(frozen=True)
class Page:
    """The parameters of a list, beside its user and surface."""

    limit: int | None
    context: str | None
    region: str | None
    exclude: tuple[str, ...] = ()
    filters: tuple[str, ...] = ()
    cursor: str | None = None

    def request(self, surface: str, deadline_ms: float, *, explain: bool) -> RecommendationRequest:
        """The request that the pipeline reads.

        Raises:
            InputError: a filter is not column:value.
        """
        filters: dict[str, list[str]] = {}
        for text in self.filters:
            column, colon, value = text.partition(":")
            if not (column and colon and value):
                raise InputError(f"filter {text!r}: expected column:value")
            filters.setdefault(column, []).append(value)
        context: dict[str, Any] = {"context": self.context, "region": self.region}
        context = {name: value for name, value in context.items() if value}
        return RecommendationRequest(
            surface, self.limit, context, self.exclude, filters, self.cursor, deadline_ms, explain
        )


def encoded_answer(
    tenant: Tenant, user_id: str, surface: str, page: Page, explain: bool, key: Hashable
) -> tuple[RecommendationResponse, bytes]:
    """A response and its JSON; cached under the key, if there is one."""
    recommender = tenant.recommender
    request = page.request(surface, recommender.config.serving.deadline_ms, explain=explain)
    answer = recommender.session.answer([user_id], request)[0]
    body = to_json(_document(answer))
    if key is not None:
        before, _, after = body.partition(answer.recommendation_id.encode())
        after = _CACHE_FIELDS.sub(b'"cache":"hit","latency_ms":0.0', after, count=1)
        tenant.responses.put(key, answer, before, after)
    return answer, body


def _document(answer: RecommendationResponse) -> dict[str, Any]:
    # plain values: models of a list would cost as much as ranking it
    document = {
        "user_id": answer.user_id,
        "surface": answer.surface,
        "recommendations": _rows(answer),
        "recommendation_id": answer.recommendation_id,
        "release": answer.release,
        "degraded": answer.degraded,
        "cache": "hit" if answer.cached else "miss",
        "latency_ms": round(answer.latency_ms, 3),
        "experiment": answer.experiment,
        "next_cursor": answer.next_cursor,
    }
    return {key: value for key, value in document.items() if value is not None}


def _rows(answer: RecommendationResponse) -> list[dict[str, Any]]:
    """The fields of ``RecommendationOut``, for each recommendation."""
    name = "item_id" if answer.kind == "items" else "candidate_id"
    rows = []
    for item in answer.recommendations:
        reason = item.reason
        row: dict[str, Any] = {
            name: item.id,
            "score": item.score,
            "rank": item.rank,
            "reason": {"code": reason.code, "text": reason.text, "evidence": reason.evidence},
            "sources": list(item.sources),
            "display": item.display,
            "propensity": item.propensity,
            "promoted": item.promoted,
        }
        if item.contributions:
            row["contributions"] = item.contributions
        rows.append(row)
    return rows


def rendered(answer: RecommendationResponse) -> list[RecommendationOut]:
    """The recommendations of a response as models."""
    return [RecommendationOut.model_validate(row) for row in _rows(answer)]
