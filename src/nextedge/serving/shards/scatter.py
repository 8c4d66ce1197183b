"""Asking several processes at once: one loop over their sockets, until all answer or time is up.

There is no thread for a question: the sockets of a request are looked at together, so that a
deadline is kept to within the system's clock and nothing is handed from thread to thread. Where a
part has replicas, one that has not answered after the time that 19 of 20 answers take is joined by a
second (Dean and Barroso: "The tail at scale", 2013), for a tenth of the questions at most, so that
all being slow does not double the load.
"""

from __future__ import annotations

import errno
import os
import selectors
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from nextedge.errors import CorruptValueError
from nextedge.serving.shards.protocol import LENGTH, decode, length_of
from nextedge.serving.shards.replica import Replica

What = Literal["answered", "late", "lost", "refused", "hedged", "left_out"]
Tell = Callable[[int, What, float], None]
"""Told of a part, what became of a question to it, and after how many seconds."""
_LATENCIES, _LEARNED_FROM = 200, 20
_QUANTILE = 0.95
_HEDGES_A_QUESTION, _MOST_HEDGES = 0.1, 10.0
_SHORTEST_PATIENCE = 0.005
_READ = 1 << 18


class ReplicaLatency:
    """How long answers of a part take, and whether a second process may be asked as well."""

    def __init__(self) -> None:
        self._seconds: deque[float] = deque(maxlen=_LATENCIES)
        self._budget = 1.0
        self._seen = 0
        self.usual: float | None = None
        """Seconds within which 19 of 20 answers came lately; None before there were enough."""

    def answered(self, seconds: float) -> None:
        """Learn from an answer."""
        self._seconds.append(seconds)
        self._budget = min(self._budget + _HEDGES_A_QUESTION, _MOST_HEDGES)
        self._seen += 1
        if self._seen % _LEARNED_FROM == 0:
            self.usual = float(np.quantile(np.array(self._seconds), _QUANTILE))

    def hedge(self) -> bool:
        """Whether one more may be asked; counts it."""
        if self._budget < 1:
            return False
        self._budget -= 1
        return True


@dataclass(eq=False)
class ShardSearch:
    """What is asked of one part.

    Attributes:
        part: its place.
        message: as it is sent.
        replicas: whom to ask, in turn.
        pace: None where one is never asked beside another.
        answer: metadata and arrays, once there are any that are no refusal.
        error: how it was refused by the last that refused it, and ``refused`` why.
    """

    part: int
    message: bytes
    replicas: list[Replica]
    pace: ReplicaLatency | None = None
    answer: tuple[dict[str, Any], dict[str, np.ndarray[Any, Any]]] | None = None
    error: str = ""
    refused: str = ""
    hedge_at: float = np.inf
    under_way: list[Attempt] = field(default_factory=list)


class Attempt:
    """A question on its way to one process, and its answer on the way back."""

    def __init__(self, question: ShardSearch, replica: Replica, *, fresh: bool = False) -> None:
        self.question = question
        self.replica = replica
        self.connection, self.reused = replica.connection(fresh=fresh)
        self.began = time.perf_counter()
        self._left = memoryview(question.message)
        self._got = bytearray()

    def send(self) -> bool:
        """Send what the socket takes; whether that was all."""
        try:
            self._left = self._left[self.connection.send(self._left) :]
        except (BlockingIOError, InterruptedError):
            pass
        except OSError as error:
            if error.errno not in (errno.ENOTCONN, errno.EAGAIN):  # not yet connected
                raise
        return not self._left

    def read(self) -> bytes | None:
        """Read what has come; the whole answer once it is there.

        Raises:
            OSError: the connection is lost.
            CorruptValueError: what comes is no answer.
        """
        try:
            got = self.connection.recv(_READ)
        except (BlockingIOError, InterruptedError):
            return None
        if not got:
            raise ConnectionResetError("the connection was closed")
        self._got += got
        if len(self._got) < LENGTH.size:
            return None
        size = length_of(bytes(self._got[: LENGTH.size])) + LENGTH.size
        if len(self._got) > size:
            raise CorruptValueError("more than one answer")
        return bytes(self._got[LENGTH.size :]) if len(self._got) == size else None

    @property
    def untouched(self) -> bool:
        """Whether nothing has come back."""
        return not self._got


class Scatter:
    """One batch of questions, asked at once."""

    def __init__(self, questions: Sequence[ShardSearch], until: float, tell: Tell) -> None:
        self._open = list(questions)
        self._until = until
        self._tell = tell
        self._selector = selectors.DefaultSelector()
        self._began = time.perf_counter()

    def run(self) -> None:
        """Ask, and wait until all have answered or it is time; answers are in the questions."""
        try:
            for question in list(self._open):
                self._ask_next(question)
                if question.pace is not None and question.pace.usual is not None:
                    question.hedge_at = self._began + question.pace.usual
            while self._open:
                now = time.perf_counter()
                if now >= self._until:
                    break
                self._hedge(now)
                waking = min(self._until, *(each.hedge_at for each in self._open))
                for key, _ in self._selector.select(max(0.0, waking - time.perf_counter())):
                    if key.data in key.data.question.under_way:  # not dropped by one before it
                        self._advance(key.data)
        finally:
            for question in self._open:
                for attempt in list(question.under_way):
                    self._tell(question.part, "late", 0.0)
                    if self._was_patient(attempt):
                        attempt.replica.late()
                    self._drop(attempt)
            self._selector.close()

    def _was_patient(self, attempt: Attempt) -> bool:
        """Whether it was given as long as answers take; else being late tells nothing of it."""
        pace = attempt.question.pace
        usual = pace.usual if pace is not None and pace.usual is not None else 0.0
        return time.perf_counter() - attempt.began >= max(usual, _SHORTEST_PATIENCE)

    def _ask_next(self, question: ShardSearch) -> None:
        """Ask the next replica that can be asked; without one the question ends."""
        while question.replicas:
            if self._begin(question, question.replicas.pop(0)):
                return
        if not question.under_way:
            self._open.remove(question)

    def _begin(self, question: ShardSearch, replica: Replica, *, fresh: bool = False) -> bool:
        try:
            attempt = Attempt(question, replica, fresh=fresh)
        except OSError:
            self._tell(question.part, "lost", 0.0)
            replica.lost()
            return False
        question.under_way.append(attempt)
        self._selector.register(attempt.connection, selectors.EVENT_WRITE, attempt)
        if attempt.reused:
            self._advance(attempt)
        return True

    def _hedge(self, now: float) -> None:
        for question in list(self._open):
            if now < question.hedge_at:
                continue
            question.hedge_at = np.inf
            if question.replicas and question.pace is not None and question.pace.hedge():
                self._tell(question.part, "hedged", 0.0)
                self._ask_next(question)

    def _advance(self, attempt: Attempt) -> None:
        """Send or read what is possible now."""
        writing = self._selector.get_key(attempt.connection).events == selectors.EVENT_WRITE
        try:
            if writing:
                _raise_error_of(attempt.connection)
                if attempt.send():
                    self._selector.modify(attempt.connection, selectors.EVENT_READ, attempt)
                return
            body = attempt.read()
            if body is not None:
                self._answered(attempt, body)
        except (OSError, CorruptValueError):
            self._lost(attempt)

    def _answered(self, attempt: Attempt, body: bytes) -> None:
        about, arrays = decode(body)
        question, seconds = attempt.question, time.perf_counter() - attempt.began
        self._forget(attempt)
        attempt.replica.give_back(attempt.connection)
        attempt.replica.answered()
        if "error" in about:
            question.error = str(about["error"])
            question.refused = str(about.get("detail", about["error"]))
            self._tell(question.part, "refused", seconds)
            if not question.under_way:
                self._ask_next(question)
            return
        if question.pace is not None:
            question.pace.answered(seconds)
        self._tell(question.part, "answered", seconds)
        question.answer = about, arrays
        self._open.remove(question)
        for slower in list(question.under_way):
            if slower.began < attempt.began:  # it was to answer before this one was asked
                slower.replica.late()
            self._drop(slower)

    def _lost(self, attempt: Attempt) -> None:
        question, replica = attempt.question, attempt.replica
        self._drop(attempt)
        if attempt.reused and attempt.untouched:  # it may have been started anew since
            replica.let_go()
            if self._begin(question, replica, fresh=True):
                return
        else:
            self._tell(question.part, "lost", 0.0)
            replica.lost()
        if not question.under_way:
            self._ask_next(question)

    def _drop(self, attempt: Attempt) -> None:
        self._forget(attempt)
        attempt.connection.close()

    def _forget(self, attempt: Attempt) -> None:
        self._selector.unregister(attempt.connection)
        attempt.question.under_way.remove(attempt)


def _raise_error_of(connection: socket.socket) -> None:
    """Raise what has become of a connection that was begun without waiting."""
    if failed := connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
        raise OSError(failed, os.strerror(failed))


def in_turn(replicas: Sequence[Replica], turn: int) -> list[Replica]:
    """Those that may be asked, beginning with another one each turn."""
    up = [each for each in replicas if each.up]
    first = turn % len(up) if up else 0
    return up[first:] + up[:first]


def wait_until_known(replicas: Iterable[Replica], until: float) -> None:
    """Wait for the first ping of each, at the start."""
    for each in replicas:
        if not each.known.is_set():
            each.known.wait(max(0.0, until - time.perf_counter()))
