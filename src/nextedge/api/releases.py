"""Routes that list releases, promote one and roll back."""

from __future__ import annotations

from fastapi import APIRouter

from nextedge.api.models import ReleaseOut, ServedOut
from nextedge.api.tenants import CurrentTenant


def reading() -> APIRouter:
    """The routes of the caller's tenant that only read."""
    router = APIRouter(tags=["releases"])

    @router.get("/v1/releases")
    def releases(tenant: CurrentTenant) -> list[ReleaseOut]:
        """The releases, oldest first."""
        repository = tenant.recommender.releases
        current = repository.current_id()
        return [
            ReleaseOut(
                id=release.id,
                served=release.id == current,
                created=release.manifest["created"],
                metrics=release.manifest["metrics"],
            )
            for release in repository.all()
        ]

    return router


def changing() -> APIRouter:
    """The routes of the caller's tenant that change the served release."""
    router = APIRouter(tags=["releases"])

    @router.post("/v1/releases/rollback")
    def rollback(tenant: CurrentTenant) -> ServedOut:
        """Serve what was served before."""
        return ServedOut(release=tenant.recommender.releases.rollback())

    @router.post("/v1/releases/{release_id}/promote")
    def promote(tenant: CurrentTenant, release_id: str) -> ServedOut:
        """Serve a release from now on."""
        tenant.recommender.releases.promote(release_id)
        return ServedOut(release=release_id)

    return router
