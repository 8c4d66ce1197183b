"""The FastAPI application: all routes and ASGI layers over the tenants of a process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request, Response, Security
from fastapi.responses import JSONResponse, PlainTextResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.exceptions import HTTPException

from nextedge import __version__
from nextedge.api import events, onboarding, recommendations, releases, similar, training, users
from nextedge.api.authentication import Authentication
from nextedge.api.compression import Compression
from nextedge.api.document import document
from nextedge.api.fast_path import CachingApp, FastPath
from nextedge.api.keys import CALLER
from nextedge.api.keys import Scope as KeyScope
from nextedge.api.models import HealthOut
from nextedge.api.problems import add_problem_handlers, problem
from nextedge.api.request_body import RequestBody
from nextedge.api.telemetry import Telemetry, Templates
from nextedge.api.tenants import Caller, Tenants, tenant_of, unknown_key
from nextedge.api.traces import Traces
from nextedge.errors import NextEdgeError
from nextedge.recommender import Recommender

_DOCS = ("/openapi.json", "/docs", "/docs/oauth2-redirect", "/redoc")
_HEALTH = ("/health/live", "/health/ready")
_bearer = HTTPBearer(auto_error=False, description="a key of 'nextedge keys create'")


def create_app(served: Recommender | Tenants, api_key: str | None = None) -> FastAPI:
    """The application over one tenant or several.

    Args:
        served: the tenants, or the recommender of the only one.
        api_key: one more key, of every scope, of a single recommender. Without it, and without
            keys of ``nextedge keys``, callers need none.
    """
    tenants = served if isinstance(served, Tenants) else Tenants([served], api_key)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        for tenant in tenants:
            tenant.recommender.start_serving()
        yield
        for tenant in tenants:
            tenant.close()

    observed = any(tenant.traces is not None or tenant.logs_access for tenant in tenants)
    app = CachingApp(
        # the access log and spans are made by layers, which a cached response would skip
        tenants=None if observed else tenants,
        title="NextEdge",
        version=__version__,
        lifespan=lifespan,
        description="Recommends the next edge in a graph: people to people, and people to items.",
    )
    add_problem_handlers(app)
    reads, writes, administers = ([Depends(_needs(s))] for s in ("read", "write", "admin"))
    app.include_router(recommendations.routes(), dependencies=reads)
    app.include_router(similar.routes(), dependencies=reads)
    app.include_router(releases.reading(), dependencies=reads)
    app.include_router(releases.changing(), dependencies=administers)
    app.include_router(training.routes(), dependencies=administers)
    app.include_router(users.routes(), dependencies=administers)
    app.include_router(events.routes(), dependencies=writes)
    app.include_router(onboarding.routes(), dependencies=writes)
    _health(app, tenants)
    _metrics(app, tenants)
    _add_middleware(app, tenants)
    app.openapi = partial(document, app)  # type: ignore[method-assign]
    return app


def _add_middleware(app: FastAPI, tenants: Tenants) -> None:
    # the last layer added is the outermost
    templates = Templates(app)
    app.add_middleware(RequestBody)
    app.add_middleware(FastPath, metrics=tenants.metrics)
    traced = {tenant.name: tenant.traces for tenant in tenants if tenant.traces is not None}
    if traced:
        app.add_middleware(Traces, providers=traced, templates=templates)
    app.add_middleware(Authentication, tenants=tenants, open_paths=(*_DOCS, *_HEALTH))
    app.add_middleware(Telemetry, tenants=tenants, templates=templates)
    app.add_middleware(Compression)


def _needs(scope: KeyScope) -> Any:
    """A dependency that requires a key with a scope."""

    def authorise(
        request: Request, _: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)]
    ) -> None:
        tenant_of(request)
        if scope not in request.scope[CALLER].scopes:
            raise HTTPException(403, f"This API key has not the scope {scope!r}")

    return authorise


def _metrics(app: FastAPI, tenants: Tenants) -> None:
    def authorise(
        request: Request, _: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)]
    ) -> None:
        caller: Caller | None = request.scope[CALLER]
        if caller is None:
            raise unknown_key()
        if caller.tenant is not None and "read" not in caller.scopes:
            raise HTTPException(403, "This API key has not the scope 'read'")

    @app.get(
        "/metrics",
        dependencies=[Depends(authorise)],
        response_class=PlainTextResponse,
        tags=["health"],
    )
    def prometheus(request: Request) -> Response:
        """Metrics as Prometheus reads them: of the key's tenant, for the operator of all."""
        for tenant in tenants:
            log = tenant.recommender.session.request_log
            tenants.metrics.lost(tenant.name, 0 if log is None else log.lost)
            for of, counts in tenant.recommender.session.store_counts().items():
                tenants.metrics.stored(tenant.name, of, counts)
            tenants.metrics.events(tenant.name, tenant.recommender.overlay.log)
        caller_tenant = request.scope[CALLER].tenant
        text = tenants.metrics.render(None if caller_tenant is None else caller_tenant.name)
        return Response(text, media_type="text/plain; version=0.0.4")


def _health(app: FastAPI, tenants: Tenants) -> None:
    @app.get("/health/live", response_model_exclude_none=True, tags=["health"])
    def live() -> HealthOut:
        """The process answers."""
        return HealthOut(status="live")

    @app.get("/health/ready", response_model=HealthOut, tags=["health"])
    def ready() -> JSONResponse:
        """A release is loaded and can answer, of several tenants any; none of them is named."""
        if tenants.draining:
            return problem(503, "Not ready", "the server is stopping: it takes no more requests")
        loaded, fault = [], ""
        for tenant in tenants:
            try:
                loaded.append(tenant.recommender.release.id)
            except NextEdgeError as error:
                fault = str(error)
        if not loaded:
            # this route needs no key: with several tenants it names none of them
            return problem(503, "Not ready", "no tenant can answer" if tenants.several else fault)
        return JSONResponse(
            {"status": "ready"} if tenants.several else {"status": "ready", "release": loaded[0]}
        )
