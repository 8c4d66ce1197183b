"""One store over several stores; the hash of a key selects its store.

A Redis cluster does not spread the keys of a tenant, as they are in one slot (see ``stores.store``);
several servers do. If a server is not reached, only its keys are unreadable.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from nextedge.data.partition import partition_of
from nextedge.errors import ConfigError
from nextedge.stores.store import Key, Store, open_store, positive


class PartitionedStore(Store):
    """Values in several stores of one namespace, each key in the store of its partition.

    After a change of their order or number, most earlier values are not found.
    """

    shared = True

    def __init__(self, stores: Sequence[Store]) -> None:
        super().__init__(stores[0].namespace)
        self._stores = list(stores)

    @classmethod
    def open(cls, url: str, namespace: str, timeout_seconds: float, base: Path) -> PartitionedStore:
        return cls([open_store(url, namespace, timeout_seconds=timeout_seconds, base=base)])

    def get_many(self, keys: Sequence[Key]) -> list[bytes | None]:
        """See ``Store.get_many``; one round trip for each store with a key."""
        values: list[bytes | None] = [None] * len(keys)
        for store, positions in self._by_store(keys):
            part = store.get_many([keys[position] for position in positions])
            for position, value in zip(positions, part, strict=True):
                values[position] = value
        return values

    def put_many(self, values: Mapping[Key, bytes], seconds: float | None = None) -> None:
        """See ``Store.put_many``; if one store fails, values of others may be stored."""
        keys = list(values)
        positive(seconds)
        for store, positions in self._by_store(keys):
            store.put_many(
                {keys[position]: values[keys[position]] for position in positions}, seconds
            )

    def delete_many(self, keys: Sequence[Key]) -> int:
        return sum(
            store.delete_many([keys[position] for position in positions])
            for store, positions in self._by_store(keys)
        )

    def delete_prefix(self, prefix: Key = b"") -> int:
        return sum(store.delete_prefix(prefix) for store in self._stores)

    def keys(self, prefix: Key = b"") -> Iterator[bytes]:
        for store in self._stores:
            yield from store.keys(prefix)

    def close(self) -> None:
        for store in self._stores:
            store.close()

    def _by_store(self, keys: Sequence[Key]) -> Iterator[tuple[Store, list[int]]]:
        """Each store with a key, and the positions of its keys."""
        parts: dict[int, list[int]] = {}
        for position, key in enumerate(keys):
            parts.setdefault(partition_of(key, len(self._stores)), []).append(position)
        for number, positions in sorted(parts.items()):
            yield self._stores[number], positions


def open_stores(
    urls: str | Sequence[str], namespace: str, *, timeout_seconds: float = 1.0, base: Path = Path()
) -> Store:
    """The store of a URL, or one store over several URLs (see ``open_store``).

    Raises:
        ConfigError: no store has such a URL, or a URL is there twice.
    """
    listed = [urls] if isinstance(urls, str) else list(urls)
    if len(set(listed)) < len(listed) or not listed:
        raise ConfigError("store: expected one URL, or several that differ")
    stores = [
        open_store(url, namespace, timeout_seconds=timeout_seconds, base=base) for url in listed
    ]
    return stores[0] if len(stores) == 1 else PartitionedStore(stores)
