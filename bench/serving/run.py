"""What `nextedge serve` answers a second, and how late: the server on one core, the load on another.

    python bench/serving/run.py [--users N] [--tenant DIR] [--rate R] [--seconds S] [--out FILE.json]

A synthetic tenant is built once (or --tenant names one that is) and its candidates are published,
with their features. ``hello`` is the same server with an application that says hello, loaded the
same way in the same run; ratios are to it. Throughput by wrk (Debian's package); latencies at a
fixed rate, each request timed from when it was due, by this script. With Redis where redis-server
is installed; it runs on the core of the load. Takes about ten minutes once the tenant is built.
"""

# ruff: noqa: E402
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
from typing import Any

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # before the imports
    os.environ.setdefault(name, "1")

import httpx2
import numpy as np
import psutil

from nextedge import Recommender
from nextedge.data.synthetic import SyntheticConfig, generate_tenant
from nextedge.serving.publish import most_active

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


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def server(
    command: list[str], probe: str, *, path: Path | None = None, core: str = SERVER_CORE
) -> Iterator[tuple[int, psutil.Process, float]]:
    """A server on one core; yields its port, process and the seconds until it answered."""
    port, started = free_port(), time.perf_counter()
    environment = {
        **os.environ,
        "NEXTEDGE_THREADS": "1",
        "PYTHONPATH": f"{path or ''}:{os.environ.get('PYTHONPATH', '')}",
    }
    process = subprocess.Popen(
        ["taskset", "-c", core, *command, "--port", str(port)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(1200):
            try:
                if httpx2.get(f"http://127.0.0.1:{port}{probe}", timeout=60).status_code == 200:
                    break
            except httpx2.TransportError:
                time.sleep(0.05)
        yield port, psutil.Process(process.pid), time.perf_counter() - started
    finally:
        process.terminate()
        process.wait(60)


def throughput(port: int, paths: list[str], folder: Path, seconds: int = 10) -> dict[str, float]:
    """Requests a second over 32 connections, and errors, by wrk."""
    lua = folder / "paths.lua"
    listed = ", ".join(json.dumps(path) for path in paths)
    lua.write_text(
        f"local paths = {{{listed}}}\nlocal n = 0\n"
        "request = function() n = n % #paths + 1; return wrk.format('GET', paths[n]) end\n"
    )
    command = [
        "taskset",
        "-c",
        LOAD_CORE,
        "wrk",
        "-t1",
        "-c32",
        f"-d{seconds}s",
        "--latency",
        "-s",
        str(lua),
        f"http://127.0.0.1:{port}",
    ]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", text).group(1))  # type: ignore[union-attr]
    errors = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    return {"requests_a_second": rate, "errors": int(errors.group(1)) if errors else 0}


async def latencies(
    port: int, paths: list[str], rate: float, seen: list[tuple[float, bytes]] | None = None
) -> dict[str, float]:
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
        body = await reader.readexactly(length)
        failed += not head.startswith(b"HTTP/1.1 200")
        spent.append((time.perf_counter() - due) * 1e3)
        if seen is not None:
            seen.append((time.perf_counter(), body))
        pool.put_nowait((reader, writer))

    started, tasks = time.perf_counter() + 0.1, []
    for place, path in enumerate(paths):
        due = started + place / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        tasks.append(asyncio.create_task(ask(path, due)))
    await asyncio.gather(*tasks)
    while not pool.empty():
        pool.get_nowait()[1].close()
    return {
        "rate": rate,
        "p50_ms": round(float(np.quantile(spent, 0.5)), 2),
        "p99_ms": round(float(np.quantile(spent, 0.99)), 2),
        "errors": failed,
    }


def stages(port: int) -> dict[str, float]:
    """Mean milliseconds of each stage and surface, by the server's own metrics."""
    text = httpx2.get(f"http://127.0.0.1:{port}/metrics", timeout=30).text
    found: dict[str, dict[str, float]] = {}
    pattern = r'nextedge_stage_seconds_(sum|count)\{stage="(\w+)",surface="(\w+)".*\} ([\d.e+-]+)'
    for kind, stage, surface, value in re.findall(pattern, text):
        found.setdefault(f"{surface} {stage}", {})[kind] = float(value)
    return {name: round(1e3 * v["sum"] / v["count"], 3) for name, v in found.items() if v["count"]}


class Load:
    """Paths of a surface: users in random order, each asked once unless asked again."""

    def __init__(self, users: list[Any]) -> None:
        order = np.random.default_rng(0).permutation(len(users))
        self.users = [users[place] for place in order]
        self.next = 0

    def fresh(self, surface: str, number: int) -> list[str]:
        """Requests of users who were not asked for; from the start again when all were."""
        start, self.next = self.next, self.next + number
        return [
            self.path(surface, self.users[n % len(self.users)]) for n in range(start, self.next)
        ]

    @staticmethod
    def path(surface: str, user: Any) -> str:
        """One request."""
        return f"/v1/{surface}/recommendations?user_id={user}&limit=20"


def uncached(
    tenant: Path, settings: str, users: list[Any], rate: float, seconds: float
) -> dict[str, Any]:
    """Latencies of users who are asked for once, under a configuration of ``[serving]``."""
    config = (tenant / "nextedge.toml").read_text()
    (tenant / "nextedge.toml").write_text(config + settings)
    rows: dict[str, Any] = {}
    try:
        for file in (tenant / "state").glob("candidates.sqlite*"):
            file.unlink()
        if rate >= 100:
            Recommender(tenant).publish(users=len(users))
        for file in (tenant / "state").glob("candidates.sqlite*"):
            file.read_bytes()  # as after some use: in the page cache
        serve = [sys.executable, "-m", "nextedge", "serve", str(tenant)]
        with server(serve, "/health/ready") as (port, _, ready):
            rows["seconds to ready"] = round(ready, 2)
            for surface in ("people", "items"):
                load = Load(users)
                asyncio.run(latencies(port, load.fresh(surface, 50), 20.0))
                paths = load.fresh(surface, int(rate * seconds))
                rows[surface] = asyncio.run(latencies(port, paths, rate))
            rows["stages, mean ms"] = stages(port)
    finally:
        (tenant / "nextedge.toml").write_text(config)
    return rows


def cached(tenant: Path, users: list[Any], folder: Path) -> dict[str, Any]:
    """Requests a second of answers that are kept, all of them and 99 of 100."""
    rows: dict[str, Any] = {}
    config = (tenant / "nextedge.toml").read_text()
    settings = "[serving]\ncandidates_features = true\ndeadline_ms = 0\n"
    (tenant / "nextedge.toml").write_text(config + settings)
    try:
        Recommender(tenant).publish(users=len(users))
        serve = [sys.executable, "-m", "nextedge", "serve", str(tenant)]
        with server(serve, "/health/ready") as (port, _, _):
            for surface in ("people", "items"):
                load = Load(users)
                warm = load.fresh(surface, 100)
                asyncio.run(latencies(port, warm, 20.0))
                rows[f"{surface}, all encoded"] = throughput(port, warm, folder)
                cold = load.fresh(surface, len(users) - 100)
                mixed = [path for new in cold for path in (*warm[:99], new)]  # each new one once
                rows[f"{surface}, 99 % encoded"] = throughput(port, mixed, folder)
                rows[f"{surface}, encoded, latency"] = asyncio.run(
                    latencies(port, warm * 20, 200.0)
                )
    finally:
        (tenant / "nextedge.toml").write_text(config)
    return rows


def swap(tenant: Path, users: list[Any]) -> dict[str, Any]:
    """Seconds from a promotion to the first answer of the new release, and p99 meanwhile."""
    releases = Recommender(tenant).releases
    first = releases.current_id()
    other = releases.directory / "20990101-000000"
    shutil.copytree(releases.directory / str(first), other)
    serve = [sys.executable, "-m", "nextedge", "serve", str(tenant)]
    rows: dict[str, Any] = {}
    try:
        with server(serve, "/health/ready") as (port, _, _):
            load = Load(users)
            asyncio.run(latencies(port, load.fresh("people", 100), 20.0))
            rows["before"] = asyncio.run(latencies(port, load.fresh("people", 500), 50.0))
            seen: list[tuple[float, bytes]] = []

            async def during() -> tuple[dict[str, float], float]:
                asked = asyncio.create_task(latencies(port, load.fresh("people", 500), 50.0, seen))
                await asyncio.sleep(2)
                subprocess.Popen(
                    [
                        "taskset",
                        "-c",
                        LOAD_CORE,
                        sys.executable,
                        "-m",
                        "nextedge",
                        "releases",
                        "promote",
                        other.name,
                        "-c",
                        str(tenant),
                    ],
                    stdout=subprocess.DEVNULL,
                )
                promoted = None
                while promoted is None:
                    await asyncio.sleep(0.01)
                    if releases.current_id() == other.name:
                        promoted = time.perf_counter()
                return await asked, promoted

            rows["during"], promoted = asyncio.run(during())
            new = [at for at, body in seen if other.name.encode() in body]
            rows["seconds to the new release"] = round(min(new) - promoted, 2) if new else None
    finally:
        releases.promote(str(first))
        shutil.rmtree(other)
    return rows


def memory(tenant: Path, users: list[Any]) -> dict[str, Any]:
    """Megabytes of two workers: what each has alone, and its share of what they have together."""
    serve = [sys.executable, "-m", "nextedge", "serve", str(tenant), "--workers", "2"]
    with server(serve, "/health/ready", core="0,1") as (port, process, _):
        load = Load(users)
        asyncio.run(latencies(port, load.fresh("people", 200), 50.0))
        asyncio.run(latencies(port, load.fresh("items", 200), 50.0))
        workers = [
            each for each in process.children(recursive=True) if each.memory_info().rss > 5e7
        ]
        found = [each.memory_full_info() for each in workers]
    return {
        name: [round(getattr(each, name) / 1e6) for each in found] for name in ("rss", "pss", "uss")
    } | {"release_mb": round(sum(f.stat().st_size for f in _release(tenant)) / 1e6)}


def _release(tenant: Path) -> Iterator[Path]:
    recommender = Recommender(tenant)
    folder = recommender.releases.directory / str(recommender.releases.current_id())
    return (file for file in folder.rglob("*") if file.is_file())


@contextmanager
def redis() -> Iterator[str | None]:
    """A redis-server on the core of the load, by its URL; None where none is installed."""
    if shutil.which("redis-server") is None:
        yield None
        return
    port = free_port()
    process = subprocess.Popen(
        [
            "taskset",
            "-c",
            LOAD_CORE,
            "redis-server",
            "--port",
            str(port),
            "--save",
            "",
            "--appendonly",
            "no",
        ],
        stdout=subprocess.DEVNULL,
    )
    try:
        time.sleep(1)
        yield f"redis://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


def main() -> None:
    """Build, serve, load, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=5_000)
    parser.add_argument("--tenant", type=Path)
    parser.add_argument("--rate", type=float, default=200.0)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--only", default="", help="comma-separated parts")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="nextedge-serving-"))
    tenant = given.tenant or work / "tenant"
    if not (tenant / "state").exists():
        generate_tenant(tenant, SyntheticConfig(users=given.users))
        (tenant / "nextedge.toml").write_text(
            "".join(f"[surfaces.{name}]\ncandidates = 1000\n" for name in ("people", "items"))
        )
        Recommender(tenant).build()
    release = Recommender(tenant).release
    asked = most_active(release, int(given.rate * given.seconds) + 50)
    users = release.entities.users.identifiers(asked).to_pylist()
    os.sched_setaffinity(0, {int(LOAD_CORE)})
    rows: dict[str, Any] = {"users": len(release.entities.users)}
    wanted = set(filter(None, given.only.split(",")))

    def part(name: str) -> bool:
        return not wanted or name in wanted

    (work / "hello.py").write_text(HELLO)
    hello = [sys.executable, "-m", "granian", "--interface", "asgi", "hello:app"]
    with server(hello, "/", path=work) as (port, _, _):
        rows["hello"] = throughput(port, ["/"], work)
        rows["hello, latency"] = asyncio.run(latencies(port, ["/"] * 1000, given.rate))
    features = "[serving]\ncandidates_features = true\ndeadline_ms = 0\ncache_entries = 0\n"
    runs = {
        "not kept": "[serving]\ncandidates_kept_an_hour = 0\ndeadline_ms = 0\ncache_entries = 0\n"
        'candidates_store = "memory://"\n',
        "published": f"{features}".replace("candidates_features = true\n", ""),
        "published with features": features,
    }
    with redis() as url:
        if url is not None:
            runs["published with features, Redis"] = features + f'store = "{url}"\n'
        for name, settings in runs.items():
            if part(name):
                rate = 20.0 if name == "not kept" else given.rate
                rows[name] = uncached(tenant, settings, users, rate, given.seconds)
                print(name, json.dumps(rows[name]), flush=True)
    for name, run in (
        ("cached", lambda: cached(tenant, users, work)),
        ("swap", lambda: swap(tenant, users)),
        ("memory of two workers", lambda: memory(tenant, users)),
    ):
        if part(name):
            rows[name] = run()
            print(name, json.dumps(rows[name]), flush=True)
    print(json.dumps(rows, indent=1))
    if given.out:
        given.out.write_text(json.dumps(rows, indent=1) + "\n")
    shutil.rmtree(work)


if __name__ == "__main__":
    main()
