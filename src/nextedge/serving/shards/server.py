"""A process that loads index shards and answers searches in them."""

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
from functools import partial
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
from nextedge.serving.shards.loaded_shards import LoadedShards
from nextedge.serving.shards.protocol import (
    KEY_VARIABLE,
    MAX_RESULTS,
    Arrays,
    decode,
    encode,
    receive,
    shared_key,
)
from nextedge.storage.locations import is_loopback

_log = logging.getLogger("nextedge")
_IDLE_SECONDS = 600.0
"""An idle connection is closed after so long; the front connects anew."""
_LOADING_SECONDS = 1.0
"""The longest wait of an ``open`` request, before the refusal ``loading``."""
_PROBE_SECONDS = 1.0
"""The longest wait for another process to accept a connection on our Unix socket."""
_BACKLOG = 512


class ShardService:
    """The responses of one part, for all its connections.

    Args:
        key: that callers must send; empty for none.
    """

    def __init__(self, shards: LoadedShards, tenant: str, key: str = "") -> None:
        self._shards = shards
        self._tenant = tenant
        self._key = key
        # more searches at once than cores would only slow each other
        self._searching = threading.Semaphore(thread_count())

    def answer(self, body: bytes) -> bytes:
        """The response to a message, or a refusal."""
        received = time.monotonic()
        try:
            about, arrays = decode(body)
            if refused := self._refused(about):
                return refused
            operation = about.get("op")
            if operation == "ping":
                return encode({})
            if operation == "open":
                if self._shards.loads_within(str(about["release"]), _LOADING_SECONDS):
                    return encode({})
                return _refusal("loading", "it is being loaded")
            if operation == "search":
                return self._search(about, arrays, received)
            return _refusal("wrong", f"no operation {operation!r}")
        except UnknownReleaseError as error:
            return _refusal("unknown_release", str(error))
        except (CorruptValueError, KeyError, TypeError, ValueError) as error:
            return _refusal("wrong", f"the message cannot be read: {error!r}")
        except Exception as error:  # one bad search must not end the connection or the process
            _log.exception("a search failed")
            return _refusal("failed", repr(error))

    def _refused(self, about: dict[str, Any]) -> bytes | None:
        key = str(about.get("key", ""))
        if not hmac.compare_digest(key.encode(), self._key.encode()):
            return _refusal("wrong", f"{KEY_VARIABLE} is not the same here")
        here = self._tenant, str(self._shards.part)
        if (about.get("tenant"), about.get("part")) != here:
            return _refusal("wrong", f"this is part {here[1]} of tenant {here[0]!r}")
        return None

    def _search(self, about: dict[str, Any], arrays: Arrays, received: float) -> bytes:
        k, queries, bits = int(about["k"]), arrays["queries"], arrays.get("allowed")
        if not 0 < k <= MAX_RESULTS or queries.dtype != np.float32:
            return _refusal("wrong", f"k = {k}, queries of {queries.dtype}")
        allowed = None
        if bits is not None:
            size = int(about["candidates"])
            if not 0 <= size <= 8 * bits.size or bits.dtype != np.uint8:
                return _refusal("wrong", f"{bits.size} bytes of a filter for {size} candidates")
            allowed = np.unpackbits(bits, count=size, bitorder="little").astype(bool)
        names = (str(about[name]) for name in ("release", "surface", "source"))
        release, surface, source = names
        patience = float(about["within_ms"]) / 1e3
        if not self._shards.loads_within(release, patience):
            return _refusal("loading", "it is being loaded")
        with self._searching:
            # the front waits no longer: the search would only delay others
            if time.monotonic() - received > patience:
                return _refusal("late", "the deadline of the request is over")
            result = self._shards.search(release, surface, source, queries, k, allowed)
        if result is None:
            return _refusal("not_here", "that release has no such index in shards")
        return encode({}, {"position": result[0], "score": result[1]})


def _refusal(error: str, detail: str) -> bytes:
    return encode({"error": error, "detail": detail})


class _Connection(socketserver.BaseRequestHandler):
    """One connection of a front: a message, its response, and so on."""

    server: _Tcp | _Unix

    def handle(self) -> None:
        _one_thread_a_search()
        connection: socket.socket = self.request
        connection.settimeout(_IDLE_SECONDS)
        if connection.family != socket.AF_UNIX:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(OSError, CorruptValueError):  # the front is gone, or is no front
            while (body := receive(connection)) is not None:
                connection.sendall(self.server.service.answer(body))


class _Server(socketserver.ThreadingMixIn):
    # a restart does not wait until old connections have timed out
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = _BACKLOG
    service: ShardService


class _Tcp(_Server, socketserver.TCPServer):
    pass


class _Unix(_Server, socketserver.UnixStreamServer):
    allow_reuse_address = False


def run_shard_server(
    config: Config, part: Part, host: str, port: int, path: Path | None = None
) -> None:
    """Serve one part of the tenant's indexes until the process is stopped.

    Args:
        path: of a Unix socket, in place of host and port.

    Raises:
        InputError: the part is not one of ``serving.shards``, or the address is not local and
            there is no key.
        NoReleaseError: there is no release to serve yet.
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
    shards = LoadedShards(open_releases(config), part)
    if not shards.load_served():
        raise NoReleaseError(f"{config.state_path}: no release to serve; run: nextedge build")
    with listening(ShardService(shards, config.tenant, key), host, port, path) as server:
        _log.warning("part %s of %s listens on %s", part, config.tenant, path or f"{host}:{port}")
        # shutdown waits for serve_forever, which this thread runs
        stop = partial(threading.Thread, target=server.shutdown, daemon=True)
        signal.signal(signal.SIGTERM, lambda *_: stop().start())
        try:
            server.serve_forever(poll_interval=0.2)
        finally:
            if path is not None:
                path.unlink(missing_ok=True)


def listening(
    service: ShardService, host: str, port: int, path: Path | None = None
) -> _Tcp | _Unix:
    """A server that is bound to its address; ``serve_forever`` answers.

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
    except (OSError, OverflowError) as error:  # OverflowError: a port beyond 65535
        address = path or f"{host}:{port}"
        raise StorageError(
            f"{address}: cannot listen there: {getattr(error, 'strerror', None) or error}"
        ) from None
    server.service = service
    return server


def _clear(path: Path) -> None:
    """Remove the socket of a killed process, never one that another process answers on.

    Raises:
        OSError: another process listens on it.
    """
    if not path.is_socket():
        return
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(_PROBE_SECONDS)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def _one_thread_a_search() -> None:
    """Use one thread a search: searches run side by side and would compete for the cores."""
    try:
        import faiss
    except ImportError:
        raise MissingDependencyError("faiss-cpu", "ann", "searching an index") from None
    faiss.omp_set_num_threads(1)  # of the calling thread
