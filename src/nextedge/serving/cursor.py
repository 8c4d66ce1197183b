"""Cursors: where the next page of a list begins, said by what the pages before it held.

A cursor names the release and the positions that were shown, so no page repeats what an earlier
one had, whatever happened in between, and the server keeps nothing. When another release is
served by then, its positions are found by way of the ids. Layout before base64: version, CRC-32
of the rest, CRC-32 of the user and surface, length and text of the release's id, and the shown
positions ascending, each as the variable-length difference from the one before.
"""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from zlib import crc32

import numpy as np

from nextedge.errors import InputError
from nextedge.types import MOST_SHOWN, Identifier, IndexArray, Requests

_VERSION = 1
_HEAD = struct.Struct("<BII")


@dataclass(frozen=True)
class Cursor:
    """What the pages so far have shown."""

    release: str
    shown: tuple[int, ...]
    """Positions of candidates in that release."""

    def encode(self, user_id: Identifier, surface: str) -> str:
        """As a client sends it back."""
        name = self.release.encode()
        # ascending: small differences take one or two bytes each
        body = bytes([len(name)]) + name + _differences(sorted(self.shown))
        owner = _owner(user_id, surface)
        head = _HEAD.pack(_VERSION, crc32(body), owner)
        # a query string would have to escape the padding
        return base64.urlsafe_b64encode(head + body).decode().rstrip("=")

    @classmethod
    def decode(cls, text: str, user_id: Identifier, surface: str) -> Cursor:
        """Read a cursor.

        Raises:
            InputError: it is none, or was made for another user or surface.
        """
        try:
            raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
            version, check, owner = _HEAD.unpack_from(raw)
            body = raw[_HEAD.size :]
            if version != _VERSION or check != crc32(body):
                raise ValueError("damaged")
            end = 1 + body[0]
            release, shown = body[1:end].decode(), _sums(body[end:])
        except (ValueError, IndexError, struct.error, binascii.Error):
            raise InputError(
                "cursor: not one of ours; send next_cursor of the page before as it came"
            ) from None
        if owner != _owner(user_id, surface):
            raise InputError("cursor: it was made for another user or surface")
        return cls(release, shown)


def next_cursor(
    release: str, surface: str, user_id: Identifier, requests: Requests, row: int, shown: IndexArray
) -> str | None:
    """The cursor after a page; None after a page that is not full, or the last possible one."""
    before = requests.exclude[1] if requests.exclude is not None else np.zeros(0, np.int32)
    own = before if len(requests) == 1 else np.zeros(0, np.int32)
    together = np.union1d(own, shown)
    # the next request may leave out no more than MOST_SHOWN candidates
    if len(shown) < requests.k or len(together) + requests.k > MOST_SHOWN:
        return None
    return Cursor(release, tuple(together.tolist())).encode(user_id, surface)


def _owner(user_id: Identifier, surface: str) -> int:
    return crc32(f"{surface}\0{user_id}".encode())


def _differences(values: Sequence[int]) -> bytes:
    out, last = bytearray(), 0
    for value in values:
        rest = value - last
        last = value
        while rest >= 0x80:
            out.append(rest & 0x7F | 0x80)
            rest >>= 7
        out.append(rest)
    return bytes(out)


def _sums(raw: bytes) -> tuple[int, ...]:
    found, last, value, shift = [], 0, 0, 0
    for byte in raw:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            last += value
            found.append(last)
            value = shift = 0
    if shift or len(found) > MOST_SHOWN:
        raise ValueError("cut short, or too long")
    return tuple(found)
