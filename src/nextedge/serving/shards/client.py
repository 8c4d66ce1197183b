"""The front's side: every part's processes, and an index whose shards they hold."""

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
from nextedge.index.sharded import Neighbors, merged
from nextedge.serving.shards.indexes import held
from nextedge.serving.shards.protocol import LOADING, Arrays, encode, parse_shards, shared_key
from nextedge.serving.shards.replica import Replica
from nextedge.serving.shards.scatter import (
    ReplicaLatency,
    Scatter,
    ShardSearch,
    Tell,
    in_turn,
    wait_until_known,
)
from nextedge.types import BoolArray, FloatArray, Waiting

_log = logging.getLogger("nextedge")
_PATIENCE_SECONDS = 30.0
"""How long is waited where no deadline says: batches of ``publish`` and ``recommend --all``."""
_OPENING_SECONDS = 900.0
"""How long is waited for processes that load a release: they may download it first."""
_ANSWERING_SECONDS = 10.0
LEFT_OUT = "no_index_shard_"


class ShardClient:
    """The processes that hold the parts of a tenant's indexes; safe for threads.

    Nothing is connected to before the first question, so that workers can be forked.

    Attributes:
        tell: told what became of every question.
    """

    def __init__(self, config: Config) -> None:
        addresses = parse_shards(config.serving.shards)
        self.parts = [Part(place, len(addresses)) for place in range(len(addresses))]
        self.tell: Tell = lambda *_: None
        self._who = {"tenant": config.tenant, "key": shared_key()}
        self.replicas = [
            [Replica(each, self.message(part, {"op": "ping"}), _log.warning) for each in given]
            for part, given in zip(self.parts, addresses, strict=True)
        ]
        self._paces = [ReplicaLatency() for _ in self.parts]
        self._turn = count()
        self._starting = threading.Lock()
        self._started = False

    def message(self, part: Part, about: Mapping[str, Any], arrays: Arrays | None = None) -> bytes:
        """A message to a part's processes."""
        return encode({**self._who, "part": str(part), **about}, arrays)

    def ask(self, messages: Mapping[int, bytes], until: float) -> dict[int, Arrays]:
        """What each part answers of those that are asked, as far as they do in time.

        Args:
            messages: by the place of the part.
            until: seconds of ``time.perf_counter``.
        """
        self._start(until)
        turn = next(self._turn)
        questions = [
            ShardSearch(place, message, in_turn(self.replicas[place], turn), self._paces[place])
            for place, message in messages.items()
        ]
        Scatter(questions, until, self.tell).run()
        for each in questions:
            if each.answer is None:
                self.tell(each.part, "left_out", 0.0)
        return {each.part: each.answer[1] for each in questions if each.answer is not None}

    def open_release(self, release_id: str, seconds: float = _OPENING_SECONDS) -> list[str]:
        """Let every process load a release before it is answered from; says which have not.

        Those that say that they are loading it are waited for, others not for long.
        """
        until = time.perf_counter() + seconds
        self._start(until)
        left = [(part, each) for part in self.parts for each in self.replicas[part.place]]
        faults: list[str] = []
        while left:
            questions = [
                ShardSearch(
                    part.place,
                    self.message(part, {"op": "open", "release": release_id}),
                    [replica] if replica.up else [],
                )
                for part, replica in left
            ]
            Scatter(questions, time.perf_counter() + _ANSWERING_SECONDS, self.tell).run()
            asked = list(zip(left, questions, strict=True))
            over = time.perf_counter() > until
            left = [each for each, found in asked if found.error == LOADING and not over]
            faults += [
                f"{replica.address}: {found.refused or 'does not answer'}"
                for (part, replica), found in asked
                if found.answer is None and (part, replica) not in left
            ]
        return faults

    def where(self, place: int) -> str:
        """The addresses of a part, for errors."""
        return ", ".join(str(each.address) for each in self.replicas[place])

    def close(self) -> None:
        """End the pings and the connections."""
        with self._starting:
            if self._started:
                for each in (replica for replicas in self.replicas for replica in replicas):
                    each.close()

    def _start(self, until: float) -> None:
        everyone = [replica for replicas in self.replicas for replica in replicas]
        with self._starting:
            if not self._started:
                self._started = True
                for each in everyone:
                    each.start()
        wait_until_known(everyone, until)


class RemoteIndex:
    """An index whose shards lie in other processes; a ``Searcher``.

    Args:
        bounds: where each shard begins, and the end of the last.
    """

    def __init__(
        self, client: ShardClient, release_id: str, surface: str, source: str, bounds: list[int]
    ) -> None:
        self._client = client
        self._names = {"release": release_id, "surface": surface, "source": source}
        self._held = [held(bounds, part) for part in client.parts]

    def search(
        self,
        queries: FloatArray,
        k: int,
        allowed: BoolArray | None = None,
        waiting: Waiting | None = None,
    ) -> Neighbors:
        """As ``VectorIndex.search``, over the parts that answer in time.

        Those that do not are named in ``waiting``, and not asked again by who waits.

        Raises:
            ShardError: one does not answer, and nobody says that it may be left out.
        """
        now = time.perf_counter()
        until = now + _PATIENCE_SECONDS if waiting is None else waiting.until
        left_out = set() if waiting is None else waiting.left_out
        about = {"op": "search", "k": k, "within_ms": (until - now) * 1e3, **self._names}
        queries = np.ascontiguousarray(queries, np.float32)
        messages = {}
        for part, own in zip(self._client.parts, self._held, strict=True):
            if own.low == own.high or not len(queries) or name_of(part) in left_out:
                continue
            arrays: dict[str, np.ndarray[Any, Any]] = {"queries": queries}
            size = own.stop - own.start
            if allowed is not None:
                here = allowed[own.start : own.stop]
                if not here.any():
                    continue
                arrays["allowed"] = np.packbits(here, bitorder="little")
            messages[part.place] = self._client.message(part, {**about, "candidates": size}, arrays)
        answers = self._client.ask(messages, until) if messages else {}
        found = {place: _found(arrays, len(queries)) for place, arrays in answers.items()}
        missing = [place for place in messages if found.get(place) is None]
        if missing and waiting is None:
            raise ShardError(
                f"part {self._client.parts[missing[0]]} of the indexes does not answer at "
                f"{self._client.where(missing[0])}: start it with 'nextedge serve-shard "
                f"{self._client.parts[missing[0]]}'"
            )
        left_out |= {name_of(self._client.parts[place]) for place in missing}
        return merged([each for each in found.values() if each is not None], len(queries), k)


def name_of(part: Part) -> str:
    """How an answer says that a part was left out of it."""
    return f"{LEFT_OUT}{part.place}"


def _found(arrays: Arrays, queries: int) -> Neighbors | None:
    """What a part found; None where it is no such thing."""
    position, score = arrays.get("position"), arrays.get("score")
    if position is None or score is None or position.shape != score.shape:
        return None
    fits = position.ndim == 2 and len(position) == queries
    if not fits or position.dtype != np.int32 or score.dtype != np.float32:
        return None
    return position, score


def shard_client(config: Config) -> ShardClient | None:
    """Who asks the processes of ``serving.shards``; None where there are none.

    Raises:
        ConfigError: an address cannot be read, or is there twice.
    """
    return ShardClient(config) if config.serving.shards else None
