"""Compress responses by Brotli or gzip, as the request's Accept-Encoding asks."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from starlette.datastructures import MutableHeaders

from nextedge.api.keys import header

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

MINIMUM_BYTES = 1000
_LEVEL = 1  # a response is sent once: a higher level costs more time than it saves

Compressor = Callable[[bytes], bytes]


class Compression:
    """ASGI middleware that compresses whole bodies of at least ``MINIMUM_BYTES``."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.compressors: dict[str, Compressor] = {}
        try:
            import brotli

            # first, as ``max`` takes the first of equal weights and Brotli is smaller
            self.compressors["br"] = partial(brotli.compress, quality=_LEVEL)
        except ImportError:
            pass
        self.compressors["gzip"] = partial(gzip.compress, compresslevel=_LEVEL, mtime=0)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        encoding = self._encoding(scope) if scope["type"] == "http" else None
        if encoding is None:
            await self.app(scope, receive, send)
            return
        start: Message | None = None

        async def send_compressed(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                start = message  # its headers depend on the body, which comes next
                return
            if start is not None:
                begin, start = start, None
                headers = MutableHeaders(raw=begin["headers"])
                # a stream stays as it is: its parts are sent as they come
                whole = not message.get("more_body", False)
                body = message.get("body", b"")
                if whole and len(body) >= MINIMUM_BYTES and "content-encoding" not in headers:
                    body = self.compressors[encoding](body)
                    message = {**message, "body": body}
                    headers["content-encoding"] = encoding
                    headers["content-length"] = str(len(body))
                    # else a proxy gives compressed bytes to clients that cannot read them
                    headers.add_vary_header("accept-encoding")
                await send(begin)
            await send(message)

        await self.app(scope, receive, send_compressed)

    def _encoding(self, scope: Any) -> str | None:
        """The encoding that the request prefers, the smaller one at equal weight."""
        weights = _weights(header(scope, b"accept-encoding").decode("latin-1"))
        best = max(self.compressors, key=lambda encoding: weights.get(encoding, 0.0))
        return best if weights.get(best, 0.0) > 0 else None


def _weights(accepted: str) -> dict[str, float]:
    """The weight of each encoding of an Accept-Encoding header.

    >>> _weights("gzip, br;q=0.5, *;q=0")
    {'gzip': 1.0, 'br': 0.5, '*': 0.0}
    """
    weights = {}
    for part in accepted.lower().split(","):
        encoding, _, parameter = part.partition(";")
        weight = parameter.strip().removeprefix("q=")
        try:
            weights[encoding.strip()] = float(weight) if weight else 1.0
        except ValueError:
            continue
    return weights
