"""Measures one synthetic tenant, in a process of its own: ``measure.py`` starts it.

    python bench/plan/tenant.py build USERS | graph USERS | degree DEGREE | worker FOLDER

``build`` builds both surfaces and asks it over the application, without a network between;
``graph`` builds larger ones with next to no training, for what grows with the history; ``degree`` asks tenants of the same size that have more connections and items a user. Prints one JSON line.
"""

from __future__ import annotations

import os
import sys

if sys.argv[1] == "worker":  # one process of `nextedge serve` has one thread for its numbers
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import asyncio
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from parts import Clock, held_mib, watch

from nextedge import Recommender
from nextedge.api.app import create_app
from nextedge.build import evaluate
from nextedge.build.cache.resource_usage import measured
from nextedge.data.synthetic import SyntheticConfig, generate_tenant
from nextedge.graph.snapshot import Snapshot
from nextedge.planning.workload import Size
from nextedge.progress import quiet
from nextedge.serving.caches.lru import Cache
from nextedge.serving.caches.precomputed import CachedCandidates, packed
from nextedge.serving.caches.shared_lru import pack_ranked
from nextedge.serving.messages import RecommendationRequest
from nextedge.serving.request import answer
from nextedge.types import Requests

ASKED = 150
SAMPLED = 256
DEGREE_USERS = 1000
_SERVING = "[serving]\ncache_entries = 0\ndeadline_ms = 0\ncandidates_features = {features}\n"
_SHORT = """
[surfaces.{0}.ranker]
model = "lightgbm"
compare = ["lightgbm"]
max_rows = 1000
trees = 10
"""
_ONE_SWEEP = """
[surfaces.items.sources.als]
options = { sweeps = 1 }
"""
_QUICK = """
[surfaces.{0}.ranker]
model = "lightgbm"
compare = ["lightgbm"]
max_rows = 15000
"""


def size_of(snapshot: Snapshot, impressions: int) -> Size:
    """What there is of everything, counted."""
    degree = snapshot.connections.degree.astype(float)
    return Size(
        users=len(snapshot.entities.users),
        entries=float(degree.sum()),
        wedges=float((degree**2).sum()),
        items=len(snapshot.entities.items),
        interactions=snapshot.engagements.edges,
        impressions=impressions,
    )


def measure_graph(folder: Path, users: int) -> dict[str, Any]:
    """A build whose training and evaluation are cut short: what is left grows with the history."""
    rows = generate_tenant(folder, SyntheticConfig(users=users, items=users // 2))
    (folder / "nextedge.toml").write_text(
        _SHORT.format("people") + _SHORT.format("items") + _ONE_SWEEP
    )
    evaluate.MAX_QUERIES = SAMPLED
    clock = Clock()
    watch(clock)
    recommender = Recommender(folder)
    recommender.build()
    costs = recommender.releases.get(recommender.release.id).costs()
    found = _of_steps(costs, clock) | _of_parts(clock)
    for quantity in ("cpu", "wall"):
        del found[f"{quantity} fit items als"]  # of one sweep, of the ten that it takes
    bounded = ("fusion", "labels", "training", "queries")
    values = {
        law: value
        for law, value in found.items()
        if not law.startswith("step") and law.split()[1] not in bounded
    }
    return {
        "size": asdict(size_of(recommender.release.snapshot, rows["impressions"])),
        "values": values,
    }


def measure_build(folder: Path, users: int) -> dict[str, Any]:
    """A whole build, and its release asked."""
    rows = generate_tenant(folder, SyntheticConfig(users=users, items=users // 2))
    (folder / "nextedge.toml").write_text(
        "[surfaces.people.sources.graphsage]\nenabled = false\n[surfaces.items]\n"
    )
    clock = Clock()
    watch(clock)
    recommender = Recommender(folder)
    with measured(folder / "nothing") as usage:
        recommender.build()
    costs = recommender.releases.get(recommender.release.id).costs()
    values = _of_steps(costs, clock) | _of_parts(clock)
    steps = sum(row["cpu_seconds"] for row in costs), sum(row["seconds"] for row in costs)
    values |= {
        "cpu release": max(usage.cpu_seconds - steps[0], 0.0),
        "wall release": max(usage.seconds - steps[1], 0.0),
        "cpu all": usage.cpu_seconds,
        "wall all": usage.seconds,
        "memory all": usage.peak_memory_mib,
    }
    values |= {f"count {name}": float(np.mean(found)) for name, found in clock.counted.items()}
    values |= _networks(recommender, clock) | _publishing(recommender)
    size = size_of(recommender.release.snapshot, rows["impressions"])
    return {"size": asdict(size), "values": values | _asked(folder, recommender)}


def measure_degree(folder: Path, degree: int) -> dict[str, Any]:
    """Requests of a tenant whose users have so many connections, and two thirds as many items."""
    tenant = SyntheticConfig(
        users=DEGREE_USERS,
        items=DEGREE_USERS,
        mean_degree=degree,
        interactions_per_user=degree / 1.5,
    )
    rows = generate_tenant(folder, tenant)
    (folder / "nextedge.toml").write_text(_QUICK.format("people") + _QUICK.format("items"))
    recommender = Recommender(folder)
    recommender.build()
    size = size_of(recommender.release.snapshot, rows["impressions"])
    return {"size": asdict(size), "values": _asked(folder, recommender, by_candidate=True)}


def _of_steps(costs: list[dict[str, Any]], clock: Clock) -> dict[str, float]:
    """Whole steps, and their memory and output, by ``build.json``.

    Memory is what a step takes beyond what the steps before it left, and what the first began with.
    """
    found, base = {}, next(iter(clock.begun_mib.values()))
    for row in costs:
        surface = row.get("surface")
        name = row["step"] if surface is None else f"{row['step']} {surface}"
        own = max(row["peak_memory_mib"] - clock.begun_mib[name], 0.0)
        found |= {
            f"step cpu {name}": row["cpu_seconds"],
            f"step wall {name}": row["seconds"],
            f"memory {name}": base + own,
            f"output {name}": row["output_mib"],
        }
    return found


def _of_parts(clock: Clock) -> dict[str, float]:
    """Parts: for graphs and fits one of them, for others all of a build."""
    found = {}
    for name, part in clock.parts.items():
        runs = part["count"] if name.startswith(("graphs", "fit ")) else 1
        found |= {f"cpu {name}": part["cpu"] / runs, f"wall {name}": part["wall"] / runs}
    return found


def _networks(recommender: Recommender, clock: Clock) -> dict[str, float]:
    """One epoch of the network that people may be embedded with."""
    from nextedge.models.neural.graphsage import GraphSage
    from nextedge.models.neural.node_inputs import GraphSageConfig
    from nextedge.models.neural.trainer import TrainerConfig
    from nextedge.retrieval.model_source import training_data

    epochs = 2
    settings = GraphSageConfig(trainer=TrainerConfig(epochs=epochs, learning_rate=5e-4))
    data = training_data(recommender.release.surface("people").line.scope)
    GraphSage().fit(data, settings, quiet)
    part = clock.parts["network graphsage"]
    return {
        "cpu network graphsage": part["cpu"] / epochs,
        "wall network graphsage": part["wall"] / epochs,
    }


def _publishing(recommender: Recommender) -> dict[str, float]:
    """What candidates of all users take, by those of some; and bytes of the values."""
    release, values = recommender.release, {}
    users = len(release.entities.users)
    drawn = np.random.default_rng(0).permutation(users)[:SAMPLED].astype(np.int32)
    for surface in release.surfaces:
        line = release.surface(surface).line
        line.retrieve(Requests(drawn[:64], 0, 1))
        sizes: dict[str, list[int]] = {"published": [], "features": []}
        cpu, wall, found = time.process_time(), time.perf_counter(), []
        for start in range(0, len(drawn), 64):
            requests = Requests(drawn[start : start + 64], int(time.time() * 1e6), 1)
            found.append((requests, line.retrieve(requests)))
            for part in _each(found[-1][1]):
                sizes["published"].append(len(packed("key", part)))
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        for requests, candidates in found[:1]:
            matrix = line.matrix(requests, candidates)
            for rows, part in zip(candidates.rows(), _each(candidates), strict=True):
                sizes["features"].append(
                    len(packed("key", CachedCandidates(part.candidates, matrix[rows])))
                )
        values |= {
            f"cpu publish {surface}": cpu / len(drawn) * users,
            f"wall publish {surface}": wall / len(drawn) * users,
            f"memory publish {surface}": held_mib(),
        }
        values |= {f"bytes {surface} {way}": float(np.mean(size)) for way, size in sizes.items()}
        values[f"count candidates {surface}"] = float(
            np.mean([len(part.candidates) for _, c in found for part in _each(c)])
        )
    return values


def _each(found: Any) -> list[CachedCandidates]:
    """Candidates of each query alone."""
    return [
        CachedCandidates(
            type(found)(
                np.array([0, rows.stop - rows.start]),
                found.candidate[rows],
                {name: column[rows] for name, column in found.columns.items()},
            )
        )
        for rows in found.rows()
    ]


def _asked(folder: Path, recommender: Recommender, by_candidate: bool = False) -> dict[str, float]:
    """CPU seconds of requests, computed, with published candidates, and with their features too."""
    settings, values = folder / "nextedge.toml", {}
    text = settings.read_text()
    users = recommender.release.entities.users
    random = np.random.default_rng(1)
    degree = recommender.release.snapshot.connections.degree.astype(float) + 1
    drawn = random.choice(
        len(users), min(ASKED, len(users) // 2), replace=False, p=degree / degree.sum()
    )
    ids = users.identifiers([int(place) for place in drawn]).to_pylist()
    for features in (False, True):
        settings.write_text(text + _SERVING.format(features=str(features).lower()))
        served = Recommender(folder)
        served.start_serving()
        served.warm_up()
        for surface in served.release.surfaces:
            computed = _rounds(served, surface, ids)
            time.sleep(1.0)  # what was found is kept by a thread
            again = _rounds(served, surface, ids)
            for way, (cpu, tail) in (
                ("computed", computed),
                ("features" if features else "published", again),
            ):
                values |= {f"request {surface} {way}": cpu, f"tail {surface} {way}": tail}
        served.close()
    if not by_candidate:
        return {"bytes list": _list_bytes(recommender, ids)}
    found: dict[str, float] = {}
    for surface in recommender.release.surfaces:
        requests = Requests(drawn.astype(np.int32), int(time.time() * 1e6), 1)
        many = len(recommender.release.surface(surface).line.retrieve(requests)) / len(drawn)
        for way in ("computed", "published", "features"):
            found[f"cpu request {surface} {way}"] = values[f"request {surface} {way}"] / many
            found[f"tail {surface} {way}"] = values[f"tail {surface} {way}"]
        found[f"count candidates {surface}"] = many
    return found


def _rounds(served: Recommender, surface: str, ids: list[str]) -> tuple[float, float]:
    """CPU seconds of a request by the application, and its 99th percentile over the mean."""
    app = create_app(served)
    spent: list[float] = []

    async def ask_all() -> None:
        for user in ids:
            began = time.thread_time()
            await _ask(app, f"/v1/{surface}/recommendations", f"user_id={user}&limit=20")
            spent.append(time.thread_time() - began)

    cpu = time.process_time()
    asyncio.run(ask_all())
    cpu = (time.process_time() - cpu) / len(ids)
    return cpu, float(np.quantile(spent, 0.99) / max(np.mean(spent), 1e-9))


async def _ask(app: Callable[..., Any], path: str, query: str) -> None:
    status = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            status.append(message["status"])

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": [],
        "scheme": "http",
        "server": ("127.0.0.1", 80),
        "client": ("127.0.0.1", 1),
        "root_path": "",
        "state": {},
    }
    await app(scope, receive, send)
    if status != [200]:
        raise RuntimeError(f"{path}?{query}: status {status}")


class _Lengths(Cache[Any]):
    """Keeps how long the values of ranked lists would be."""

    def __init__(self) -> None:
        super().__init__(1000, 3600.0)
        self.bytes: list[int] = []

    def put(self, key: Any, value: Any, seconds: float | None = None) -> None:
        self.bytes.append(len(pack_ranked(key, 0, value)))


def _list_bytes(recommender: Recommender, ids: list[str]) -> float:
    lengths = _Lengths()
    for surface in recommender.release.surfaces:
        for user in ids[:20]:
            answer(
                recommender.release,
                recommender.overlay,
                [user],
                RecommendationRequest(surface),
                cache=lengths,
            )
    return float(np.mean(lengths.bytes))


def worker(folder: Path) -> dict[str, Any]:
    """Memory of one serving process, once it has answered somebody."""
    recommender = Recommender(folder)
    recommender.start_serving()
    recommender.warm_up()
    found = held_mib()
    recommender.close()
    return {"memory worker": found}


def main() -> None:
    """Measure what the arguments say."""
    kind, given = sys.argv[1:3]
    if kind == "worker":
        print(json.dumps(worker(Path(given))))
        return
    run = {"build": measure_build, "graph": measure_graph, "degree": measure_degree}[kind]
    with tempfile.TemporaryDirectory() as folder:
        found = run(Path(folder), int(given))
        if kind == "build":
            import subprocess

            command = [sys.executable, __file__, "worker", folder]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found["values"] |= json.loads(done.stdout.splitlines()[-1])
        print(json.dumps(found))


if __name__ == "__main__":
    main()
