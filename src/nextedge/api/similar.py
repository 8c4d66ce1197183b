"""Routes for what is like an item or a person, and for embeddings."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel

from nextedge.recommender import Recommender
from nextedge.serving.request import MAX_LIMIT
from nextedge.serving.similar import embedding, similar


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


def routes(recommender: Recommender) -> APIRouter:
    """The routes over one tenant."""
    router = APIRouter(tags=["similar"])

    @router.get("/v1/{surface}/similar")
    def similar_to(
        surface: str,
        given: Annotated[str, Query(alias="id", min_length=1, max_length=256)],
        limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 20,
    ) -> SimilarOut:
        """Items that the same people engage with; people whom the sources put near."""
        release = recommender.release
        found = similar(release, recommender.overlay, surface, given, limit)
        entries = [
            SimilarEntry(id=each.id, score=each.score, rank=rank, display=each.display)
            for rank, each in enumerate(found, 1)
        ]
        return SimilarOut(id=given, surface=surface, release=release.id, similar=entries)

    @router.get("/v1/embeddings/{kind}/{given}")
    def embedding_of(kind: Literal["user", "item"], given: str) -> EmbeddingOut:
        """The embedding that a source keeps of a user or an item."""
        release = recommender.release
        vector = embedding(release, recommender.overlay, kind, given)
        return EmbeddingOut(
            id=given, kind=kind, release=release.id, dimensions=len(vector),
            embedding=[float(value) for value in vector],
        )  # fmt: skip

    return router
