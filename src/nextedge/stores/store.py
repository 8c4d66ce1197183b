"""What every store keeps: values of bytes under keys, in batches, each tenant for itself.

Keys are written as ``ne:{tenant}:key``. The braces are Redis' hash tag: a cluster places a key by
what stands between them, so all keys of a tenant lie in one slot and a batch of any of them is one
command to one node. The tag is the tenant and not the user, because a batch of several users must
be one round trip too, and because a prefix is then deleted at one node. The price is that one
tenant's values do not spread over a cluster; many tenants do, and one does over several servers
(see ``stores.partitioned``). The brace that closes the tag ends the name, so tenant ``a`` never sees
the keys of tenant ``ab``.
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

Key = bytes | str
"""Text stands for its UTF-8 bytes."""


class Store(ABC):
    """Values under keys of one namespace; safe for threads.

    A value may be gone at any time, by its age or for want of room: a store is no place for what
    cannot be computed again. Every method may raise StoreError: the store is not reached, too
    slow or full.
    """

    name: ClassVar[str]
    schemes: ClassVar[tuple[str, ...]]
    """What its URLs begin with."""
    shared: ClassVar[bool]
    """Whether stores that are opened by the same URL have the same values."""

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
        """A store by its URL; nothing is connected to yet."""

    @abstractmethod
    def get_many(self, keys: Sequence[Key]) -> list[bytes | None]:
        """The values in the order of their keys, None where there is none; one round trip."""

    @abstractmethod
    def put_many(self, values: Mapping[Key, bytes], seconds: float | None = None) -> None:
        """Keep values, for so many seconds at most; one round trip."""

    @abstractmethod
    def delete_many(self, keys: Sequence[Key]) -> int:
        """Delete values; returns how many there were."""

    @abstractmethod
    def delete_prefix(self, prefix: Key = b"") -> int:
        """Delete all values whose keys begin so; returns how many there were.

        It looks through all keys where they are not in order, as in Redis: not for requests.
        """

    @abstractmethod
    def keys(self, prefix: Key = b"") -> Iterator[bytes]:
        """The keys that begin so, each once, in any order."""

    @abstractmethod
    def close(self) -> None:
        """Let go of connections; a later call connects anew."""

    def _full(self, key: Key) -> bytes:
        """A key as it is written."""
        return self._prefix + (
            key.encode("utf-8", "surrogatepass") if isinstance(key, str) else key
        )

    def _bare(self, full: bytes) -> bytes:
        """A written key as it was given."""
        return full[len(self._prefix) :]


def positive(seconds: float | None) -> float | None:
    """Seconds that a value may live; raises InputError unless more than 0, or None."""
    if seconds is not None and not seconds > 0:
        raise InputError(f"seconds = {seconds}: expected more than 0, or None for no end")
    return seconds


def store_classes() -> dict[str, type[Store]]:
    """Every store by name: those of this package and those of plug-ins."""
    return discover(Store, "nextedge.stores", "nextedge.stores")  # type: ignore[type-abstract]


def open_store(
    url: str, namespace: str, *, timeout_seconds: float = 1.0, base: Path = Path()
) -> Store:
    """The store that a URL names; it connects at its first use.

    ===============================================  ============================================
    ``memory://``                                    this process' memory
    ``sqlite:///cache.sqlite``                       a file, relative to ``base``; four slashes
                                                     before an absolute path
    ``redis://host:6379/0``, ``rediss://…``          a Redis server, without and with TLS
    ``redis+cluster://host:6379``                    a Redis cluster, by any node of it
    ===============================================  ============================================

    Args:
        namespace: the tenant; stores of other namespaces never see its values.
        timeout_seconds: longest wait for a connection, and for an answer.
        base: the folder that paths are relative to.

    Raises:
        ConfigError: no store has such URLs, or the URL cannot be read.
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
