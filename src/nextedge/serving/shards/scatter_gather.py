"""Requests to several shard processes at once: one loop over their sockets, with a deadline.

There is no thread a request: the loop watches the sockets of all parts together, so that it keeps the
deadline to within the system's clock. Where a part has replicas, the loop hedges: it sends the request
to a second replica once the first takes longer than 19 of 20 responses did (Dean and Barroso: "The tail
at scale", 2013). It hedges a tenth of the requests at most.
"""

from __future__ import annotations

import errno
import os
import selectors
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from nextedge.errors import CorruptValueError
from nextedge.serving.shards.protocol import LENGTH, decode, length_of
from nextedge.serving.shards.replica import Replica

Outcome = Literal["answered", "late", "lost", "refused", "hedged", "left_out"]
Listener = Callable[[int, Outcome, float], None]
"""Called with a part, the outcome of a request to it, and the seconds that it took."""
_LATENCIES, _REFRESH_AFTER = 200, 20
_QUANTILE = 0.95
_HEDGES_A_RESPONSE, _MAX_HEDGES = 0.1, 10.0  # a slow hour must not double the load
_SHORTEST_PATIENCE = 0.005
_READ_BYTES = 1 << 18


class ReplicaLatency:
    """Latency of a part's responses, and the budget of hedged requests."""

    def __init__(self) -> None:
        self._seconds: deque[float] = deque(maxlen=_LATENCIES)
        self._budget = 1.0
        self._responses = 0
        self.usual: float | None = None
        """Seconds within which 19 of 20 recent responses came; None before there were enough."""

    def answered(self, seconds: float) -> None:
        """Learn from a response."""
        self._seconds.append(seconds)
        self._budget = min(self._budget + _HEDGES_A_RESPONSE, _MAX_HEDGES)
        self._responses += 1
        if self._responses % _REFRESH_AFTER == 0:
            self.usual = float(np.quantile(np.array(self._seconds), _QUANTILE))

    def hedge(self) -> bool:
        """Whether the budget allows one more hedged request; spends it."""
        if self._budget < 1:
            return False
        self._budget -= 1
        return True


@dataclass(eq=False)
class ShardRequest:
    """A request to one part.

    Attributes:
        part: position of the part.
        message: the encoded request.
        replicas: those still to try, in order.
        latency: None to never hedge.
        response: metadata and arrays of the first response that is no refusal.
        error, detail: code and reason of the last refusal.
    """

    part: int
    message: bytes
    replicas: list[Replica]
    latency: ReplicaLatency | None = None
    response: tuple[dict[str, Any], dict[str, np.ndarray[Any, Any]]] | None = None
    error: str = ""
    detail: str = ""
    hedge_at: float = np.inf
    attempts: list[Attempt] = field(default_factory=list)

    @property
    def usual(self) -> float | None:
        """Seconds that the part usually takes."""
        return None if self.latency is None else self.latency.usual


class Attempt:
    """One try of a request at one replica."""

    def __init__(self, request: ShardRequest, replica: Replica, *, fresh: bool = False) -> None:
        self.request = request
        self.replica = replica
        self.connection, self.reused = replica.connection(fresh=fresh)
        self.began = time.perf_counter()
        self.sending = True
        self.received = bytearray()
        self._unsent = memoryview(request.message)

    def send(self) -> bool:
        """Send what the socket takes; whether that was all."""
        if failed := self.connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(failed, os.strerror(failed))  # connecting without waiting failed
        try:
            self._unsent = self._unsent[self.connection.send(self._unsent) :]
        except (BlockingIOError, InterruptedError):
            pass
        except OSError as error:
            if error.errno not in (errno.ENOTCONN, errno.EAGAIN):  # not yet connected
                raise
        self.sending = bool(self._unsent)
        return not self.sending

    def read(self) -> bytes | None:
        """Read what has come; the whole response once it is there.

        Raises:
            OSError: the connection is lost.
            CorruptValueError: the bytes are no response.
        """
        try:
            chunk = self.connection.recv(_READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return None
        if not chunk:
            raise ConnectionResetError("the connection was closed")
        self.received += chunk
        if len(self.received) < LENGTH.size:
            return None
        size = length_of(bytes(self.received[: LENGTH.size])) + LENGTH.size
        if len(self.received) > size:
            raise CorruptValueError("more than one response")
        return bytes(self.received[LENGTH.size :]) if len(self.received) == size else None


class ScatterGather:
    """Sends a batch of requests at once and gathers the responses."""

    def __init__(self, requests: Sequence[ShardRequest], until: float, listener: Listener) -> None:
        self._open = list(requests)
        self._until = until
        self._listener = listener
        self._selector = selectors.DefaultSelector()

    def run(self) -> None:
        """Wait until all parts have answered or time is up; the requests then have responses."""
        began = time.perf_counter()
        try:
            for request in list(self._open):
                self._try_next(request)
                if request.usual is not None:
                    request.hedge_at = began + request.usual
            while self._open and (now := time.perf_counter()) < self._until:
                self._hedge(now)
                waking = min(self._until, *(request.hedge_at for request in self._open))
                for key, _ in self._selector.select(max(0.0, waking - time.perf_counter())):
                    if key.data in key.data.request.attempts:  # not dropped by one before it
                        self._advance(key.data)
        finally:
            for request in self._open:
                for attempt in list(request.attempts):
                    self._listener(request.part, "late", 0.0)
                    # a deadline shorter than the usual time says nothing about the replica
                    patience = max(request.usual or 0.0, _SHORTEST_PATIENCE)
                    if time.perf_counter() - attempt.began >= patience:
                        attempt.replica.late()
                    self._drop(attempt)
            self._selector.close()

    def _try_next(self, request: ShardRequest) -> None:
        """Try the next replica; the request ends without one."""
        while request.replicas:
            if self._begin(request, request.replicas.pop(0)):
                return
        if not request.attempts:
            self._open.remove(request)

    def _begin(self, request: ShardRequest, replica: Replica, *, fresh: bool = False) -> bool:
        try:
            attempt = Attempt(request, replica, fresh=fresh)
        except OSError:
            self._listener(request.part, "lost", 0.0)
            replica.lost()
            return False
        request.attempts.append(attempt)
        self._selector.register(attempt.connection, selectors.EVENT_WRITE, attempt)
        # an open connection takes the message now, without a turn of the loop
        if attempt.reused:
            self._advance(attempt)
        return True

    def _hedge(self, now: float) -> None:
        for request in list(self._open):
            if now < request.hedge_at:
                continue
            request.hedge_at = np.inf
            if request.replicas and request.latency is not None and request.latency.hedge():
                self._listener(request.part, "hedged", 0.0)
                self._try_next(request)

    def _advance(self, attempt: Attempt) -> None:
        """Send or read what is possible now."""
        try:
            if attempt.sending:
                if attempt.send():
                    self._selector.modify(attempt.connection, selectors.EVENT_READ, attempt)
            elif (body := attempt.read()) is not None:
                self._answered(attempt, body)
        except (OSError, CorruptValueError):
            self._lost(attempt)

    def _answered(self, attempt: Attempt, body: bytes) -> None:
        metadata, arrays = decode(body)
        request, seconds = attempt.request, time.perf_counter() - attempt.began
        self._forget(attempt)
        attempt.replica.give_back(attempt.connection)
        attempt.replica.answered()
        if "error" in metadata:
            request.error = str(metadata["error"])
            request.detail = str(metadata.get("detail", request.error))
            self._listener(request.part, "refused", seconds)
            if not request.attempts:
                self._try_next(request)
            return
        if request.latency is not None:
            request.latency.answered(seconds)
        self._listener(request.part, "answered", seconds)
        request.response = metadata, arrays
        self._open.remove(request)
        for slower in list(request.attempts):
            if slower.began < attempt.began:  # the hedged request overtook it
                slower.replica.late()
            self._drop(slower)

    def _lost(self, attempt: Attempt) -> None:
        request, replica = attempt.request, attempt.replica
        self._drop(attempt)
        if attempt.reused and not attempt.received:
            # the process may have restarted since the connection was last used
            replica.close_idle()
            if self._begin(request, replica, fresh=True):
                return
        else:
            self._listener(request.part, "lost", 0.0)
            replica.lost()
        if not request.attempts:
            self._try_next(request)

    def _drop(self, attempt: Attempt) -> None:
        self._forget(attempt)
        attempt.connection.close()

    def _forget(self, attempt: Attempt) -> None:
        self._selector.unregister(attempt.connection)
        attempt.request.attempts.remove(attempt)


def round_robin(replicas: Sequence[Replica], turn: int) -> list[Replica]:
    """The healthy replicas, beginning with another one each turn."""
    up = [replica for replica in replicas if replica.up]
    first = turn % len(up) if up else 0
    return up[first:] + up[:first]
