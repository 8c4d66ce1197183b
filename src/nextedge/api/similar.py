"""Routes of similar items or people, and of embeddings."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query

from nextedge.api.models import EmbeddingOut, SimilarEntry, SimilarOut
from nextedge.api.tenants import CurrentTenant
from nextedge.serving.similar import embedding, similar
from nextedge.types import MAX_LIMIT


def routes() -> APIRouter:
    """The routes of the caller's tenant."""
    router = APIRouter(tags=["similar"])

    @router.get("/v1/{surface}/similar")
    def similar_to(
        tenant: CurrentTenant,
        surface: str,
        given: Annotated[str, Query(alias="id", min_length=1, max_length=256)],
        limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 20,
    ) -> SimilarOut:
        """Items that the same people engage with; people whom the sources put near."""
        recommender = tenant.recommender
        release = recommender.release
        entries = [
            SimilarEntry(id=entry.id, score=entry.score, rank=rank, display=entry.display)
            for rank, entry in enumerate(
                similar(release, recommender.overlay, surface, given, limit), 1
            )
        ]
        return SimilarOut(id=given, surface=surface, release=release.id, similar=entries)

    @router.get("/v1/embeddings/{kind}/{given}")
    def embedding_of(
        tenant: CurrentTenant, kind: Literal["user", "item"], given: str
    ) -> EmbeddingOut:
        """The embedding that a source keeps of a user or an item."""
        recommender = tenant.recommender
        release = recommender.release
        vector = embedding(release, recommender.overlay, kind, given)
        return EmbeddingOut(
            id=given,
            kind=kind,
            release=release.id,
            dimensions=len(vector),
            embedding=[float(value) for value in vector],
        )

    return router
