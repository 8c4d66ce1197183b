"""What is said between a front process and one that holds shards of indexes.

A message is 8 bytes of its length (little endian) and then a packed value (``stores.packing``):
arrays, and metadata in JSON. One is answered before the next is sent over the same connection.

=======  ================================================  ==================================
``op``   further metadata, arrays                          answer
=======  ================================================  ==================================
ping                                                       nothing
open     ``release``                                       nothing, if it is loaded
search   ``release``, ``surface``, ``source``, ``k``,      ``position`` int32[Q, K] of all
         ``within_ms``; ``queries`` float32[Q, d] and      candidates, -1 for none, and
         perhaps ``allowed``, bits of the asked range      ``score`` float32[Q, K]
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
MOST_BYTES = 1 << 28
"""Longest message: bits of a filter of a billion candidates, or a batch of queries, and then some."""
MOST_RESULTS = 1 << 16
"""Results of a query at most."""
KEY_VARIABLE = "NEXTEDGE_SHARD_KEY"
LOADING = "loading"
REFUSALS = ("unknown_release", LOADING, "not_here", "wrong", "late", "failed")
Arrays = Mapping[str, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class Address:
    """Where a process listens: ``host:port``, ``[ipv6]:port`` or ``unix:/path``."""

    text: str
    host: str = ""
    port: int = 0
    path: str = ""

    @classmethod
    def parse(cls, text: str) -> Address:
        """An address as it is written in ``serving.shards``.

        Raises:
            ConfigError: it is none.

        >>> Address.parse("shard-0:8100").port
        8100
        """
        given = text.strip()
        if given.startswith("unix:/"):
            return cls(given, path=given.removeprefix("unix:"))
        found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.%]+)\]|([^\s:/\[\]]+)):(\d{1,5})", given)
        if found is None or not 0 < int(found[3]) < 65536:
            raise ConfigError(
                f"serving.shards: {text!r}: expected host:port or unix:/path, those of replicas "
                "with commas between them"
            )
        return cls(given, found[1] or found[2], int(found[3]))

    def resolve(self) -> tuple[socket.AddressFamily, Any]:
        """Family and address for a socket; may wait for a name server, and raise OSError."""
        if self.path:
            return socket.AF_UNIX, self.path
        family, _, _, _, place = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)[
            0
        ]
        return family, place

    def __str__(self) -> str:
        return self.text


def parse_shards(given: Sequence[str]) -> list[list[Address]]:
    """The replicas of each part of ``serving.shards``.

    Raises:
        ConfigError: an address cannot be read, or is there twice.
    """
    found = [[Address.parse(each) for each in replicas.split(",")] for replicas in given]
    seen: set[str] = set()
    for each in (address.text for replicas in found for address in replicas):
        if each in seen:
            raise ConfigError(f"serving.shards: {each} is there twice; each process holds one part")
        seen.add(each)
    return found


def shared_key() -> str:
    """The secret that fronts and shards share, empty where there is none."""
    return os.environ.get(KEY_VARIABLE, "")


def encode(about: Mapping[str, Any], arrays: Arrays | None = None) -> bytes:
    """A message as it is sent."""
    body = pack(arrays or {}, about)
    return LENGTH.pack(len(body)) + body


def decode(body: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray[Any, Any]]]:
    """Metadata and arrays of a message without its length.

    Raises:
        CorruptValueError: it is none.
    """
    arrays, about = unpack(body)
    return about, arrays


def length_of(head: bytes) -> int:
    """Bytes that follow the first eight of a message.

    Raises:
        CorruptValueError: more than a message may have.
    """
    (size,) = LENGTH.unpack(head)
    if not 0 < size <= MOST_BYTES:
        raise CorruptValueError(f"a message of {size:,} bytes, expected 1 to {MOST_BYTES:,}")
    return int(size)


def receive(connection: socket.socket) -> bytes | None:
    """The next message of a blocking connection without its length; None where it has ended.

    Raises:
        OSError: the connection is lost, also in the middle of a message.
        CorruptValueError: too long for a message.
    """
    head = _exactly(connection, LENGTH.size)
    return None if head is None else _exactly(connection, length_of(head), began=True)


def _exactly(connection: socket.socket, size: int, *, began: bool = False) -> bytes | None:
    parts = bytearray(size)
    view, have = memoryview(parts), 0
    while have < size:
        got = connection.recv_into(view[have:])
        if not got:
            if have or began:
                raise ConnectionError("the connection ended in the middle of a message")
            return None
        have += got
    return bytes(parts)
