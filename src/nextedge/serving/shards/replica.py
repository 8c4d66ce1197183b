"""One shard process: its connections, and whether it is healthy.

A thread pings it in the background. A front sends nothing to a process that is lost, or late
several times in a row, until it answers a ping; the waits between pings grow.
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
"""Late responses, one after another, that make a process unhealthy."""
_FIRST_WAIT, _LONGEST_WAIT = 0.05, 5.0
"""Seconds between pings of an unhealthy process, each wait twice the last."""
_PING_SECONDS = 1.0
_IDLE_CONNECTIONS = 32


class Replica:
    """A process that serves one part of the indexes; safe for threads.

    Args:
        ping: the message that it must answer to be healthy.
        warn: called with the reason of a refusal, once for each reason.
    """

    def __init__(self, address: Address, ping: bytes, warn: Callable[[str], None]) -> None:
        self.address = address
        self.up = False
        self.pinged = threading.Event()
        """Set after the first ping, with or without an answer."""
        self._ping = ping
        self._warn = warn
        self._warned = ""
        self._idle: deque[socket.socket] = deque()
        self._resolved: tuple[socket.AddressFamily, Any] | None = None
        self._late = 0
        self._wait = _FIRST_WAIT
        self._down = threading.Event()
        self._stopping = threading.Event()
        self._pinging = threading.Thread(
            target=self._keep_pinging, name="nextedge-shard", daemon=True
        )

    def start(self) -> None:
        """Ping it, now and whenever it is lost."""
        self._down.set()
        self._pinging.start()

    def close(self) -> None:
        """End the pings and the connections."""
        self._stopping.set()
        self._down.set()
        if self._pinging.ident is not None:
            self._pinging.join()
        self.up = False
        self.close_idle()

    def connection(self, *, fresh: bool = False) -> tuple[socket.socket, bool]:
        """A non-blocking connection, and whether it was used before.

        A new connection may still be under way: a write then waits, or fails.

        Raises:
            OSError: no connection can be made.
        """
        if not fresh:
            try:
                return self._idle.pop(), True
            except IndexError:
                pass
        if self._resolved is None:
            raise ConnectionError(f"{self.address}: not resolved yet")
        family, address = self._resolved
        connection = socket.socket(family, socket.SOCK_STREAM)
        connection.setblocking(False)
        try:
            if family != socket.AF_UNIX:
                # without a wait for further bytes to fill a packet
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            failed = connection.connect_ex(address)
            if failed and (failed != errno.EINPROGRESS or family == socket.AF_UNIX):
                raise OSError(failed, f"{self.address}: {errno.errorcode.get(failed, failed)}")
        except OSError:
            connection.close()
            raise
        return connection, False

    def give_back(self, connection: socket.socket) -> None:
        """Reuse a connection that carries no request."""
        if self.up and len(self._idle) < _IDLE_CONNECTIONS:
            self._idle.append(connection)
        else:
            connection.close()

    def answered(self) -> None:
        """Count a response in time."""
        self._late = 0
        self._wait = _FIRST_WAIT

    def late(self) -> None:
        """Count a late response; several in a row make the process unhealthy."""
        self._late += 1
        if self._late >= _LATE_IN_A_ROW:
            self.lost()

    def lost(self) -> None:
        """Make the process unhealthy until it answers a ping."""
        self.up, self._late = False, 0
        self._down.set()
        self.close_idle()

    def close_idle(self) -> None:
        """Close the idle connections."""
        while self._idle:
            try:
                self._idle.pop().close()
            except IndexError:  # another thread took it
                return

    def _keep_pinging(self) -> None:
        while True:
            self._down.wait()
            if self.pinged.is_set():  # the first ping does not wait
                # at random: fronts that lost it together must not ping together
                self._stopping.wait(self._wait * random.uniform(0.5, 1.0))
                self._wait = min(2 * self._wait, _LONGEST_WAIT)
            if self._stopping.is_set():
                return
            refusal = self._refusal()
            if refusal and refusal != self._warned:
                self._warn(f"shards at {self.address}: {refusal}")
            self._warned = refusal
            if not refusal:
                self._down.clear()
                self.up = True
            self.pinged.set()

    def _refusal(self) -> str:
        """Ping the process; why it is unhealthy, or nothing."""
        try:
            # resolved anew at each ping: a restarted process may have another address
            self._resolved = self.address.resolve()
            family, address = self._resolved
            with socket.socket(family, socket.SOCK_STREAM) as connection:
                connection.settimeout(_PING_SECONDS)
                connection.connect(address)
                connection.sendall(self._ping)
                response = receive(connection)
            if response is None:
                return "the connection was closed"
            metadata, _ = decode(response)
        except (OSError, CorruptValueError) as error:
            return str(error) or type(error).__name__
        return str(metadata.get("detail", metadata["error"])) if "error" in metadata else ""
