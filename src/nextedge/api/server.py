"""Running the HTTP service: worker processes over one folder, and who may call."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import TYPE_CHECKING

from nextedge.errors import InputError

if TYPE_CHECKING:
    from fastapi import FastAPI

LOCATION_VARIABLE = "NEXTEDGE_LOCATION"
KEY_VARIABLE = "NEXTEDGE_API_KEY"


def run_server(location: Path, host: str, port: int, workers: int) -> None:
    """Serve until stopped.

    Raises:
        InputError: the address is reachable by others and no API key is set.
    """
    from granian.constants import Interfaces
    from granian.server import Server

    if not _is_loopback(host) and not os.environ.get(KEY_VARIABLE):
        raise InputError(
            f"--host {host} can be reached by others: set {KEY_VARIABLE} to a secret first "
            f"(clients send it as 'Authorization: Bearer …')"
        )
    os.environ[LOCATION_VARIABLE] = str(location.resolve())
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
