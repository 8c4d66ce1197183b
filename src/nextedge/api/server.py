"""Running the HTTP service: worker processes over the tenants' folders, and who may call."""

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
"""How long a thread in the background, that writes a log, may keep an answer waiting."""


def run_server(
    locations: Sequence[Path], host: str, port: int, workers: int, drain_seconds: float = 0.0
) -> None:
    """Serve one tenant or several until stopped.

    Args:
        drain_seconds: after SIGTERM it still answers for so long, while ``/health/ready`` says 503
            so that it is sent no more; then it answers what is under way, and ends.

    Raises:
        InputError: the address is reachable by others and there is no API key, or the tenants
            cannot be told apart.
        NoReleaseError: a tenant has nothing to serve.
    """
    # each worker its share of the cores: more threads than cores only wait for each other
    os.environ.setdefault(THREADS_VARIABLE, str(max(1, thread_count() // workers)))
    with tempfile.TemporaryDirectory(prefix="nextedge-shared-") as shared:
        os.environ[LOCATIONS_VARIABLE] = json.dumps([str(each.resolve()) for each in locations])
        os.environ[SHARED_VARIABLE] = shared
        if workers > 1:  # each writes its metrics there; read when their package is imported
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = shared
        _check(locations, host)
        gc.collect()
        gc.freeze()  # what is never collected is never written to, so stays shared
        _server(Path(shared), drain_seconds, address=host, port=port, workers=workers).serve()


def _check(locations: Sequence[Path], host: str) -> None:
    """Fail now, not at the first request.

    Where a tenant's state is in a bucket another process looks: the library that reads it does
    not work in processes that are forked from one that has used it.
    """
    if all(load_config(each).state_url is None for each in locations):
        _look(locations, host)
        return
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
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading) as told:
        message = told.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code:
        fault = NextEdgeError(message or f"the releases cannot be checked (exit {code})")
        fault.exit_code = code if code > 0 else 1
        raise fault


def _look(locations: Sequence[Path], host: str) -> None:
    """Open all tenants.

    The first tenant is warmed up here: workers are forked from this process, and share the
    memory of code and compiled kernels that are loaded before.
    """
    import nextedge.api.app  # noqa: F401

    tenants = _tenants(locations)
    for place, tenant in enumerate(tenants):
        if place == 0:
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
    locations = [Path(each) for each in json.loads(os.environ[LOCATIONS_VARIABLE])]
    return create_app(_tenants(locations, Path(os.environ[SHARED_VARIABLE])))


def tenants_below(folder: Path) -> list[Path]:
    """The tenants' folders of a folder, by name.

    Raises:
        InputError: there are none.
    """
    found = sorted(each for each in folder.glob("*/") if (each / FILE_NAME).is_file())
    if not found:
        raise InputError(
            f"--tenants {folder}: expected a folder of folders that each hold a {FILE_NAME}"
        )
    return found


def _tenants(locations: Sequence[Path], shared: Path | None = None) -> Tenants:
    from nextedge.api.tenants import Tenants
    from nextedge.recommender import Recommender

    recommenders = [Recommender(each) for each in locations]
    return Tenants(recommenders, os.environ.get(KEY_VARIABLE), shared)
