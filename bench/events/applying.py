"""How fast one core applies events, and how much memory they take.

    python bench/events/applying.py [--events 200000] [--users 20000]

Mixed events, half of them impressions, go into a local log in a temporary folder; then a new
overlay reads, parses and folds them all (CPU seconds of one thread), keeps a snapshot, and another
one starts from it. Memory is what the overlay holds by ``tracemalloc``, in a pass of its own.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
import tracemalloc
import uuid
from pathlib import Path
from typing import Any

from nextedge.events.event import Event, parse_event
from nextedge.events.logs.sqlite.log import LocalLog
from nextedge.events.state.checkpoint import Checkpoints
from nextedge.events.state.overlay import Overlay

MIX = {
    "impression": 50,
    "interact": 15,
    "click": 10,
    "connect": 8,
    "dismiss": 5,
    "accept": 3,
    "disconnect": 2,
    "block": 2,
    "profile_update": 2,
    "opt_out": 1,
    "opt_in": 1,
    "item_unavailable": 1,
}
ITEMS = 5000


def mixed(count: int, users: int) -> list[Event]:
    """Valid events of the mix, of the same seed at every run."""
    chance = random.Random(1)
    names = chance.choices(list(MIX), list(MIX.values()), k=count)
    return [parse_event(one(chance, place, name, users)) for place, name in enumerate(names)]


def one(chance: random.Random, place: int, name: str, users: int) -> dict[str, Any]:
    """An event of a type."""
    user = chance.randrange(users)
    event: dict[str, Any] = {
        "type": name,
        "event_id": uuid.UUID(int=chance.getrandbits(128)).hex,
        "timestamp": 1_767_225_600 + place % 2_000_000 + place % 997 / 1000,
    }
    if name != "item_unavailable":
        event["user_id"] = user
    if name in ("interact", "click", "item_unavailable"):
        event["item_id"] = chance.randrange(ITEMS)
    elif name not in ("opt_out", "opt_in", "profile_update"):
        event["candidate_id"] = (user + 1 + chance.randrange(500)) % users
    if name == "impression":
        event |= {"recommendation_id": f"r{place}", "position": place % 20, "surface": "people"}
    if name == "profile_update":
        event["school"] = f"School {place % 100}"
    return event


def timed(overlay: Overlay) -> float:
    """CPU seconds of catching up."""
    began = time.thread_time()
    overlay.catch_up()
    return time.thread_time() - began


def measure(events: int, users: int) -> dict[str, Any]:
    """Events folded a second of CPU, bytes an event and a user, snapshots."""
    with tempfile.TemporaryDirectory() as folder:
        log, snapshots = LocalLog(Path(folder)), Checkpoints(Path(folder) / "overlay")
        made = mixed(events, users)
        for start in range(0, len(made), 5000):
            log.append(made[start : start + 5000])
        del made
        whole = Overlay(log)
        folding = timed(whole)
        began = time.thread_time()
        path = snapshots.write(whole)
        writing = time.thread_time() - began
        resumed = Overlay(log, snapshots)
        resuming = timed(resumed)
        held = {}
        for days in (float("inf"), 0.0):
            tracemalloc.start()
            counted = Overlay(log, shown_days=days)
            counted.catch_up()
            held[days], _ = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        log.close()
        return {
            "events": events,
            "users": users,
            "events_a_second": round(events / folding),
            "snapshot_bytes": path.stat().st_size if path else 0,
            "seconds_to_write_it": round(writing, 2),
            "seconds_to_start_from_it": round(resuming, 2),
            "bytes_an_event": round(held[float("inf")] / events),
            "bytes_a_user": round(held[float("inf")] / users),
            "bytes_a_user_without_impressions": round(held[0.0] / users),
        }


def main() -> None:
    """Measure and print one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--users", type=int, default=20_000)
    given = parser.parse_args()
    print(json.dumps(measure(given.events, given.users), indent=1))


if __name__ == "__main__":
    main()
