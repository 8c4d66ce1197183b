"""Errors as RFC 9457 problem documents, without internal details."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from nextedge import errors

_log = logging.getLogger("nextedge.api")
# the first match decides: subclasses stand before their bases
_STATUS: tuple[tuple[type[errors.NextEdgeError], int], ...] = (
    (errors.UnknownSurfaceError, 404),
    (errors.UnknownUserError, 404),
    (errors.UnknownItemError, 404),
    (errors.UnknownReleaseError, 404),
    (errors.EventError, 422),
    (errors.InputError, 422),
    (errors.NoReleaseError, 503),
    (errors.ReleaseError, 409),
    (errors.StorageError, 503),
    (errors.LiveStateError, 503),
    (errors.BuildLockedError, 409),
)
_RETRY_SECONDS = 5
# the error itself names files and hosts: the server's log has it
_LATER = "nothing was stored: try again later"


class ProblemResponse(JSONResponse):
    """A problem document."""

    media_type = "application/problem+json"

    def render(self, content: Any) -> bytes:
        return json.dumps(content).encode()  # in ASCII: a quoted value may be invalid Unicode


def problem(
    status: int, title: str, detail: str, headers: Mapping[str, str] | None = None
) -> ProblemResponse:
    """A problem document."""
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    return ProblemResponse(body, status, headers)


def problem_of(error: HTTPException) -> ProblemResponse:
    """The problem document of an HTTP error, with its headers (``Allow``, …)."""
    return problem(error.status_code, _title(error.status_code), str(error.detail), error.headers)


def _title(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def add_problem_handlers(app: FastAPI) -> None:
    """Turn every error into a problem document."""

    @app.exception_handler(errors.NextEdgeError)
    async def known(request: Request, error: errors.NextEdgeError) -> JSONResponse:
        status = next((code for kind, code in _STATUS if isinstance(error, kind)), 500)
        if status == 500:
            _log.error("%s %s: %s", request.method, request.url.path, error)
            return problem(500, "Internal error", "the request could not be answered")
        title = type(error).__name__.removesuffix("Error")
        if isinstance(error, errors.StorageError | errors.LiveStateError):
            _log.error("%s %s: %s", request.method, request.url.path, error)
            seconds = getattr(error, "retry_after_seconds", _RETRY_SECONDS)
            detail = str(error) if isinstance(error, errors.LogFullError) else _LATER
            return problem(status, title, detail, {"Retry-After": str(seconds)})
        return problem(status, title, str(error))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return problem(422, "Invalid request", f"{where}: {first['msg']}")

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        return problem_of(error)

    @app.exception_handler(Exception)
    async def unknown(request: Request, error: Exception) -> JSONResponse:
        _log.exception("%s %s", request.method, request.url.path)
        return problem(500, "Internal error", "the request could not be answered")
