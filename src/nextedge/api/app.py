"""The FastAPI application of one tenant."""

from __future__ import annotations

import hmac
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Header
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from nextedge import __version__
from nextedge.api import events, recommendations
from nextedge.api.problems import add_problem_handlers, problem
from nextedge.errors import NextEdgeError
from nextedge.recommender import Recommender


def create_app(recommender: Recommender, api_key: str | None = None) -> FastAPI:
    """All routes over one recommender.

    Args:
        recommender: the tenant that is served.
        api_key: callers must send it as ``Authorization: Bearer …``; None asks for none.
    """

    def authorise(authorization: Annotated[str | None, Header()] = None) -> None:
        given = (authorization or "").removeprefix("Bearer ").encode()
        if api_key is not None and not hmac.compare_digest(given, api_key.encode()):
            raise HTTPException(401, "Missing or wrong API key")

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        recommender.start_serving()
        yield
        recommender.close()

    app = FastAPI(
        title="NextEdge", version=__version__, lifespan=lifespan,
        description="Recommends the next edge in a graph: people to people, and people to items.",
    )  # fmt: skip
    add_problem_handlers(app)
    guarded = [Depends(authorise)]
    app.include_router(recommendations.routes(recommender), dependencies=guarded)
    app.include_router(events.routes(recommender), dependencies=guarded)
    _health(app, recommender)

    @app.get("/v1/releases", dependencies=guarded, tags=["releases"])
    def releases() -> list[dict[str, Any]]:
        """The releases, oldest first."""
        current = recommender.releases.current_id()
        return [
            {"id": release.id, "served": release.id == current, "created": release.manifest["created"],
             "metrics": release.manifest["metrics"]}
            for release in recommender.releases.all()
        ]  # fmt: skip

    @app.post("/v1/releases/rollback", dependencies=guarded, tags=["releases"])
    def rollback() -> dict[str, str]:
        """Serve what was served before."""
        return {"release": recommender.releases.rollback()}

    @app.post("/v1/releases/{release_id}/promote", dependencies=guarded, tags=["releases"])
    def promote(release_id: str) -> dict[str, str]:
        """Serve a release from now on."""
        recommender.releases.promote(release_id)
        return {"release": release_id}

    return app


def _health(app: FastAPI, recommender: Recommender) -> None:
    @app.get("/health/live", tags=["health"])
    def live() -> dict[str, str]:
        """The process answers."""
        return {"status": "live"}

    @app.get("/health/ready", tags=["health"])
    def ready() -> JSONResponse:
        """A release is loaded and can answer."""
        try:
            return JSONResponse({"status": "ready", "release": recommender.release.id})
        except NextEdgeError as error:
            return problem(503, "Not ready", str(error))
