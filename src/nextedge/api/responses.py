"""What both ways to recommendations share: reading a question, and an answer as bytes."""

from __future__ import annotations

import re
from collections.abc import Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic_core import to_json

from nextedge.api.models import RecommendationOut
from nextedge.api.response_cache import Encoded
from nextedge.errors import InputError
from nextedge.serving.messages import RecommendationRequest, RecommendationResponse

if TYPE_CHECKING:
    from nextedge.api.tenants import Tenant
    from nextedge.recommender import Recommender


_HOW = re.compile(rb'"cache":"\w+","latency_ms":[\d.e+-]+')
"""How an answer came to be, as it is encoded; it stands behind the recommendation id."""


@dataclass(frozen=True)
class Page:
    """What may be asked of a list, beside whose it is."""

    limit: int | None
    context: str | None
    region: str | None
    exclude: tuple[str, ...] = ()
    filters: tuple[str, ...] = ()
    cursor: str | None = None

    def question(self, surface: str, deadline_ms: float, *, explain: bool) -> RecommendationRequest:
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
        return RecommendationRequest(
            surface,
            self.limit,
            {name: value for name, value in context.items() if value},
            self.exclude,
            filters,
            self.cursor,
            deadline_ms,
            explain,
        )


def encoded_answer(
    tenant: Tenant, user_id: str, surface: str, page: Page, explain: bool, key: Hashable
) -> tuple[RecommendationResponse, bytes]:
    """An answer and its JSON, kept for the hot route under the key unless that is None."""
    recommender, hot = tenant.recommender, tenant.hot
    question = page.question(surface, recommender.config.serving.deadline_ms, explain=explain)
    shown = _shown_matters(recommender, surface)
    overlay = recommender.overlay  # both are read before the answer is computed:
    version = overlay.current_version(user_id, shown=shown)
    narrowed = len(overlay.narrowed)
    answer = recommender.recommend_many([user_id], question)[0]
    body = to_json(_document(answer))
    if key is not None and not (answer.degraded or answer.cold_start):
        before, _, after = body.partition(answer.recommendation_id.encode())
        after = _HOW.sub(b'"cache":"hit","latency_ms":0.0', after, count=1)
        hot.keep(
            key,
            Encoded(
                before,
                after,
                answer.recommendation_id,
                answer.surface,
                answer.release,
                user_id,
                shown,
                version,
                narrowed,
                answer.kind,
                answer.query,
                answer.positions,
                answer.edition,
            ),
        )
    return answer, body


def _document(answer: RecommendationResponse) -> dict[str, Any]:
    """``RecommendationsOut`` as plain values: making models of a list costs as much as ranking it."""
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
    """``RecommendationOut`` as plain values."""
    name = "item_id" if answer.kind == "items" else "candidate_id"
    rows = []
    for each in answer.recommendations:
        reason = {
            "code": each.reason.code,
            "text": each.reason.text,
            "evidence": each.reason.evidence,
        }
        row: dict[str, Any] = {
            name: each.id,
            "score": each.score,
            "rank": each.rank,
            "reason": reason,
            "sources": list(each.sources),
            "display": each.display,
            "propensity": each.propensity,
            "promoted": each.promoted,
        }
        if each.contributions:
            row["contributions"] = each.contributions
        rows.append(row)
    return rows


def rendered(answer: RecommendationResponse) -> list[RecommendationOut]:
    """The recommendations of an answer as models."""
    return [RecommendationOut.model_validate(row) for row in _rows(answer)]


def _shown_matters(recommender: Recommender, surface: str) -> bool:
    """Whether the surface leaves out what was shown of late."""
    return recommender.release.surface(surface).settings.policy.recently_shown_days > 0
