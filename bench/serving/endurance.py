"""Half an hour of mixed load with swaps, events and a Redis that dies: errors, and memory over time.

    python bench/serving/endurance.py [--tenant DIR] [--users N] [--minutes 30] [--rate 40] [--out FILE.json]

Two workers over a copy of the tenant. Recommendations of both surfaces, similar items and embeddings at
a fixed rate, events beside them; every 60 seconds another release is promoted or rolled back, every
90 seconds Redis is killed with what it holds and started again. No request may fail: what is counted
as an error is a status of 500 or more, or a connection that breaks.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import psutil
from run import free_port, server

from nextedge import Recommender
from nextedge.data.synthetic import SyntheticConfig, generate_tenant

OTHER = "20990101-000000"


class Redis:
    """A redis-server that is killed and started again."""

    def __init__(self) -> None:
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, empty."""
        self.process = subprocess.Popen(
            [
                "redis-server",
                "--port",
                str(self.port),
                "--save",
                "",
                "--appendonly",
                "no",
                "--maxmemory",
                "512mb",
                "--maxmemory-policy",
                "allkeys-lru",
            ],
            stdout=subprocess.DEVNULL,
        )

    def kill(self) -> None:
        """Without a word to anybody."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()


class Mixed:
    """Requests and events over a few connections."""

    def __init__(self, port: int, users: list[Any], items: list[Any], seed: int = 0) -> None:
        self.port, self.users, self.items = port, users, items
        self.random = np.random.default_rng(seed)
        self.statuses: Counter[str] = Counter()
        self.degraded: Counter[str] = Counter()
        self.releases: Counter[str] = Counter()
        self.spent_ms: list[float] = []

    def draw(self) -> tuple[str, str, bytes]:
        """Method, path and body of one request."""
        user, item = self.random.choice(self.users), self.random.choice(self.items)
        kind = self.random.random()
        if kind < 0.55:
            user = self.users[int(self.random.zipf(1.3)) % len(self.users)]  # some come often
            surface = "people" if kind < 0.3 else "items"
            return "GET", f"/v1/{surface}/recommendations?user_id={user}&limit=20", b""
        if kind < 0.65:
            return "GET", f"/v1/items/similar?id={item}", b""
        if kind < 0.7:
            return "GET", f"/v1/embeddings/item/{item}", b""
        if kind < 0.75:
            return "GET", f"/v1/people/recommendations?user_id=new-{user}&context=mobile", b""
        if kind < 0.8:
            path = f"/v1/people/recommendations?user_id={user}&explain=true&exclude={self.users[0]}"
            return "GET", path, b""
        events = [
            "connect",
            "dismiss",
            "block",
            "unblock",
            "impression",
            "interact",
            "opt_out",
            "opt_in",
        ]
        name = str(self.random.choice(events))
        event: dict[str, Any] = {"type": name, "user_id": str(user)}
        if name == "interact":
            event["item_id"] = str(item)
        elif name not in ("opt_out", "opt_in"):
            event["candidate_id"] = str(
                self.random.choice([u for u in self.users[:50] if u != user])
            )
        return "POST", "/v1/events", json.dumps(event).encode()

    async def one(self, pool: asyncio.Queue) -> None:
        """One request on a connection of the pool."""
        reader, writer = await pool.get()
        method, path, body = self.draw()
        started = time.perf_counter()
        try:
            if writer is None:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            head = (
                f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(body)}\r\n\r\n"
            )
            writer.write(head.encode() + body)
            answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
            length = next(
                int(line.split(b":")[1])
                for line in answer.lower().split(b"\r\n")
                if line.startswith(b"content-length")
            )
            content = await reader.readexactly(length)
            status = answer.split(b" ", 2)[1].decode()
            self.statuses[status] += 1
            if b'"degraded":["' in content:
                self.degraded[json.loads(content)["degraded"][0]] += 1
            if b'"release":"' in content:
                self.releases[content.partition(b'"release":"')[2][:15].decode()] += 1
            self.spent_ms.append((time.perf_counter() - started) * 1e3)
        except (OSError, asyncio.IncompleteReadError, TimeoutError, ValueError) as error:
            self.statuses[type(error).__name__] += 1
            reader = writer = None
        pool.put_nowait((reader, writer))

    async def run(self, seconds: float, rate: float) -> None:
        """Requests at a fixed rate."""
        pool: asyncio.Queue = asyncio.Queue()
        for _ in range(16):
            pool.put_nowait((None, None))
        started, number, tasks = time.perf_counter(), 0, set()
        while (due := number / rate) < seconds:
            await asyncio.sleep(max(0.0, started + due - time.perf_counter()))
            task = asyncio.create_task(self.one(pool))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            number += 1
        await asyncio.gather(*tasks)


async def trouble(
    tenant: Path, redis: Redis, process: psutil.Process, seconds: float
) -> dict[str, Any]:
    """Swaps, deaths of Redis, and a look at memory every 30 seconds."""
    releases = Recommender(tenant).releases
    first = str(releases.current_id())
    memory: list[tuple[int, list[int]]] = []
    done: Counter[str] = Counter()
    started = time.monotonic()
    for tick in range(1, int(seconds // 30) + 1):
        await asyncio.sleep(max(0.0, started + tick * 30 - time.monotonic()))
        workers = [
            each for each in process.children(recursive=True) if each.memory_info().rss > 5e7
        ]
        memory.append((tick * 30, [round(each.memory_full_info().uss / 1e6) for each in workers]))
        print(tick * 30, memory[-1][1], flush=True)
        if tick % 2 == 0:
            name = OTHER if releases.current_id() == first else first
            await asyncio.to_thread(releases.promote, name)
            done["swaps"] += 1
        if tick % 3 == 0:
            redis.kill()
            await asyncio.sleep(2)
            redis.start()
            done["deaths of Redis"] += 1
    return {"memory_mb": memory, **done}


def main() -> None:
    """Build, serve, load, trouble, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tenant", type=Path)
    parser.add_argument("--users", type=int, default=2_000)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--rate", type=float, default=40.0)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="nextedge-endurance-"))
    tenant = work / "tenant"
    if given.tenant:
        skipped = shutil.ignore_patterns(
            "work", "candidates.sqlite*", "requests.sqlite*", "events.sqlite*"
        )
        shutil.copytree(given.tenant, tenant, ignore=skipped)
    else:
        generate_tenant(tenant, SyntheticConfig(users=given.users))
        Recommender(tenant).build()
    redis = Redis()
    redis.start()
    config = (tenant / "nextedge.toml").read_text() if (tenant / "nextedge.toml").exists() else ""
    (tenant / "nextedge.toml").write_text(
        config
        + f'[serving]\nstore = "redis://127.0.0.1:{redis.port}"\ncandidates_features = true\n'
    )
    release = Recommender(tenant).release
    folder = release.release.path.parent
    shutil.copytree(folder / release.id, folder / OTHER)
    users = release.entities.users.values.to_pylist()
    items = release.entities.items.values.to_pylist()
    serve = [sys.executable, "-m", "nextedge", "serve", str(tenant), "--workers", "2"]
    seconds = given.minutes * 60
    with server(
        serve, "/health/ready", core=",".join(map(str, sorted(os.sched_getaffinity(0))))
    ) as (port, process, _):
        load = Mixed(port, users, items)

        async def both() -> dict[str, Any]:
            found, _ = await asyncio.gather(
                trouble(tenant, redis, process, seconds), load.run(seconds, given.rate)
            )
            return found

        found = asyncio.run(both())
    redis.kill()
    faults = {s: n for s, n in load.statuses.items() if not s.isdigit() or int(s) >= 500}
    rows = {
        "minutes": given.minutes,
        "requests": sum(load.statuses.values()),
        "statuses": dict(load.statuses),
        "faults": faults,
        "degraded": dict(load.degraded),
        "answers by release": dict(load.releases),
        "p50_ms": round(float(np.quantile(load.spent_ms, 0.5)), 2),
        "p99_ms": round(float(np.quantile(load.spent_ms, 0.99)), 2),
        **found,
    }
    print(json.dumps(rows, indent=1))
    if given.out:
        given.out.write_text(json.dumps(rows, indent=1) + "\n")
    shutil.rmtree(work)


if __name__ == "__main__":
    main()
