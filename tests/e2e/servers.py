"""Starting the service as a process of its own."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nextedge import Recommender


def small_tenant(folder: Path, settings: str = "") -> Path:
    """A built tenant of forty people with whole numbers as ids, named as its folder."""
    Recommender(small_tables(folder, settings + QUICK)).build()
    return folder


QUICK = '[surfaces.people.ranker]\ncompare = ["best_source"]\n'
"""For tests of the line: no ranker is trained, the best source's order is served."""


def small_tables(folder: Path, settings: str = QUICK) -> Path:
    """Tables and settings of such a tenant."""
    folder.mkdir(parents=True)
    edges = np.random.default_rng(len(folder.name)).integers(0, 40, (300, 2))
    table = pa.table({"src": edges[:, 0], "dst": edges[:, 1]})
    pq.write_table(table, folder / "connections.parquet")
    (folder / "nextedge.toml").write_text(f'tenant = "{folder.name}"\n{settings}')
    return folder


class Running:
    """A started server of all tenants of a folder."""

    def __init__(self, home: Path, *options: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        command = [sys.executable, "-m", "nextedge", "serve", "--tenants", str(home)]
        self.log = home.parent / f"{home.name}.log"
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [*command, "--port", str(self.port), *options], stdout=output, stderr=output
            )
        self.url = f"http://127.0.0.1:{self.port}"

    def stop(self) -> None:
        """End it with its workers, which would outlive a killed parent."""
        self.process.send_signal(signal.SIGINT)
        self.process.wait(timeout=60)

    def get(self, path: str, key: str = "", **given: object) -> httpx2.Response:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return httpx2.get(self.url + path, headers=headers, timeout=60, **given)  # type: ignore[arg-type]

    def wait_until_ready(self) -> None:
        for _ in range(300):
            assert self.process.poll() is None, self.log.read_text()
            try:
                if self.get("/health/ready").status_code == 200:
                    return
            except httpx2.TransportError:
                time.sleep(0.2)
        pytest.fail(f"not ready after a minute: {self.log.read_text()}")
