"""Somebody accepts whom they were recommended: both lists before, and a moment after.

    python examples/accept.py

Makes a small tenant, serves it as `nextedge serve` does, and sends one event over HTTP. Takes
about a minute, nearly all of it the build.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from nextedge import Recommender
from nextedge.api.app import create_app
from nextedge.data.synthetic import SyntheticConfig, generate_tenant

SHOWN = 8


def newcomer(recommender: Recommender) -> str:
    """Somebody of three connections: to them one more is much."""
    release = recommender.release
    few = (release.snapshot.connections.degree == 3).nonzero()[0]
    return str(release.entities.users.identifier(int(few[0])))


def asked(client: TestClient, user: str) -> list[dict[str, Any]]:
    """The people recommended to a user."""
    answer = client.get("/pymk/recommendations", params={"user_id": user, "limit": SHOWN})
    found: list[dict[str, Any]] = answer.json()["recommendations"]
    return found


def show(title: str, rows: list[dict[str, Any]], before: list[dict[str, Any]] = ()) -> None:  # type: ignore[assignment]
    """Print a list; what was not in it before, or has another reason, is marked."""
    known = {each["candidate_id"]: each["reason"]["text"] for each in before}
    print(f"\n{title}")
    for each in rows:
        name, reason = each["candidate_id"], each["reason"]["text"]
        mark = " " if not before or known.get(name) == reason else "*" if name in known else "+"
        print(f"  {mark} {each['rank']:>2}  {each['display']:<24} {reason}")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        generate_tenant(Path(folder), SyntheticConfig(users=600, items=200, seed=3))
        recommender = Recommender(folder)
        recommender.build()
        one = newcomer(recommender)
        with TestClient(create_app(recommender)) as client:
            other = asked(client, one)[0]["candidate_id"]
            before = {user: asked(client, user) for user in (one, other)}
            for user, rows in before.items():
                show(f"People for {user}, before", rows)
            event = {"type": "accept", "user_id": one, "candidate_id": other}
            client.post("/v1/events", json=event).raise_for_status()
            sent = time.monotonic()
            print(f"\n{one} accepts {other}: acknowledged")
            position = recommender.release.entities.users.position(one)
            while not recommender.release.edition(position):
                time.sleep(0.01)
            print(f"both lists know of it after {(time.monotonic() - sent) * 1e3:.0f} ms")
            for user, rows in before.items():
                show(
                    f"People for {user}, after (+ new, * another reason)", asked(client, user), rows
                )


if __name__ == "__main__":
    main()
