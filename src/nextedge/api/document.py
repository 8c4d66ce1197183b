"""The OpenAPI document: FastAPI's, with the problem documents and the event schema."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi.openapi.utils import get_openapi

from nextedge.api.models import Problem
from nextedge.events.event import Event

if TYPE_CHECKING:
    from fastapi import FastAPI

_PROBLEMS = {
    400: "The request is no valid text",
    401: "The key is missing or wrong",
    403: "The key has not the scope that this needs, or is of another tenant",
    404: "There is no such surface, user, item, release or build",
    409: "The releases do not allow it",
    413: "The body is too large",
    422: "A value is missing or out of its range; the detail names it",
    429: "The tenant's requests of now are used up; Retry-After says for how many seconds",
    503: "There is no release, or the disk refuses to be written",
}
_WITH_BODY = ("post", "put", "patch")
_EXAMPLES = {
    "event": {
        "type": "dismiss",
        "surface": "people",
        "user_id": "u000007",
        "candidate_id": "u000042",
    },
    "more": [
        {"type": "interact", "user_id": "u000007", "item_id": "i000003", "event_id": "order-817"},
        {"type": "impression", "user_id": "u000007", "item_id": "i000009"},
    ],
}


def document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document of the application, made once."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes
        )
        schemas = document["components"]["schemas"]
        # a 422 is a problem document, so nothing refers to FastAPI's own schemas
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        schemas["Problem"] = Problem.model_json_schema()
        schemas["Event"] = _event_schema()
        for path, methods in document["paths"].items():
            for method, operation in methods.items():
                _add_problems(path, method, operation)
        _type_events(document["paths"]["/v1/events"]["post"])
        app.openapi_schema = document
    return app.openapi_schema


def _add_problems(path: str, method: str, operation: dict[str, Any]) -> None:
    responses = operation["responses"]
    for status, description in _PROBLEMS.items():
        if path.startswith("/health") and status != 503:
            continue
        if status == 409 and "releases" not in path:
            continue
        if status == 413 and method not in _WITH_BODY:
            continue
        schema = {"$ref": "#/components/schemas/Problem"}
        responses[str(status)] = {
            "description": description,
            "content": {"application/problem+json": {"schema": schema}},
        }
        if status == 429:
            responses["429"]["headers"] = {"Retry-After": {"schema": {"type": "integer"}}}
    if path.startswith("/health"):
        responses.pop("422", None)


def _type_events(operation: dict[str, Any]) -> None:
    # the route takes any objects, and checks events one by one: a wrong one must not stop the others
    one = {"$ref": "#/components/schemas/Event"}
    content = operation["requestBody"]["content"]["application/json"]
    content["schema"] = {"anyOf": [one, {"type": "array", "items": one}]}
    content["examples"] = {name: {"value": value} for name, value in _EXAMPLES.items()}


def _event_schema() -> dict[str, Any]:
    schema = Event.model_json_schema(mode="validation")
    schema["required"] = ["type"]
    for field in schema["properties"].values():
        field.pop("default", None)  # generated clients require each field with a default
    return schema
