"""The HTTP server: worker processes over the tenants' folders, and its checks at start."""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nextedge.config import FILE_NAME, load_config
from nextedge.cores import THREADS_VARIABLE, thread_count
from nextedge.errors import InputError, NextEdgeError
from nextedge.storage.locations import is_loopback

if TYPE_CHECKING:
    from fastapi import FastAPI

    from nextedge.api.tenants import Tenants

SHARED_VARIABLE = "NEXTEDGE_SHARED"
LOCATIONS_VARIABLE = "NEXTEDGE_LOCATIONS"
KEY_VARIABLE = "NEXTEDGE_API_KEY"
_SWITCH_SECONDS = 0.0005
"""The longest time for which a background thread delays a response."""


def run_server(
    locations: Sequence[Path], host: str, port: int, workers: int, drain_seconds: float = 0.0
) -> None:
    """Serve one tenant or several until stopped.

    Args:
        drain_seconds: time after SIGTERM for which the server still answers, while
            ``/health/ready`` gives 503; then it ends the requests under way, and stops.

    Raises:
        InputError: other machines reach the address and there is no API key, or two tenants share
            a name, folder or key.
        NoReleaseError: a tenant has no release.
    """
    # more threads than cores would only wait for each other
    os.environ.setdefault(THREADS_VARIABLE, str(max(1, thread_count() // workers)))
    with tempfile.TemporaryDirectory(prefix="nextedge-shared-") as shared:
        os.environ[LOCATIONS_VARIABLE] = json.dumps([str(path.resolve()) for path in locations])
        os.environ[SHARED_VARIABLE] = shared
        if workers > 1:  # prometheus_client reads it when it is imported
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = shared
        _check(locations, host)
        gc.collect()  # garbage that is frozen is never freed
        gc.freeze()  # the collector writes to what it visits: pages would no longer be shared
        _server(Path(shared), drain_seconds, address=host, port=port, workers=workers).serve()


def _check(locations: Sequence[Path], host: str) -> None:
    """Open all tenants before the server starts, so that a fault ends it at once."""
    if all(load_config(path).state_url is None for path in locations):
        _look(locations, host)
        return
    # the library that reads a bucket does not work in a fork of a process that has used it
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 0
        try:
            _look(locations, host)
        except NextEdgeError as error:
            code = error.exit_code
            os.write(writing, str(error).encode())
        except BaseException:
            code = 1
            traceback.print_exc()
        finally:
            # exit handlers and buffers belong to the parent, and would run twice
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        message = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code:
        fault = NextEdgeError(message or f"the releases cannot be checked (exit {code})")
        fault.exit_code = code if code > 0 else 1
        raise fault


def _look(locations: Sequence[Path], host: str) -> None:
    """Open all tenants, and warm up the first."""
    # workers are forks of this process: they share the memory of the code that it has loaded
    import nextedge.api.app  # noqa: F401

    tenants = _tenants(locations)
    # one warm-up loads the code of all; of the other releases only files are checked
    for position, tenant in enumerate(tenants):
        if position == 0:
            tenant.recommender.warm_up()
        else:
            tenant.recommender.releases.current()
        tenant.close()
    if not is_loopback(host) and not tenants.closed:
        raise InputError(
            f"--host {host} can be reached by others: make a key first with 'nextedge keys create', "
            f"or set {KEY_VARIABLE} to a secret (clients send it as 'Authorization: Bearer …')"
        )


def _server(shared: Path, drain_seconds: float, **settings: Any) -> Any:
    from granian.constants import Interfaces
    from granian.server import Server

    from nextedge.api.tenants import DRAINING

    class DrainingServer(Server):
        def signal_handler_interrupt(self, number: int, *rest: object) -> None:
            if number != signal.SIGTERM:
                super().signal_handler_interrupt(number, *rest)
                return
            # workers are processes of their own: they see a file, not the signal
            (shared / DRAINING).touch()
            stop = threading.Timer(drain_seconds, super().signal_handler_interrupt)
            stop.daemon = True
            stop.start()

    return DrainingServer(
        "nextedge.api.server:create",
        interface=Interfaces.ASGI,
        factory=True,
        websockets=False,
        **settings,
    )


def create() -> FastAPI:
    """The application of one worker; its folders and key come from the environment."""
    from nextedge.api.app import create_app

    sys.setswitchinterval(_SWITCH_SECONDS)
    locations = [Path(path) for path in json.loads(os.environ[LOCATIONS_VARIABLE])]
    return create_app(_tenants(locations, Path(os.environ[SHARED_VARIABLE])))


def tenants_below(folder: Path) -> list[Path]:
    """The tenants' folders in a folder, by name.

    Raises:
        InputError: the folder has none.
    """
    tenants = sorted(path for path in folder.glob("*/") if (path / FILE_NAME).is_file())
    if not tenants:
        raise InputError(
            f"--tenants {folder}: expected a folder of folders that each hold a {FILE_NAME}"
        )
    return tenants


def _tenants(locations: Sequence[Path], shared: Path | None = None) -> Tenants:
    from nextedge.api.tenants import Tenants
    from nextedge.recommender import Recommender

    recommenders = [Recommender(path) for path in locations]
    return Tenants(recommenders, os.environ.get(KEY_VARIABLE), shared)
