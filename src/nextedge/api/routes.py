"""The templates of all routes: what may name a request without saying what was asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi.routing import iter_route_contexts
from starlette.routing import compile_path

if TYPE_CHECKING:
    from fastapi import FastAPI

OTHER = "other"
"""The template of whatever no route answers."""


class Templates:
    """Finds the template of the route that a request meets."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._compiled: list[tuple[Any, str]] = []

    def __call__(self, scope: Any) -> str:
        """As the router found it, or by the path where a request did not get so far."""
        route = scope.get("route")
        if route is not None:
            return str(route.path)
        for pattern, template in self._patterns():
            if pattern.match(scope["path"]):
                return template
        return OTHER

    def _patterns(self) -> list[tuple[Any, str]]:
        if not self._compiled:  # routes are added after the middleware
            paths = [str(context.path) for context in iter_route_contexts(self._app.routes)]
            self._compiled = [(compile_path(path)[0], path) for path in paths]
        return self._compiled
