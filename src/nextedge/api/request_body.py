"""ASGI middleware that bounds the body of a request and checks its text.

Invalid UTF-8, lone surrogates and NUL would otherwise be read as other ids, or fail when written.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from nextedge.api.keys import CALLER
from nextedge.api.problems import problem

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from nextedge.api.tenants import Caller

_MAX_BYTES = 1 << 20
"""Largest body of a caller without a tenant."""
_ESCAPED = re.compile(rb"\\u(?:[dD][89a-fA-F]|0000)")
"""Only bodies with such an escape can have a surrogate or NUL; the others are not parsed here."""


class RequestBody:
    """Refuses larger bodies with 413, with or without a Content-Length, and invalid text with 400."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        body, replayed = b"", receive
        if scope["method"] not in ("GET", "HEAD", "OPTIONS"):
            limit = _limit(scope)
            whole = await _whole_body(receive, limit)
            if whole is None:
                return
            if len(whole) > limit:
                text = f"the body is larger than {limit:,} bytes (serving.body_bytes)"
                await problem(413, "Body too large", text)(scope, receive, send)
                return
            body = whole
            messages = iter([{"type": "http.request", "body": body, "more_body": False}])

            async def replay() -> Message:
                # after the body, a layer may still wait for the disconnect
                return next(messages, None) or await receive()

            replayed = replay
        fault = url_fault(scope) or _body_fault(body)
        if fault is not None:
            await problem(400, "Bad Request", fault)(scope, receive, send)
            return
        await self.app(scope, replayed, send)


def _limit(scope: Any) -> int:
    caller: Caller | None = scope[CALLER]
    if caller is None or caller.tenant is None:
        return _MAX_BYTES
    return caller.tenant.recommender.config.serving.body_bytes


async def _whole_body(receive: Receive, limit: int) -> bytes | None:
    """The body, or its first part if that exceeds the limit; None after a disconnect."""
    parts, size, more = [], 0, True
    # a body without Content-Length shows its size only as it comes
    while more and size <= limit:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        more = message.get("more_body", False)
    return b"".join(parts)


def url_fault(scope: Any) -> str | None:
    """The fault of the path or query string of a request, or None."""
    if "\ufffd" in scope["path"] or "\0" in scope["path"]:
        return "the path: expected UTF-8 without NUL"
    query = scope["query_string"]
    # plain ASCII without escapes has neither NUL nor invalid UTF-8
    if b"%" in query or not query.isascii():
        try:
            text = unquote_to_bytes(query).decode()
        except UnicodeDecodeError:
            return "the query string: expected UTF-8"
        if "\0" in text:
            return "the query string: expected text without NUL"
    return None


def _body_fault(body: bytes) -> str | None:
    """The fault of the strings of a JSON body, or None.

    >>> _body_fault(b'{"user_id": "a\\\\ud83d"}')
    'the body: a string holds half of a surrogate pair'
    """
    if not _ESCAPED.search(body):
        return None
    try:
        texts = list(_strings(json.loads(body)))
    except (ValueError, RecursionError):
        return None  # the route answers that it is no JSON
    for text in texts:
        if "\0" in text:
            return "the body: a string holds NUL"
        if any("\ud800" <= character <= "\udfff" for character in text):
            return "the body: a string holds half of a surrogate pair"
    return None


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _strings(item)
