"""One process that holds a part: connections to it, and whether it may be asked now.

Whether it answers is found out in the background: one that is lost, or late several times in a
row, is asked nothing until it has answered a ping, tried after longer and longer waits.
"""

from __future__ import annotations

import errno
import random
import socket
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from nextedge.errors import CorruptValueError
from nextedge.serving.shards.protocol import Address, decode, receive

_LATE_IN_A_ROW = 3
"""Answers that may be late, one after another, before it is asked no more."""
_FIRST_WAIT, _LONGEST_WAIT = 0.05, 5.0
"""Seconds between pings of one that does not answer, each wait twice the last."""
_PING_SECONDS = 1.0
_IDLE_CONNECTIONS = 32


class Replica:
    """A process that holds a part of the indexes; safe for threads.

    Args:
        ping: the message that it must answer to be asked anything.
        warn: told why it refuses, once for each reason.
    """

    def __init__(self, address: Address, ping: bytes, warn: Callable[[str], None]) -> None:
        self.address = address
        self.up = False
        self.known = threading.Event()
        """Set once it was pinged, whatever came of it."""
        self._ping = ping
        self._warn = warn
        self._warned = ""
        self._idle: deque[socket.socket] = deque()
        self._place: tuple[socket.AddressFamily, Any] | None = None
        self._late = 0
        self._wait = _FIRST_WAIT
        self._down = threading.Event()
        self._stopping = threading.Event()
        self._watching = threading.Thread(target=self._watch, name="nextedge-shard", daemon=True)

    def start(self) -> None:
        """Ping it, now and whenever it was lost."""
        self._down.set()
        self._watching.start()

    def close(self) -> None:
        """End the pings and the connections."""
        self._stopping.set()
        self._down.set()
        if self._watching.ident is not None:
            self._watching.join()
        self.up = False
        self.let_go()

    def connection(self, *, fresh: bool = False) -> tuple[socket.socket, bool]:
        """A non-blocking connection, and whether it was used before.

        A new one may still be under way: a write then waits, or fails.

        Raises:
            OSError: it cannot be made.
        """
        if not fresh:
            try:
                return self._idle.pop(), True
            except IndexError:
                pass
        if self._place is None:
            raise ConnectionError(f"{self.address}: not known yet")
        family, place = self._place
        made = socket.socket(family, socket.SOCK_STREAM)
        made.setblocking(False)
        try:
            if family != socket.AF_UNIX:
                made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            failed = made.connect_ex(place)
            if failed and (failed != errno.EINPROGRESS or family == socket.AF_UNIX):
                raise OSError(failed, f"{self.address}: {errno.errorcode.get(failed, failed)}")
        except OSError:
            made.close()
            raise
        return made, False

    def give_back(self, connection: socket.socket) -> None:
        """Keep a connection over which nothing is under way."""
        if self.up and len(self._idle) < _IDLE_CONNECTIONS:
            self._idle.append(connection)
        else:
            connection.close()

    def answered(self) -> None:
        """It answered a question in time."""
        self._late = 0
        self._wait = _FIRST_WAIT

    def late(self) -> None:
        """It did not answer in time; several times in a row, and it is asked no more."""
        self._late += 1
        if self._late >= _LATE_IN_A_ROW:
            self.lost()

    def lost(self) -> None:
        """It cannot be reached: asked no more until it answers a ping."""
        self.up, self._late = False, 0
        self._down.set()
        self.let_go()

    def let_go(self) -> None:
        """Close the connections that wait."""
        while self._idle:
            try:
                self._idle.pop().close()
            except IndexError:  # another thread took it
                return

    def _watch(self) -> None:
        while True:
            self._down.wait()
            if self.known.is_set():  # not at the start
                self._stopping.wait(self._wait * random.uniform(0.5, 1.0))
                self._wait = min(2 * self._wait, _LONGEST_WAIT)
            if self._stopping.is_set():
                return
            refused = self._look()
            if refused and refused != self._warned:
                self._warn(f"shards at {self.address}: {refused}")
            self._warned = refused
            if not refused:
                self._down.clear()
                self.up = True
            self.known.set()

    def _look(self) -> str:
        """Ping it; why it is not asked, or nothing."""
        try:
            self._place = self.address.resolve()
            return self._pinged(*self._place)
        except (OSError, CorruptValueError) as error:
            return str(error) or type(error).__name__

    def _pinged(self, family: socket.AddressFamily, place: Any) -> str:
        with socket.socket(family, socket.SOCK_STREAM) as connection:
            connection.settimeout(_PING_SECONDS)
            connection.connect(place)
            connection.sendall(self._ping)
            answer = receive(connection)
        if answer is None:
            return "the connection was closed"
        about, _ = decode(answer)
        return str(about.get("detail", about["error"])) if "error" in about else ""
