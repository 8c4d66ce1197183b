"""A real S3 server process of the tests' own, behind a proxy that can refuse, cut and count."""

from __future__ import annotations

import contextlib
import http.client
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

Answer = int | str | None
"""A status to answer with; ``cut`` ends the answer in its middle, ``hang`` gives none; None passes."""
Rule = Callable[[str, str], Answer]
_CODES = {403: "AccessDenied", 503: "SlowDown", 500: "InternalError"}


def moto_server() -> str | None:
    """Path of the server's program, or None."""
    beside = Path(sys.executable).parent / "moto_server"
    return str(beside) if beside.exists() else shutil.which("moto_server")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class S3Server:
    """The server process, in memory."""

    def __init__(self, program: str) -> None:
        self.port = free_port()
        self.process = subprocess.Popen(
            [program, "-p", str(self.port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        for _ in range(1200):
            assert self.process.poll() is None, "moto_server did not start"
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return
            time.sleep(0.05)
        raise AssertionError("moto_server does not answer")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@dataclass
class Proxy:
    """Stands before the server; obeys ``rule`` and remembers what was asked.

    Writes go through one at a time: the server looks at a condition and then writes, which the
    stores that it stands for do as one.
    """

    upstream: int
    rule: Rule | None = None
    asked: list[tuple[str, str]] = field(default_factory=list)
    writing: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        proxy = self

        class Handler(_Handler):
            owner = proxy

        self.server = _Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def count(self, method: str, part: str = "") -> int:
        return sum(m == method and part in path for m, path in self.asked)

    @contextlib.contextmanager
    def obeying(self, rule: Rule) -> Iterator[None]:
        self.rule = rule
        try:
            yield
        finally:
            self.rule = None

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that was killed is no fault of the proxy."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: Proxy

    def _forward(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.owner.asked.append((self.command, self.path))
        rule = self.owner.rule
        answer = rule(self.command, self.path) if rule else None
        if answer == "hang":
            time.sleep(600)
        if isinstance(answer, int):
            text = f"<Error><Code>{_CODES[answer]}</Code><Message>no</Message></Error>".encode()
            self._send(answer, [("Content-Type", "application/xml")], text)
            return
        alone = self.command in ("PUT", "POST", "DELETE")
        with self.owner.writing if alone else contextlib.nullcontext():
            upstream = http.client.HTTPConnection("127.0.0.1", self.owner.upstream, timeout=120)
            upstream.request(self.command, self.path, body, dict(self.headers))
            found = upstream.getresponse()
            content = found.read()
            upstream.close()
        kept = [
            (name, value)
            for name, value in found.getheaders()
            if name.lower() not in ("connection", "transfer-encoding", "content-length")
        ]
        length = found.getheader("Content-Length") if self.command == "HEAD" else None
        self._send(found.status, kept, content, length, cut=answer == "cut")

    def _send(
        self,
        status: int,
        headers: list[tuple[str, str]],
        content: bytes,
        length: str | None = None,
        *,
        cut: bool = False,
    ) -> None:
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        if status not in (204, 304):
            self.send_header("Content-Length", length or str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[: len(content) // 2] if cut else content)
        if cut:
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _forward  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""
