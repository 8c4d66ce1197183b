"""A real redis-server of a test's own."""

from __future__ import annotations

import contextlib
import random
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any


def free_port() -> int:
    """A random port below those that systems give out, free as is the one 10,000 above it, which a
    cluster's node takes too.
    """
    while True:
        port = random.randint(10_000, 20_000)
        with socket.socket() as free, socket.socket() as bus, contextlib.suppress(OSError):
            free.bind(("127.0.0.1", port))
            bus.bind(("127.0.0.1", port + 10_000))
            return port


class RedisServer:
    """A server on a random port of loopback that keeps nothing on disk."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.directory = directory
        self.options = options
        self.process: subprocess.Popen[bytes] | None = None
        self.port = free_port()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def client(self) -> Any:
        """A client that waits longer than those that are tested."""
        import redis

        return redis.Redis(port=self.port, socket_timeout=20)

    def start(self) -> None:
        self.process = subprocess.Popen(
            [
                "redis-server",
                "--port",
                str(self.port),
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--appendonly",
                "no",
                "--dir",
                str(self.directory),
                *self.options,
            ],
            stdout=subprocess.DEVNULL,
        )
        for _ in range(1000):
            assert self.process.poll() is None, "redis-server did not start"
            try:
                with socket.create_connection(("127.0.0.1", self.port), 20) as connection:
                    connection.sendall(b"PING\r\n")
                    if connection.recv(1) in (b"+", b"-"):  # or it asks for a password
                        return
            except OSError:
                pass
            time.sleep(0.01)
        raise AssertionError("redis-server does not answer")

    def own_all_slots(self) -> None:
        """Be a cluster of one, where it was started as a node."""
        with self.client() as client:
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            while b"cluster_state:ok" not in client.execute_command("CLUSTER", "INFO"):
                time.sleep(0.01)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def stall(self) -> None:
        """It takes connections and answers nothing, until ``go_on``."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)
