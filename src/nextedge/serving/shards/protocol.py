"""Messages between a front process and a process that serves index shards.

A message is its length in 8 bytes (little endian) and then a packed value (``stores.packing``):
arrays, and metadata in JSON. A connection carries one request at a time.

=======  ================================================  ==================================
``op``   further metadata, arrays                          response
=======  ================================================  ==================================
ping                                                       nothing
open     ``release``                                       nothing, if it is loaded
search   ``release``, ``surface``, ``source``, ``k``,      ``position`` int32[Q, K] of all
         ``within_ms``; ``queries`` float32[Q, d] and      candidates, -1 for none, and
         perhaps ``allowed``, bits of the part's range     ``score`` float32[Q, K]
=======  ================================================  ==================================

Every message names ``tenant``, ``part`` (as 3/8) and ``key``, so that addresses in a wrong order and
foreign callers are refused. A refusal has ``error``, one of ``REFUSALS``, and ``detail``.
"""

from __future__ import annotations

import os
import re
import socket
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nextedge.errors import ConfigError, CorruptValueError
from nextedge.stores.packing import pack, unpack

LENGTH = struct.Struct("<Q")
MAX_BYTES = 1 << 28
"""Longest message: the filter bits of a billion candidates, or a batch of queries, and more."""
MAX_RESULTS = 1 << 16
"""Largest k of a query."""
KEY_VARIABLE = "NEXTEDGE_SHARD_KEY"
LOADING = "loading"
REFUSALS = ("unknown_release", LOADING, "not_here", "wrong", "late", "failed")
Arrays = Mapping[str, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class Address:
    """The address of a process: ``host:port``, ``[ipv6]:port`` or ``unix:/path``."""

    text: str
    host: str = ""
    port: int = 0
    path: str = ""

    @classmethod
    def parse(cls, text: str) -> Address:
        """An address as ``serving.shards`` has it.

        Raises:
            ConfigError: the text is no address.

        >>> Address.parse("shard-0:8100").port
        8100
        """
        plain = text.strip()
        if plain.startswith("unix:/"):
            return cls(plain, path=plain.removeprefix("unix:"))
        match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.%]+)\]|([^\s:/\[\]]+)):(\d{1,5})", plain)
        if match is None or not 0 < int(match[3]) < 65536:
            raise ConfigError(
                f"serving.shards: {text!r}: expected host:port or unix:/path, with commas between "
                "replicas"
            )
        return cls(plain, match[1] or match[2], int(match[3]))

    def resolve(self) -> tuple[socket.AddressFamily, Any]:
        """Family and address for a socket; may wait for a name server, and raise OSError."""
        if self.path:
            return socket.AF_UNIX, self.path
        family, *_, address = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)[0]
        return family, address

    def __str__(self) -> str:
        return self.text


def parse_shards(settings: Sequence[str]) -> list[list[Address]]:
    """The replicas of each part of ``serving.shards``.

    Raises:
        ConfigError: a text is no address, or an address occurs twice.
    """
    parts = [[Address.parse(text) for text in replicas.split(",")] for replicas in settings]
    seen: set[str] = set()
    for text in (address.text for replicas in parts for address in replicas):
        if text in seen:
            raise ConfigError(f"serving.shards: {text} is there twice; each process holds one part")
        seen.add(text)
    return parts


def shared_key() -> str:
    """The secret of front and shard processes; empty without one."""
    return os.environ.get(KEY_VARIABLE, "")


def encode(metadata: Mapping[str, Any], arrays: Arrays | None = None) -> bytes:
    """A message with its length."""
    body = pack(arrays or {}, metadata)
    return LENGTH.pack(len(body)) + body


def decode(body: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray[Any, Any]]]:
    """Metadata and arrays of a message without its length.

    Raises:
        CorruptValueError: the bytes are no message.
    """
    arrays, metadata = unpack(body)
    return metadata, arrays


def length_of(head: bytes) -> int:
    """Bytes that follow the first eight of a message.

    Raises:
        CorruptValueError: more than a message may have.
    """
    (size,) = LENGTH.unpack(head)
    if not 0 < size <= MAX_BYTES:
        raise CorruptValueError(f"a message of {size:,} bytes, expected 1 to {MAX_BYTES:,}")
    return int(size)


def receive(connection: socket.socket) -> bytes | None:
    """The next message of a blocking connection without its length; None at its end.

    Raises:
        OSError: the connection is lost, also in the middle of a message.
        CorruptValueError: too long for a message.
    """
    head = _read(connection, LENGTH.size)
    if not head:
        return None
    size = length_of(head) if len(head) == LENGTH.size else 0
    body = _read(connection, size)
    if not size or len(body) < size:
        raise ConnectionError("the connection ended in the middle of a message")
    return body


def _read(connection: socket.socket, size: int) -> bytes:
    """So many bytes, or fewer where the connection ends."""
    # a file of the socket would be shorter, and costs 5 µs a message
    whole = memoryview(bytearray(size))
    left = whole
    while left and (count := connection.recv_into(left)):
        left = left[count:]
    return bytes(whole[: size - len(left)])
