"""Running the HTTP service: worker processes over one folder, and who may call."""

from __future__ import annotations

import ipaddress
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from nextedge.api.keys import ApiKeys
from nextedge.config import load_config
from nextedge.errors import InputError

if TYPE_CHECKING:
    from fastapi import FastAPI

LOCATION_VARIABLE = "NEXTEDGE_LOCATION"
KEY_VARIABLE = "NEXTEDGE_API_KEY"


def run_server(location: Path, host: str, port: int, workers: int) -> None:
    """Serve until stopped.

    Raises:
        InputError: the address is reachable by others and there is no API key.
    """
    from granian.constants import Interfaces
    from granian.server import Server

    keys = ApiKeys(load_config(location).state_path, os.environ.get(KEY_VARIABLE))
    if not _is_loopback(host) and not keys.required:
        raise InputError(
            f"--host {host} can be reached by others: make a key first with 'nextedge keys create', "
            f"or set {KEY_VARIABLE} to a secret (clients send it as 'Authorization: Bearer …')"
        )
    os.environ[LOCATION_VARIABLE] = str(location.resolve())
    with tempfile.TemporaryDirectory(prefix="nextedge-metrics-") as metrics:
        if workers > 1:  # each writes its metrics there, any reads them all
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = metrics
        Server(
            "nextedge.api.server:create", address=host, port=port, workers=workers,
            interface=Interfaces.ASGI, factory=True, websockets=False,
        ).serve()  # fmt: skip


def create() -> FastAPI:
    """The application of one worker; its folder and key come from the environment."""
    from nextedge.api.app import create_app
    from nextedge.recommender import Recommender

    return create_app(Recommender(os.environ[LOCATION_VARIABLE]), os.environ.get(KEY_VARIABLE))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
