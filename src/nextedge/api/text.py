"""ASGI middleware: what is asked is text that can be stored and sent again.

Bytes that are no UTF-8, lone surrogates and NUL would otherwise be read as other ids than were
meant, or fail only where they are written.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from nextedge.api.problems import problem

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_ESCAPED = re.compile(rb"\\u(?:[dD][89a-fA-F]|0000)")
"""Only bodies with such an escape can hold a surrogate or NUL: others are not looked at."""


class ValidText:
    """Refuses other text with 400. Bodies come whole, as ``BodyLimit`` leaves them."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        fault, given = fault_of_url(scope), receive
        if fault is None and scope["method"] not in ("GET", "HEAD", "OPTIONS"):
            whole = await receive()
            fault = fault_of_body(whole.get("body", b""))
            messages = iter([whole])

            async def replay() -> Message:
                return next(messages, None) or await receive()

            given = replay
        if fault is not None:
            await problem(400, "Bad Request", fault)(scope, receive, send)
            return
        await self.app(scope, given, send)


def fault_of_url(scope: Any) -> str | None:
    """What is wrong with the path or the query string of a request."""
    if "\ufffd" in scope["path"] or "\0" in scope["path"]:
        return "the path: expected UTF-8 without NUL"
    query = scope["query_string"]
    if b"%" in query or not query.isascii():
        try:
            text = unquote_to_bytes(query).decode()
        except UnicodeDecodeError:
            return "the query string: expected UTF-8"
        if "\0" in text:
            return "the query string: expected text without NUL"
    return None


def fault_of_body(body: bytes) -> str | None:
    """What is wrong with the strings of a body of JSON; None also where it is no JSON.

    >>> fault_of_body(b'{"user_id": "a\\\\ud83d"}')
    'the body: a string holds half of a surrogate pair'
    """
    if not _ESCAPED.search(body):
        return None
    try:
        texts = list(_strings(json.loads(body)))
    except (ValueError, RecursionError):
        return None  # the route says so
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
        for each in value:
            yield from _strings(each)
    elif isinstance(value, dict):
        for key, each in value.items():
            yield key
            yield from _strings(each)
