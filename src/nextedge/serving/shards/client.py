"""The client of a front process: the replicas of every part, and an index over them."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from itertools import count
from typing import Any

import numpy as np

from nextedge.config import Config
from nextedge.data.partition import Part
from nextedge.errors import ShardError
from nextedge.index.sharded import SearchResult, merged
from nextedge.serving.shards.loaded_shards import shards_of
from nextedge.serving.shards.protocol import LOADING, Arrays, encode, parse_shards, shared_key
from nextedge.serving.shards.replica import Replica
from nextedge.serving.shards.scatter_gather import (
    Listener,
    ReplicaLatency,
    ScatterGather,
    ShardRequest,
    round_robin,
)
from nextedge.types import BoolArray, FloatArray, Waiting

_log = logging.getLogger("nextedge")
_BATCH_SECONDS = 30.0
"""Deadline of batches, such as ``publish`` and ``recommend --all``."""
_OPEN_SECONDS = 900.0
"""Deadline of a release's loading: processes may download it first."""
_RESPONSE_SECONDS = 10.0
LEFT_OUT = "no_index_shard_"


class ShardClient:
    """The processes that serve a tenant's index shards; safe for threads.

    Attributes:
        tell: called with the outcome of every request.
    """

    def __init__(self, config: Config) -> None:
        addresses = parse_shards(config.serving.shards)
        self.parts = [Part(position, len(addresses)) for position in range(len(addresses))]
        self.tell: Listener = lambda *_: None
        self._credentials = {"tenant": config.tenant, "key": shared_key()}
        self.replicas = [
            [
                Replica(address, self.message(part, {"op": "ping"}), _log.warning)
                for address in replicas
            ]
            for part, replicas in zip(self.parts, addresses, strict=True)
        ]
        self._all = [
            (part, replica) for part in self.parts for replica in self.replicas[part.index]
        ]
        self._latencies = [ReplicaLatency() for _ in self.parts]
        self._turn = count()
        self._starting = threading.Lock()
        self._started = False

    def message(self, part: Part, about: Mapping[str, Any], arrays: Arrays | None = None) -> bytes:
        """An encoded request to a part."""
        return encode({**self._credentials, "part": str(part), **about}, arrays)

    def request(self, messages: Mapping[int, bytes], until: float) -> dict[int, Arrays]:
        """The responses of those parts that answer in time.

        Args:
            messages: by the position of the part.
            until: seconds of ``time.perf_counter``.
        """
        self._start(until)
        turn = next(self._turn)
        requests = [
            ShardRequest(
                part, message, round_robin(self.replicas[part], turn), self._latencies[part]
            )
            for part, message in messages.items()
        ]
        ScatterGather(requests, until, self.tell).run()
        for request in requests:
            if request.response is None:
                self.tell(request.part, "left_out", 0.0)
        return {r.part: r.response[1] for r in requests if r.response is not None}

    def open_release(self, release_id: str, seconds: float = _OPEN_SECONDS) -> list[str]:
        """Let every process load a release before the front serves it; returns the faults.

        Waits for processes that say that they are loading it, and not long for others.
        """
        until = time.perf_counter() + seconds
        self._start(until)
        waiting, faults = self._all, []
        while waiting:
            open_message = {"op": "open", "release": release_id}
            requests = [
                ShardRequest(
                    part.index, self.message(part, open_message), [replica] if replica.up else []
                )
                for part, replica in waiting
            ]
            ScatterGather(requests, time.perf_counter() + _RESPONSE_SECONDS, self.tell).run()
            over, loading = time.perf_counter() > until, []
            for process, request in zip(waiting, requests, strict=True):
                if request.error == LOADING and not over:
                    loading.append(process)
                elif request.response is None:
                    faults.append(f"{process[1].address}: {request.detail or 'does not answer'}")
            waiting = loading
        return faults

    def addresses(self, position: int) -> str:
        """The addresses of a part, for errors."""
        return ", ".join(str(replica.address) for replica in self.replicas[position])

    def close(self) -> None:
        """End the pings and the connections."""
        with self._starting:
            if self._started:
                for _, replica in self._all:
                    replica.close()

    def _start(self, until: float) -> None:
        # not in __init__: server workers are forked before their first request
        with self._starting:
            if not self._started:
                self._started = True
                for _, replica in self._all:
                    replica.start()
        for _, replica in self._all:
            if not replica.pinged.is_set():
                replica.pinged.wait(max(0.0, until - time.perf_counter()))


class RemoteIndex:
    """An index whose shards other processes serve; a ``Searcher``.

    Args:
        bounds: first position of each shard, and the end of the last.
    """

    def __init__(
        self, client: ShardClient, release_id: str, surface: str, source: str, bounds: list[int]
    ) -> None:
        self._client = client
        self._names = {"release": release_id, "surface": surface, "source": source}
        self._ranges = [shards_of(bounds, part) for part in client.parts]

    def search(
        self,
        queries: FloatArray,
        k: int,
        allowed: BoolArray | None = None,
        waiting: Waiting | None = None,
    ) -> SearchResult:
        """As ``VectorIndex.search``, over the parts that answer in time.

        The others are named in ``waiting``, and not asked again for the same request.

        Raises:
            ShardError: a part does not answer, and ``waiting`` is None.
        """
        now = time.perf_counter()
        until = now + _BATCH_SECONDS if waiting is None else waiting.until
        left_out = set() if waiting is None else waiting.left_out
        about = {"op": "search", "k": k, "within_ms": (until - now) * 1e3, **self._names}
        queries = np.ascontiguousarray(queries, np.float32)
        messages = {}
        for part, span in zip(self._client.parts, self._ranges, strict=True):
            if not span.size or not len(queries) or name_of(part) in left_out:
                continue
            arrays: dict[str, np.ndarray[Any, Any]] = {"queries": queries}
            if allowed is not None:
                part_allowed = allowed[span.start : span.stop]
                # no result can come from this part: nobody waits for it
                if not part_allowed.any():
                    continue
                # bits instead of bytes: a filter of a billion candidates fits a message
                arrays["allowed"] = np.packbits(part_allowed, bitorder="little")
            about["candidates"] = span.size
            messages[part.index] = self._client.message(part, about, arrays)
        responses = self._client.request(messages, until) if messages else {}
        results = [_result(arrays, len(queries)) for arrays in responses.values()]
        valid = {part for part, result in zip(responses, results, strict=True) if result}
        missing = [self._client.parts[position] for position in messages if position not in valid]
        if missing and waiting is None:
            raise ShardError(
                f"part {missing[0]} of the indexes does not answer at "
                f"{self._client.addresses(missing[0].index)}: start it with 'nextedge serve-shard "
                f"{missing[0]}'"
            )
        left_out |= {name_of(part) for part in missing}
        return merged([result for result in results if result], len(queries), k)


def name_of(part: Part) -> str:
    """The name of a part in the ``degraded`` of a response."""
    return f"{LEFT_OUT}{part.index}"


def _result(arrays: Arrays, queries: int) -> SearchResult | None:
    """Positions and scores of a response; None where it has another form."""
    position, score = arrays.get("position"), arrays.get("score")
    if position is None or score is None or position.shape != score.shape:
        return None
    # a wrong response counts as none: one process must not fail the request
    fits = position.ndim == 2 and len(position) == queries
    if not fits or position.dtype != np.int32 or score.dtype != np.float32:
        return None
    return position, score


def shard_client(config: Config) -> ShardClient | None:
    """The client of the processes in ``serving.shards``; None without any.

    Raises:
        ConfigError: a text is no address, or an address occurs twice.
    """
    return ShardClient(config) if config.serving.shards else None
