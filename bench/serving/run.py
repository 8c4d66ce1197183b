"""What `nextedge serve` answers a second, and how late: the server on one core, the load on another.

    python bench/serving/run.py [--users N] [--tenant DIR] [--out FILE.json]

A synthetic tenant is built once (or --tenant names one that is). ``hello`` is the same server with an
application that says hello, loaded the same way in the same run. Throughput by wrk (Debian's
package); latencies at a fixed rate, each request timed from when it was due, by this script.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import numpy as np

from nextedge import Recommender
from nextedge.data.synthetic import SyntheticConfig, generate_tenant

SERVER_CORE, LOAD_CORE = "0", "1"
HELLO = """
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    await send({"type": "http.response.start", "status": 200,
                "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": b'{"hello": "%s"}' % (b"x" * 2300)})
"""


@contextmanager
def server(command: list[str], folder: Path, probe: str) -> Iterator[int]:
    """A server on one core; yields its port once it answers."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    environment = {**os.environ, "NEXTEDGE_THREADS": "1", "OMP_NUM_THREADS": "1",
                   "PYTHONPATH": f"{folder}:{os.environ.get('PYTHONPATH', '')}"}  # fmt: skip
    process = subprocess.Popen(
        ["taskset", "-c", SERVER_CORE, *command, "--port", str(port)], env=environment,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        for _ in range(600):
            try:
                if httpx2.get(f"http://127.0.0.1:{port}{probe}", timeout=60).status_code == 200:
                    break
            except httpx2.TransportError:
                time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        process.wait(30)


def throughput(port: int, paths: list[str], folder: Path, seconds: int = 10) -> dict[str, float]:
    """Requests a second over 32 connections, and errors, by wrk."""
    lua = folder / "paths.lua"
    listed = ", ".join(json.dumps(path) for path in paths)
    lua.write_text(
        f"local paths = {{{listed}}}\nlocal n = 0\n"
        "request = function() n = n % #paths + 1; return wrk.format('GET', paths[n]) end\n"
    )
    command = ["taskset", "-c", LOAD_CORE, "wrk", "-t1", "-c32", f"-d{seconds}s", "--latency",
               "-s", str(lua), f"http://127.0.0.1:{port}"]  # fmt: skip
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", text).group(1))  # type: ignore[union-attr]
    errors = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    return {"requests_a_second": rate, "errors": int(errors.group(1)) if errors else 0}


async def latencies(port: int, paths: list[str], rate: float) -> dict[str, float]:
    """Milliseconds of each request from when it was due, at a fixed rate over 16 connections."""
    pool: asyncio.Queue = asyncio.Queue()
    for _ in range(16):
        pool.put_nowait(await asyncio.open_connection("127.0.0.1", port))
    spent, failed = [], 0

    async def ask(path: str, due: float) -> None:
        nonlocal failed
        reader, writer = await pool.get()
        writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(re.search(rb"content-length: (\d+)", head, re.I).group(1))  # type: ignore[union-attr]
        await reader.readexactly(length)
        failed += not head.startswith(b"HTTP/1.1 200")
        spent.append((time.perf_counter() - due) * 1e3)
        pool.put_nowait((reader, writer))

    started, tasks = time.perf_counter() + 0.1, []
    for place, path in enumerate(paths):
        due = started + place / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        tasks.append(asyncio.create_task(ask(path, due)))
    await asyncio.gather(*tasks)
    return {
        "rate": rate, "p50_ms": round(float(np.quantile(spent, 0.5)), 2),
        "p99_ms": round(float(np.quantile(spent, 0.99)), 2), "errors": failed,
    }  # fmt: skip


def stages(port: int) -> dict[str, float]:
    """Mean milliseconds of each stage and surface, by the server's own metrics."""
    text = httpx2.get(f"http://127.0.0.1:{port}/metrics", timeout=30).text
    found: dict[str, dict[str, float]] = {}
    pattern = r'nextedge_stage_seconds_(sum|count)\{stage="(\w+)",surface="(\w+)".*\} ([\d.e+-]+)'
    for kind, stage, surface, value in re.findall(pattern, text):
        found.setdefault(f"{surface} {stage}", {})[kind] = float(value)
    return {name: round(1e3 * v["sum"] / v["count"], 3) for name, v in found.items() if v["count"]}


def main() -> None:
    """Build, serve, load, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=5_000)
    parser.add_argument("--tenant", type=Path)
    parser.add_argument("--rate", type=float, default=50.0)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="nextedge-serving-"))
    tenant = given.tenant or work / "tenant"
    if not (tenant / "state").exists():
        generate_tenant(tenant, SyntheticConfig(users=given.users))
        Recommender(tenant).build()
    users = Recommender(tenant).release.entities.users.values.to_pylist()
    os.sched_setaffinity(0, {int(LOAD_CORE)})
    order = np.random.default_rng(0).permutation(len(users))
    rows: dict[str, object] = {}
    (work / "hello.py").write_text(HELLO)
    hello = [sys.executable, "-m", "granian", "--interface", "asgi", "hello:app"]
    with server(hello, work, "/") as port:
        rows["hello"] = throughput(port, ["/"], work)
        rows["hello latency"] = asyncio.run(latencies(port, ["/"] * 1000, 200.0))
    serve = [sys.executable, "-m", "nextedge", "serve", str(tenant)]
    with server(serve, work, "/health/ready") as port:
        for surface in ("people", "items"):
            paths = [f"/v1/{surface}/recommendations?user_id={users[u]}&limit=20" for u in order]
            warm, cold = paths[:100], paths[100:1100]
            asyncio.run(latencies(port, warm, 20.0))
            rows[f"{surface}, not cached"] = asyncio.run(latencies(port, cold, given.rate))
            rows[f"{surface}, encoded"] = throughput(port, warm, work)
            rows[f"{surface}, encoded, latency"] = asyncio.run(latencies(port, warm * 20, 200.0))
        rows["stages, mean ms"] = stages(port)
    print(json.dumps(rows, indent=1))
    if given.out:
        given.out.write_text(json.dumps(rows, indent=1) + "\n")
    shutil.rmtree(work)


if __name__ == "__main__":
    main()
