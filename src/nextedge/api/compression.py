"""ASGI middleware that compresses answers for those who ask, by gzip or Brotli.

Whoever does not ask costs one look through the headers. Bodies are of bounded size and sent whole,
so they are compressed whole; low levels, since each answer goes out once.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

SMALLEST_BYTES = 1000
"""Below it, what is saved is less than what headers cost."""
_GZIP_LEVEL = 1
_BROTLI_QUALITY = 1
Compress = Callable[[bytes], bytes]


def encodings() -> dict[str, Compress]:
    """What can be asked for, the smallest result first; Brotli where its package is there."""
    found: dict[str, Compress] = {"gzip": lambda body: gzip.compress(body, _GZIP_LEVEL, mtime=0)}
    try:
        import brotli
    except ImportError:
        return found
    return {"br": lambda body: bytes(brotli.compress(body, quality=_BROTLI_QUALITY)), **found}


class Compression:
    """Compresses what is sent whole, is large enough, and not encoded yet."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.encodings = encodings()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        chosen = self._chosen(scope) if scope["type"] == "http" else None
        if chosen is None:
            await self.app(scope, receive, send)
            return
        name, compress = chosen
        start: Message | None = None

        async def compressed(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                start = message
                return
            if start is not None:
                begun, start = start, None
                if _worth_it(begun, message):
                    body = compress(message["body"])
                    begun["headers"] = _headers(begun["headers"], name, len(body))
                    message = {**message, "body": body}
                await send(begun)
            await send(message)

        await self.app(scope, receive, compressed)

    def _chosen(self, scope: Any) -> tuple[str, Compress] | None:
        for name, value in scope["headers"]:
            if name == b"accept-encoding":
                weights = _weights(value.decode("latin-1"))
                best = max(self.encodings, key=lambda each: weights.get(each, 0.0))
                return (best, self.encodings[best]) if weights.get(best, 0.0) > 0 else None
        return None


def _weights(accepted: str) -> dict[str, float]:
    """How much each encoding is wanted.

    >>> _weights("gzip, br;q=0.5, *;q=0")
    {'gzip': 1.0, 'br': 0.5, '*': 0.0}
    """
    found = {}
    for part in accepted.lower().split(","):
        name, _, parameter = part.partition(";")
        weight = parameter.strip().removeprefix("q=")
        try:
            found[name.strip()] = float(weight) if weight else 1.0
        except ValueError:
            continue
    return found


def _worth_it(start: Message, message: Message) -> bool:
    return (
        not message.get("more_body", False)
        and len(message.get("body", b"")) >= SMALLEST_BYTES
        and all(name != b"content-encoding" for name, _ in start.get("headers", ()))
    )


def _headers(headers: Any, encoding: str, size: int) -> list[tuple[bytes, bytes]]:
    kept = [each for each in headers if each[0] != b"content-length"]
    return [
        *kept,
        (b"content-encoding", encoding.encode()),
        (b"vary", b"accept-encoding"),
        (b"content-length", str(size).encode()),
    ]
