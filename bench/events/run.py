"""What the event line does a second, and how soon it tells.

    python bench/events/run.py [--only append apply merge fresh replicas] [--users N] [--tenant DIR] [--out FILE.json]

append    durable events a second of the local log by batch and threads, beside the disk's own rate
          of syncing and SQLite's rate of committing one row
apply     applying.py: events a second that are folded out of the log into an overlay, on one core
merge     merging live edges into the graphs of a release, beside copying the same arrays
fresh     from the 202 of a connect to another list of candidates for both people, over HTTP
replicas  the same with two replicas that share a Redis stream, and from the 202 of a block on one
          to an answer without the person on the other
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "serving"))

import httpx2
import numpy as np
from applying import measure, mixed
from run import free_port, server

from nextedge import Recommender
from nextedge.data.synthetic import SyntheticConfig, generate_tenant
from nextedge.events.event import Event
from nextedge.events.logs.sqlite.log import LocalLog
from nextedge.graph.changes import EdgeChanges, changed
from nextedge.graph.csr import build_graph, mirrored

SEED = 7


def rate(count: int, began: float) -> int:
    """A second, rounded."""
    return round(count / (time.perf_counter() - began))


def append(folder: Path) -> dict[str, Any]:
    """Durable events a second."""
    seconds = 3.0
    found: dict[str, Any] = {}
    with (folder / "synced").open("wb") as file:
        began, count = time.perf_counter(), 0
        while time.perf_counter() - began < seconds:
            file.write(b"x" * 4096)
            file.flush()
            os.fsync(file.fileno())
            count += 1
        found["disk_syncs_a_second"] = rate(count, began)
    connection = sqlite3.connect(folder / "rows.sqlite")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE rows (body TEXT)")
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        with connection:
            connection.execute("INSERT INTO rows VALUES (?)", ("x" * 200,))
        count += 1
    found["sqlite_commits_a_second"] = rate(count, began)
    for threads in (1, 8):
        for batch in (1, 100, 1000):
            log = LocalLog(folder / f"log-{threads}-{batch}")
            events = mixed(min(40_000, 4000 * batch), 5000)
            batches = [events[start : start + batch] for start in range(0, len(events), batch)]
            stop = time.perf_counter() + seconds

            def put(part: list[Event], log: LocalLog = log, stop: float = stop) -> int:
                if time.perf_counter() > stop:
                    return 0
                log.append(part)
                return len(part)

            began = time.perf_counter()
            with ThreadPoolExecutor(threads) as pool:
                stored = sum(pool.map(put, batches))
            name = f"threads_{threads}_batch_{batch}"
            found[name] = rate(stored, began)
            found[f"{name}_over_disk_syncs"] = round(found[name] / found["disk_syncs_a_second"], 2)
            log.close()
    return found


def merge() -> dict[str, Any]:
    """Milliseconds to merge 1,000 live edges into a graph, beside a copy of its arrays."""
    found = {}
    for edges in (1_000_000, 10_000_000):
        nodes = edges // 10
        chance = np.random.default_rng(SEED)
        ends = chance.integers(0, nodes, (2, edges // 2), dtype=np.int32)
        stamps = chance.integers(1, 2**40, edges // 2)
        source, target, time_ = mirrored(ends[0], ends[1], stamps)
        graph = build_graph(source, target, nodes, nodes, None, time_)  # type: ignore[arg-type]
        fresh = chance.integers(0, nodes, (2, 1000), dtype=np.int32)
        records = EdgeChanges(fresh[0], fresh[1], np.ones(1000, np.float32), np.full(1000, 2**41))
        changed(graph, records.mirrored())  # compiled
        spent, copied = [], []
        for _ in range(5):
            began = time.perf_counter()
            changed(graph, records.mirrored())
            spent.append(time.perf_counter() - began)
            began = time.perf_counter()
            for part in (graph.indptr, graph.indices, graph.weight, graph.first, graph.last):
                part.copy()
            copied.append(time.perf_counter() - began)
        found[f"entries_{graph.edges}"] = {
            "merge_ms": round(min(spent) * 1e3, 1),
            "copy_ms": round(min(copied) * 1e3, 1),
            "ratio": round(min(spent) / min(copied), 2),
        }
    return found


class Asker:
    """Questions and events over HTTP."""

    def __init__(self, port: int) -> None:
        self.client = httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=30)

    def shown(self, user: Any, limit: int = 50) -> list[Any]:
        """Ids of a people list."""
        answer = self.client.get(
            "/pymk/recommendations", params={"user_id": str(user), "limit": limit}
        )
        return [each["candidate_id"] for each in answer.json()["recommendations"]]

    def record(self, **event: Any) -> None:
        """Record one event; 202 or nothing."""
        assert self.client.post("/v1/events", json=event).status_code == 202


def pairs(tenant: Path, count: int) -> Iterator[tuple[Any, Any]]:
    """Distinct pairs of people who have friends, but not each other."""
    release = Recommender(tenant).release
    users, graph = release.entities.users, release.snapshot.connections
    busy = np.flatnonzero(graph.degree >= 5).tolist()
    chance = random.Random(SEED)
    chance.shuffle(busy)
    for one, other in zip(busy[:count], busy[count : 2 * count], strict=True):
        if other not in graph.row(one):
            yield users.identifier(one), users.identifier(other)


def changed_for_both(ask: list[Asker], tenant: Path, count: int) -> dict[str, Any]:
    """Milliseconds from the 202 until both lists differ in more than that the other is gone."""
    spent, late = [], 0
    for one, other in pairs(tenant, count):
        before = {user: ask[-1].shown(user) for user in (one, other)}
        ask[0].record(type="accept", user_id=one, candidate_id=other)
        began, waiting = time.perf_counter(), {one, other}
        while waiting and time.perf_counter() - began < 5:
            for user in list(waiting):
                now = ask[-1].shown(user)
                kept = [each for each in before[user] if each not in (one, other)]
                if now[: len(kept)] != kept:
                    waiting.discard(user)
            time.sleep(0.005)
        late += bool(waiting)
        spent.append((time.perf_counter() - began) * 1e3)
    return {
        "connects": len(spent),
        "p50_ms": round(float(np.quantile(spent, 0.5)), 1),
        "p99_ms": round(float(np.quantile(spent, 0.99)), 1),
        "not_within_5_s": late,
    }


def fresh(tenant: Path, folder: Path, settings: str = "") -> dict[str, Any]:
    """One process, the local log."""
    copy = folder / "embedded"
    shutil.copytree(tenant, copy)
    with (copy / "nextedge.toml").open("a") as given:
        given.write(settings)
    command = [sys.executable, "-m", "nextedge", "serve", "-c", str(copy)]
    with server(command, "/health/ready") as (port, _, _):
        return changed_for_both([Asker(port)], copy, 200)


@contextmanager
def redis() -> Iterator[str]:
    """A redis-server that syncs before it answers."""
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        process = subprocess.Popen(
            [
                "redis-server",
                "--port",
                str(port),
                "--dir",
                folder,
                "--save",
                "",
                "--appendonly",
                "yes",
                "--appendfsync",
                "always",
            ],
            stdout=subprocess.DEVNULL,
        )
        time.sleep(1)
        try:
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            process.terminate()
            process.wait()


def replicas(tenant: Path, folder: Path) -> dict[str, Any]:
    """Two processes with a release each, and one stream."""
    with ExitStack() as stack:
        url, ask = stack.enter_context(redis()), []
        for name in ("one", "two"):
            shutil.copytree(tenant, folder / name)
            with (folder / name / "nextedge.toml").open("a") as settings:
                settings.write(f'[events]\nlog = "{url}"\n')
            command = [sys.executable, "-m", "nextedge", "serve", "-c", str(folder / name)]
            core = "0" if name == "one" else "1"
            port, _, _ = stack.enter_context(server(command, "/health/ready", core=core))
            ask.append(Asker(port))
        found = {"connect": changed_for_both(ask, folder / "one", 200)}
        spent, seen = [], 0
        for user, _ in pairs(folder / "one", 400):
            shown = ask[1].shown(user, 10)
            if not shown:
                continue
            ask[1].shown(user, 10)  # kept, in bytes
            ask[0].record(type="block", user_id=user, candidate_id=shown[0])
            began = time.perf_counter()
            seen += shown[0] in ask[1].shown(user, 10)
            spent.append((time.perf_counter() - began) * 1e3)
        found["block"] = {
            "blocks": len(spent),
            "blocked_shown_on_the_other_replica": seen,
            "next_answer_p50_ms": round(float(np.quantile(spent, 0.5)), 1),
            "next_answer_p99_ms": round(float(np.quantile(spent, 0.99)), 1),
        }
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parts = ["append", "apply", "merge", "fresh", "replicas"]
    parser.add_argument("--only", nargs="+", choices=parts, default=parts)
    parser.add_argument("--users", type=int, default=5000)
    parser.add_argument("--tenant", type=Path, help="a built tenant; it is not changed")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="events-"))
    found: dict[str, Any] = {}
    try:
        tenant = given.tenant
        if tenant is None and {"fresh", "replicas"} & set(given.only):
            tenant = folder / "tenant"
            generate_tenant(tenant, SyntheticConfig(users=given.users, seed=3))
            Recommender(tenant).build()
        measured = {
            "append": lambda: append(folder),
            "apply": lambda: measure(200_000, 20_000),
            "merge": merge,
            "fresh": lambda: fresh(tenant, folder),
            "replicas": lambda: replicas(tenant, folder),
        }
        for part in given.only:
            found[part] = measured[part]()
            print(f"{part}: {json.dumps(found[part])}", file=sys.stderr)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(found, indent=1))
    if given.out:
        known = json.loads(given.out.read_text()) if given.out.exists() else {}
        given.out.write_text(json.dumps(known | found, indent=1) + "\n")


if __name__ == "__main__":
    main()
