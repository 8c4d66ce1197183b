"""One store over several: every key lies in one of them, by its hash.

A tenant's keys lie in one slot of a Redis cluster (see ``stores.store``), so a cluster does not
spread them; several servers beside each other do. One that is not reached takes its own keys with
it and no others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from nextedge.data.partition import partition_of
from nextedge.errors import ConfigError
from nextedge.stores.store import Key, Store, open_store, positive


class PartitionedStore(Store):
    """Values in several stores of one namespace, each key in the store of its partition.

    The order of the stores is part of what they hold: another order or number finds little of what
    was kept before.
    """

    shared = True

    def __init__(self, stores: Sequence[Store]) -> None:
        super().__init__(stores[0].namespace)
        self._stores = list(stores)

    @classmethod
    def open(cls, url: str, namespace: str, timeout_seconds: float, base: Path) -> PartitionedStore:
        """Over one store alone; see ``open_stores`` for several."""
        return cls([open_store(url, namespace, timeout_seconds=timeout_seconds, base=base)])

    def get_many(self, keys: Sequence[Key]) -> list[bytes | None]:
        """The values in the order of their keys; one round trip to each store that has some."""
        found: list[bytes | None] = [None] * len(keys)
        for store, places in self._by_store(keys):
            values = store.get_many([keys[place] for place in places])
            for place, value in zip(places, values, strict=True):
                found[place] = value
        return found

    def put_many(self, values: Mapping[Key, bytes], seconds: float | None = None) -> None:
        """Keep values; where a store fails, those of others may be kept."""
        keys = list(values)
        positive(seconds)
        for store, places in self._by_store(keys):
            store.put_many({keys[place]: values[keys[place]] for place in places}, seconds)

    def delete_many(self, keys: Sequence[Key]) -> int:
        """Delete values; returns how many there were."""
        return sum(
            store.delete_many([keys[place] for place in places])
            for store, places in self._by_store(keys)
        )

    def delete_prefix(self, prefix: Key = b"") -> int:
        """Delete all values whose keys begin so, in every store."""
        return sum(store.delete_prefix(prefix) for store in self._stores)

    def keys(self, prefix: Key = b"") -> Iterator[bytes]:
        """The keys that begin so, of every store."""
        for store in self._stores:
            yield from store.keys(prefix)

    def close(self) -> None:
        """Let go of all connections."""
        for store in self._stores:
            store.close()

    def _by_store(self, keys: Sequence[Key]) -> Iterator[tuple[Store, list[int]]]:
        """Each store that has some of the keys, and the places of these."""
        places: dict[int, list[int]] = {}
        for place, key in enumerate(keys):
            places.setdefault(partition_of(key, len(self._stores)), []).append(place)
        for number, listed in sorted(places.items()):
            yield self._stores[number], listed


def open_stores(
    urls: str | Sequence[str], namespace: str, *, timeout_seconds: float = 1.0, base: Path = Path()
) -> Store:
    """The store of a URL, or one over those of several (see ``open_store``).

    Raises:
        ConfigError: a URL is of no store, or is there twice.
    """
    listed = [urls] if isinstance(urls, str) else list(urls)
    if len(set(listed)) < len(listed) or not listed:
        raise ConfigError("store: expected one URL, or several that differ")
    stores = [
        open_store(url, namespace, timeout_seconds=timeout_seconds, base=base) for url in listed
    ]
    return stores[0] if len(stores) == 1 else PartitionedStore(stores)
