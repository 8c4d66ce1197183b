"""The contract of stores: bytes under keys, in batches, in a namespace for each tenant.

The full key is ``ne:{tenant}:key``. The braces are the hash tag of Redis: a cluster hashes only the
text between them, so all keys of a tenant are in one slot, and a batch is one command to one node.
The tag is the tenant, not the user, because a batch of several users must be one round trip, and a
prefix is deleted at one node. The price: a cluster spreads tenants, not the values of one tenant;
several servers do (see ``stores.partitioned``). The closing brace ends the name, so tenant ``a``
never reads keys of tenant ``ab``.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from nextedge.config import TENANT_PATTERN
from nextedge.discovery import discover
from nextedge.errors import ConfigError, InputError, nearest

Key = bytes | str  # text stands for its UTF-8 bytes


class Store(ABC):
    """Values under keys of one namespace; safe for threads.

    A store may drop a value at any time, so it is only for values that can be computed again. Every
    method may raise StoreError: the store is not reached, too slow or full.
    """

    name: ClassVar[str]
    schemes: ClassVar[tuple[str, ...]]  # of its URLs
    shared: ClassVar[bool]  # whether all stores of one URL have the same values

    def __init__(self, namespace: str) -> None:
        if not re.fullmatch(TENANT_PATTERN, namespace):
            raise ConfigError(
                f"namespace {namespace!r}: expected 1 to 64 letters, digits, '_', '.' or '-'"
            )
        self.namespace = namespace
        self._prefix = f"ne:{{{namespace}}}:".encode()

    @classmethod
    @abstractmethod
    def open(cls, url: str, namespace: str, timeout_seconds: float, base: Path) -> Store:
        """The store of a URL; connects at first use."""

    @abstractmethod
    def get_many(self, keys: Sequence[Key]) -> list[bytes | None]:
        """The values in order of the keys, None for a missing one; one round trip."""

    @abstractmethod
    def put_many(self, values: Mapping[Key, bytes], seconds: float | None = None) -> None:
        """Store values, for at most so many seconds; one round trip."""

    @abstractmethod
    def delete_many(self, keys: Sequence[Key]) -> int:
        """Delete values; returns their number."""

    @abstractmethod
    def delete_prefix(self, prefix: Key = b"") -> int:
        """Delete the values of all keys with a prefix; returns their number.

        Not for requests: a store without ordered keys, as Redis, scans all of them.
        """

    @abstractmethod
    def keys(self, prefix: Key = b"") -> Iterator[bytes]:
        """The keys with a prefix, each once, in any order."""

    @abstractmethod
    def close(self) -> None:
        """Close connections; a later call connects again."""

    def _full(self, key: Key) -> bytes:
        """The full key of a key."""
        return self._prefix + (
            key.encode("utf-8", "surrogatepass") if isinstance(key, str) else key
        )

    def _bare(self, full: bytes) -> bytes:
        """The key of a full key."""
        return full[len(self._prefix) :]


def positive(seconds: float | None) -> float | None:
    """The time to live; raises InputError unless it is positive or None."""
    if seconds is not None and not seconds > 0:
        raise InputError(f"seconds = {seconds}: expected more than 0, or None for no end")
    return seconds


def store_classes() -> dict[str, type[Store]]:
    """All store classes by name, with those of plug-ins."""
    return discover(Store, "nextedge.stores", "nextedge.stores")  # type: ignore[type-abstract]


def open_store(
    url: str, namespace: str, *, timeout_seconds: float = 1.0, base: Path = Path()
) -> Store:
    """Open the store of a URL; it connects at first use.

    ===============================================  ============================================
    ``memory://``                                    this process' memory
    ``sqlite:///cache.sqlite``                       a file, relative to ``base``; four slashes
                                                     before an absolute path
    ``redis://host:6379/0``, ``rediss://…``          a Redis server, without and with TLS
    ``redis+cluster://host:6379``                    a Redis cluster, by any node of it
    ===============================================  ============================================

    Args:
        namespace: the tenant; stores of other namespaces never read its values.
        timeout_seconds: longest wait to connect, and for an answer.
        base: folder of relative paths.

    Raises:
        ConfigError: no store has such URLs, or the URL cannot be parsed.
        MissingDependencyError: the store needs a package that is not installed.
    """
    scheme = url.split("://", 1)[0] if "://" in url else ""
    schemes = {scheme: cls for cls in store_classes().values() for scheme in cls.schemes}
    if scheme not in schemes:
        raise ConfigError(
            f"store: no store has URLs of {scheme + '://' if scheme else 'no scheme'!r}; "
            f"{nearest(scheme, schemes)}, each followed by ://"
        )
    return schemes[scheme].open(url, namespace, timeout_seconds, base)
