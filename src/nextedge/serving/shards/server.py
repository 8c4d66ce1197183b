"""A process that holds shards of indexes and answers searches in them."""

from __future__ import annotations

import contextlib
import errno
import hmac
import logging
import os
import signal
import socket
import socketserver
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from nextedge.config import Config
from nextedge.cores import thread_count
from nextedge.data.partition import Part
from nextedge.errors import (
    CorruptValueError,
    InputError,
    MissingDependencyError,
    NoReleaseError,
    StorageError,
    UnknownReleaseError,
)
from nextedge.releases.shared import open_releases
from nextedge.serving.shards.indexes import PartIndexes
from nextedge.serving.shards.protocol import (
    KEY_VARIABLE,
    MOST_RESULTS,
    Arrays,
    decode,
    encode,
    receive,
    shared_key,
)
from nextedge.storage.locations import is_loopback

_log = logging.getLogger("nextedge")
_IDLE_SECONDS = 600.0
"""After so long a connection over which nothing is asked is closed; a front makes it anew."""
_LOADING_SECONDS = 1.0
"""A front that asks for a release to be loaded is told after so long that it is not yet."""
_ANSWERS_SECONDS = 1.0
"""So long a process that listens on a Unix socket may take to accept a connection."""
_WAITING = 512
"""Connections that may wait to be taken."""


class PartAnswers:
    """What one part answers to messages; one object for all connections.

    Args:
        key: that callers must send; empty for none.
    """

    def __init__(self, indexes: PartIndexes, tenant: str, key: str = "") -> None:
        self._indexes = indexes
        self._tenant = tenant
        self._key = key
        self._searching = threading.Semaphore(thread_count())

    def answer(self, body: bytes) -> bytes:
        """The answer to a message: what it asks for, or a refusal."""
        received = time.monotonic()
        try:
            about, arrays = decode(body)
            if refused := self._refused(about):
                return refused
            operation = about.get("op")
            if operation == "ping":
                return encode({})
            if operation == "open":
                if self._indexes.opened(str(about["release"]), _LOADING_SECONDS):
                    return encode({})
                return _refusal("loading", "it is being loaded")
            if operation == "search":
                return self._search(about, arrays, received)
            return _refusal("wrong", f"no operation {operation!r}")
        except UnknownReleaseError as error:
            return _refusal("unknown_release", str(error))
        except (CorruptValueError, KeyError, TypeError, ValueError) as error:
            return _refusal("wrong", f"the message cannot be read: {error!r}")
        except Exception as error:  # whatever it is, the connection and the process go on
            _log.exception("a search failed")
            return _refusal("failed", repr(error))

    def _refused(self, about: dict[str, Any]) -> bytes | None:
        given = str(about.get("key", ""))
        if not hmac.compare_digest(given.encode(), self._key.encode()):
            return _refusal("wrong", f"{KEY_VARIABLE} is not the same here")
        here = self._tenant, str(self._indexes.part)
        if (about.get("tenant"), about.get("part")) != here:
            return _refusal("wrong", f"this is part {here[1]} of tenant {here[0]!r}")
        return None

    def _search(self, about: dict[str, Any], arrays: Arrays, received: float) -> bytes:
        k, queries, bits = int(about["k"]), arrays["queries"], arrays.get("allowed")
        if not 0 < k <= MOST_RESULTS or queries.dtype != np.float32:
            return _refusal("wrong", f"k = {k}, queries of {queries.dtype}")
        allowed = None
        if bits is not None:
            size = int(about["candidates"])
            if not 0 <= size <= 8 * bits.size or bits.dtype != np.uint8:
                return _refusal("wrong", f"{bits.size} bytes of a filter for {size} candidates")
            allowed = np.unpackbits(bits, count=size, bitorder="little").astype(bool)
        patience = float(about["within_ms"]) / 1e3
        if not self._indexes.opened(str(about["release"]), patience):
            return _refusal("loading", "it is being loaded")
        with self._searching:  # more at once than cores would only slow each other
            if time.monotonic() - received > patience:
                return _refusal("late", "nobody waits for it any more")
            found = self._indexes.search(
                str(about["release"]),
                str(about["surface"]),
                str(about["source"]),
                queries,
                k,
                allowed,
            )
        if found is None:
            return _refusal("not_here", "that release has no such index in shards")
        return encode({}, {"position": found[0], "score": found[1]})


def _refusal(error: str, detail: str) -> bytes:
    return encode({"error": error, "detail": detail})


class _Connection(socketserver.BaseRequestHandler):
    """One front's connection: a message, its answer, and so on."""

    server: _Tcp | _Unix

    def handle(self) -> None:
        _one_thread_a_search()
        connection: socket.socket = self.request
        connection.settimeout(_IDLE_SECONDS)
        if connection.family != socket.AF_UNIX:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(OSError, CorruptValueError):  # the other end is gone, or no front
            while (body := receive(connection)) is not None:
                connection.sendall(self.server.answers.answer(body))


class _Tcp(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = _WAITING
    answers: PartAnswers


class _Unix(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    request_queue_size = _WAITING
    answers: PartAnswers


def run_shard_server(
    config: Config, part: Part, host: str, port: int, path: Path | None = None
) -> None:
    """Hold a part of the tenant's indexes and answer searches until stopped.

    Args:
        path: of a Unix socket, in place of host and port.

    Raises:
        InputError: the part is none of ``serving.shards``, or others can reach the address and
            there is no key.
        NoReleaseError: nothing can be served yet.
        StorageError: the address is taken, or cannot be used.
        MissingDependencyError: faiss is not installed.
    """
    processes = len(config.serving.shards)
    if processes and processes != part.of:
        raise InputError(f"part {part}: serving.shards names {processes} parts, not {part.of}")
    key = shared_key()
    if path is None and not key and not is_loopback(host):
        raise InputError(
            f"--host {host} can be reached by others: set {KEY_VARIABLE} to a secret, here and "
            "where nextedge serve runs"
        )
    _one_thread_a_search()
    indexes = PartIndexes(open_releases(config), part)
    if not indexes.open_served():
        raise NoReleaseError(f"{config.state_path}: no release to serve; run: nextedge build")
    with listening(PartAnswers(indexes, config.tenant, key), host, port, path) as server:
        _log.warning("part %s of %s listens on %s", part, config.tenant, path or f"{host}:{port}")
        _stop_on_sigterm(server)
        try:
            server.serve_forever(poll_interval=0.2)
        finally:
            if path is not None:
                path.unlink(missing_ok=True)


def listening(answers: PartAnswers, host: str, port: int, path: Path | None = None) -> _Tcp | _Unix:
    """A server that is bound to its address, and answers once it is told to.

    Raises:
        StorageError: the address is taken, or cannot be used.
    """
    try:
        if path is None:
            server: _Tcp | _Unix = _Tcp((host, port), _Connection)
        else:
            _clear(path)
            server = _Unix(str(path), _Connection)
            path.chmod(0o660)
    except (OSError, OverflowError) as error:  # the latter at a port that is none
        place = path or f"{host}:{port}"
        raise StorageError(f"{place}: cannot listen there: {_reason(error)}") from None
    server.answers = answers
    return server


def _clear(path: Path) -> None:
    """Remove a socket that was left by a killed process, never one that still answers.

    Raises:
        OSError: another process listens on it.
    """
    if not path.is_socket():
        return
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(_ANSWERS_SECONDS)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def _reason(error: OSError | OverflowError) -> str:
    return getattr(error, "strerror", None) or str(error)


def _stop_on_sigterm(server: _Tcp | _Unix) -> None:
    def stop(*_: object) -> None:
        threading.Thread(target=server.shutdown, daemon=True).start()

    signal.signal(signal.SIGTERM, stop)


def _one_thread_a_search() -> None:
    """Searches run side by side; each with threads of its own would take cores from the others."""
    try:
        import faiss
    except ImportError:
        raise MissingDependencyError("faiss-cpu", "ann", "searching an index") from None
    faiss.omp_set_num_threads(1)  # of the calling thread
