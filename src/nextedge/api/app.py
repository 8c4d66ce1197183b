"""The FastAPI application of one tenant."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Header, Response
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from nextedge import __version__
from nextedge.api import events, onboarding, recommendations, similar, training, users
from nextedge.api.hot import HotAnswers, HotRoute
from nextedge.api.keys import SCOPES, ApiKeys, Scope
from nextedge.api.limits import BodyLimit, RequestCount
from nextedge.api.metrics import Metrics
from nextedge.api.problems import add_problem_handlers, problem
from nextedge.errors import NextEdgeError
from nextedge.recommender import Recommender

Authorise = Callable[[Scope], Any]


def create_app(recommender: Recommender, api_key: str | None = None) -> FastAPI:
    """All routes over one recommender.

    Args:
        recommender: the tenant that is served.
        api_key: a key of every scope, beside those of ``nextedge keys``. Where there is neither,
            none is asked for.
    """
    keys = ApiKeys(recommender.config.state_path, api_key)
    hot, metrics = HotAnswers(recommender, keys), Metrics(recommender)

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
    allowed = _authorise(keys)
    reads, writes, administers = ([Depends(allowed(s))] for s in ("read", "write", "admin"))
    app.include_router(recommendations.routes(recommender, hot, metrics), dependencies=reads)
    app.include_router(similar.routes(recommender), dependencies=reads)
    app.include_router(training.routes(recommender), dependencies=administers)
    app.include_router(users.routes(recommender), dependencies=administers)
    app.include_router(events.routes(recommender), dependencies=writes)
    app.include_router(onboarding.routes(recommender), dependencies=writes)
    _health(app, recommender)
    _releases(app, recommender, reads, administers)

    @app.get("/metrics", dependencies=reads, tags=["health"])
    def prometheus() -> Response:
        """Metrics as Prometheus reads them."""
        return Response(metrics.render(), media_type="text/plain; version=0.0.4")

    app.add_middleware(BodyLimit, limit=recommender.config.serving.body_bytes)
    app.add_middleware(RequestCount, metrics=metrics)
    app.add_middleware(HotRoute, answers=hot, metrics=metrics)
    return app


def _authorise(keys: ApiKeys) -> Authorise:
    """A dependency that asks for a key of a scope."""

    def needs(scope: Scope) -> Any:
        def authorise(authorization: Annotated[str | None, Header()] = None) -> None:
            if not keys.required:
                return
            given = (authorization or "").removeprefix("Bearer ")
            if not given or not any(keys.allows(given, each) for each in SCOPES):
                raise HTTPException(401, "Missing or wrong API key")
            if not keys.allows(given, scope):
                raise HTTPException(403, f"This API key has not the scope {scope!r}")

        return authorise

    return needs


def _releases(
    app: FastAPI, recommender: Recommender, reads: list[Any], administers: list[Any]
) -> None:
    @app.get("/v1/releases", dependencies=reads, tags=["releases"])
    def releases() -> list[dict[str, Any]]:
        """The releases, oldest first."""
        current = recommender.releases.current_id()
        return [
            {"id": release.id, "served": release.id == current, "created": release.manifest["created"],
             "metrics": release.manifest["metrics"]}
            for release in recommender.releases.all()
        ]  # fmt: skip

    @app.post("/v1/releases/rollback", dependencies=administers, tags=["releases"])
    def rollback() -> dict[str, str]:
        """Serve what was served before."""
        return {"release": recommender.releases.rollback()}

    @app.post("/v1/releases/{release_id}/promote", dependencies=administers, tags=["releases"])
    def promote(release_id: str) -> dict[str, str]:
        """Serve a release from now on."""
        recommender.releases.promote(release_id)
        return {"release": release_id}


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
