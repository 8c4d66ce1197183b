"""The tenants of the attack: a victim whose list is hidden, and accounts that want it."""

from __future__ import annotations

import time
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from conftest import PEOPLE, network, person, write
from starlette.testclient import TestClient

from nextedge import Recommender
from nextedge.api.app import create_app
from nextedge.events.projections.live_edges import LiveEdges

VICTIM = person(86)
ATTACKERS = [person(place) for place in (110, 111, 112, 114)]
NOW = 1_760_000_000.0
"""The clock of every answer, in seconds: ages of edges do not differ between tenants."""


def tables() -> dict[str, pa.Table]:
    """The network, and the attackers' connections: to the victim and half of everybody else."""
    found = network()
    random = np.random.default_rng(1)
    others = [person(place) for place in range(PEOPLE) if person(place) not in (*ATTACKERS, VICTIM)]
    pairs = [(a, o) for a, o in product(ATTACKERS, others) if random.random() < 0.5]
    pairs += [(attacker, VICTIM) for attacker in ATTACKERS]
    rows = found["connections"]
    more = pa.table(
        {
            "src": [a for a, _ in pairs],
            "dst": [b for _, b in pairs],
            "timestamp": pc.take(
                rows.column("timestamp"), random.integers(0, len(rows), len(pairs))
            ),
        }
    )
    return {**found, "connections": pa.concat_tables([rows, more])}


def of_victim(rows: pa.Table) -> pa.ChunkedArray:
    """Which connections are the victim's."""
    return pc.or_(pc.equal(rows.column("src"), VICTIM), pc.equal(rows.column("dst"), VICTIM))


def friends() -> set[int]:
    """The victim's list, but for the attackers themselves."""
    rows = tables()["connections"].filter(of_victim(tables()["connections"]))
    found = {*rows.column("src").to_pylist(), *rows.column("dst").to_pylist()}
    return found - {VICTIM, *ATTACKERS}


def tenant(folder: Path, kind: str) -> Path:
    """A built tenant: ``open``, ``absent`` (the list does not exist) or ``hidden``.

    What the attackers are told of their own connections to the victim is the same in the last two.
    """
    found = tables()
    rows = found["connections"]
    mine = of_victim(rows)
    if kind != "open":
        rows = rows.append_column("hidden", mine)
    if kind == "absent":
        ends = [pc.is_in(rows.column(n), value_set=pa.array(ATTACKERS)) for n in ("src", "dst")]
        rows = rows.filter(pc.or_(pc.invert(mine), pc.or_(*ends)))
    found["connections"] = rows
    Recommender(write(folder, found)).build()
    return folder


Observed = dict[str, Any]
"""Question → status and answer, without what differs at random."""


def observe(folder: Path) -> Observed:
    """Everything that the attackers can ask, before and after what they can record."""
    recommender = Recommender(folder)

    def record(client: TestClient, events: list[tuple[str, int, int]]) -> None:
        """Record, and wait until lists are made of the edges of now."""
        told(client, events)
        edges = recommender.overlay.projection(LiveEdges)
        recommender.overlay.catch_up()
        while recommender.release.live_as_of != (edges, edges.changes):
            time.sleep(0.01)

    with TestClient(create_app(recommender)) as client:
        record(client, [("connect", a, VICTIM) for a in ATTACKERS])
        found = {f"connected {q}": a for q, a in asked(client).items()}
        first = ATTACKERS[0]
        for guess in sorted(friends())[:2]:
            for kind, undo in (("block", "unblock"), ("hide_connection", "unhide_connection")):
                record(client, [(kind, first, guess)])
                found |= {f"{kind} {guess} {q}": a for q, a in asked(client, [first]).items()}
                record(client, [(undo, first, guess)])
        found |= {f"after {q}": a for q, a in asked(client).items()}
    return found


def told(client: TestClient, events: list[tuple[str, int, int]]) -> None:
    body = [{"type": kind, "user_id": user, "candidate_id": other} for kind, user, other in events]
    assert client.post("/v1/events", json=body).status_code == 202


def asked(client: TestClient, accounts: list[int] = ATTACKERS) -> Observed:
    """Every door, for the attackers' own accounts, a stranger, and as similar to anybody."""
    doors = [
        f"{path}?user_id={user}&limit=200{more}"
        for user in (*accounts, "stranger")
        for path, more in (
            ("/pymk/recommendations", ""),
            ("/v1/people/recommendations", "&explain=true"),
        )
    ]
    doors += [f"/v1/people/similar?id={user}&limit=200" for user in (*accounts, VICTIM)]
    doors += [f"/v1/embeddings/user/{user}" for user in (*accounts, VICTIM)]
    found: Observed = {}
    for door in doors:
        answer = client.get(door)
        found[door] = answer.status_code, _stable(answer.json())
    for user in accounts:
        body = {"tenant_id": "default", "user_id": user, "count": 200, "surface": "people"}
        answer = client.post("/internal/ml/recommendations", json=body)
        found[f"internal {user}"] = answer.status_code, _stable(answer.json())
    return found


def _stable(answer: dict[str, Any]) -> dict[str, Any]:
    volatile = ("recommendation_id", "latency_ms", "release", "model_version", "cache", "detail")
    return {name: value for name, value in answer.items() if name not in volatile}


def suspicion(observed: Observed) -> list[int]:
    """Everybody but the attackers, the likeliest friends of the victim first.

    A friend is recommended to the attackers with the victim as evidence, and is missing among
    those who are similar to the victim, as one who is connected already.
    """
    signs = {person(place): 0.0 for place in range(PEOPLE)}
    victim = f"Name{VICTIM} of"
    for question, (_, answer) in observed.items():
        if f"similar?id={VICTIM}&" in question and "similar" in answer:
            near = {each["id"] for each in answer["similar"]}
            for user in signs.keys() - near:
                signs[user] += 1.0
        for each in answer.get("recommendations", ()):
            named = each["reason"].get("evidence", {}).get("names", ())
            if any(name.startswith(victim) for name in named):
                signs[each["candidate_id"]] += 10.0
    known = {VICTIM, *ATTACKERS}
    return sorted((user for user in signs if user not in known), key=lambda u: (-signs[u], u))
