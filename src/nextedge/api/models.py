"""Bodies of requests and answers, written once for the service, its document and the client."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

MAX_LIMIT = 500
"""Recommendations that one request may ask for, as ``nextedge.serving.request`` has it."""


class ReasonOut(BaseModel):
    """Why a recommendation is shown."""

    code: str
    text: str
    evidence: dict[str, Any] = {}


class RecommendationOut(BaseModel):
    """One predicted edge; ``candidate_id`` for people, ``item_id`` for items."""

    candidate_id: int | str | None = None
    item_id: int | str | None = None
    score: float
    rank: int
    reason: ReasonOut
    sources: list[str]
    display: str
    propensity: float = Field(1.0, description="chance with which it is at its place; log it")
    contributions: dict[str, float] | None = None


class RecommendationsOut(BaseModel):
    """The recommendations of one user."""

    user_id: int | str
    surface: str
    recommendations: list[RecommendationOut]
    recommendation_id: str
    release: str
    degraded: list[str]
    cache: str = "miss"
    latency_ms: float
    experiment: str | None = None


class InternalRequest(BaseModel):
    """The body of ``/internal/ml/recommendations``."""

    tenant_id: str
    user_id: int | str
    count: int = Field(20, ge=1, le=MAX_LIMIT)
    filters: dict[str, str] = {}
    surface: str | None = None


class InternalResponse(BaseModel):
    """The answer of ``/internal/ml/recommendations``."""

    recommendations: list[RecommendationOut]
    model_version: str
    latency_ms: float
    cache_hit: bool
    recommendation_id: str


class SimilarEntry(BaseModel):
    """One similar item or person."""

    id: int | str
    score: float
    rank: int
    display: str


class SimilarOut(BaseModel):
    """What is like the given one, best first."""

    id: int | str
    surface: str
    release: str
    similar: list[SimilarEntry]


class EmbeddingOut(BaseModel):
    """The vector of a user or an item; comparable within one release only."""

    id: str
    kind: str
    release: str
    dimensions: int
    embedding: list[float]


class TrainingRequest(BaseModel):
    """What to build: named surfaces, or all; promoted or not."""

    surfaces: list[str] = []
    promote: bool = True


class TrainingOut(BaseModel):
    """How a build goes."""

    id: str
    status: Literal["running", "done", "failed", "lost"]
    started: float
    ended: float | None = None
    release: str | None = None
    message: str | None = None
