"""Kills producer, server and consumer at random under load; then counts every event.

    python bench/events/kill.py [--kills 100] [--log redis] [--seed 0] [--out FILE.json]

Producers post events over HTTP and write down, synced to disk, what was acknowledged; after a
failure they post the same ids again. The server records them. A consumer of a group applies them
to a ledger: a row and a count a user, in one transaction. One of the three is killed with SIGKILL
after a random while, and started again, as often as asked. With ``--log redis`` the live log is a
redis-server that syncs before it answers, and is among those who are killed.

At the end it exits with 1 unless every acknowledged event is in the log once and was applied once,
and nothing was applied that is not in the log.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import httpx2

from nextedge import Recommender
from nextedge.config import load_config
from nextedge.data.synthetic import SyntheticConfig, generate_tenant
from nextedge.events.event import Event
from nextedge.events.logs.consume import ConsumeLoop
from nextedge.events.logs.log import open_live_log

sys.path.insert(0, str(Path(__file__).parents[1] / "serving"))
from run import free_port

USERS = 300
BATCH = 20
GROUP = "ledger"
_LEDGER = """
CREATE TABLE IF NOT EXISTS applied (event_id TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS counts (user TEXT PRIMARY KEY, events INTEGER NOT NULL) WITHOUT ROWID;
"""


def produce(port: int, folder: Path, seed: int) -> None:
    """Post events for ever; acknowledged ids go to a file that is synced."""
    chance, number = random.Random(seed * 1_000_003 + os.getpid()), 0
    name = f"{os.getpid()}-{time.time_ns()}"
    with (folder / f"acknowledged-{name}.txt").open("a") as acknowledged:
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=10) as client:
            while True:
                batch = [
                    {
                        "type": chance.choice(["click", "impression", "interact"]),
                        "user_id": f"u{chance.randrange(USERS):06d}",
                        "item_id": f"i{chance.randrange(100):06d}",
                        "event_id": f"{name}-{number + n}",
                    }
                    for n in range(chance.randrange(1, BATCH))
                ]
                number += len(batch)
                while True:  # the same ids until they are acknowledged
                    try:
                        status = client.post("/v1/events", json=batch).status_code
                    except httpx2.TransportError:
                        status = 0
                    if status == 202:
                        break
                    time.sleep(0.05)
                acknowledged.writelines(each["event_id"] + "\n" for each in batch)
                acknowledged.flush()
                os.fsync(acknowledged.fileno())


def apply(folder: Path) -> None:
    """Consume for ever into the ledger."""
    ledger = sqlite3.connect(folder / "ledger.sqlite", timeout=30)
    ledger.execute("PRAGMA journal_mode = WAL")
    ledger.executescript(_LEDGER)
    log = open_live_log(load_config(folder / "tenant"))

    def handle(events: Sequence[Event]) -> None:
        with ledger:
            for event in events:
                row = (event.event_id,)
                new = ledger.execute("INSERT OR IGNORE INTO applied VALUES (?)", row).rowcount
                if new:
                    ledger.execute(
                        "INSERT INTO counts VALUES (?, 1) ON CONFLICT (user) DO UPDATE "
                        "SET events = events + 1",
                        (str(event.user_id),),
                    )

    ConsumeLoop(log, GROUP, handle).run(threading.Event())


class Victim:
    """A process that is killed, and started again."""

    def __init__(self, name: str, command: list[str], ready: Callable[[], bool]) -> None:
        self.name, self.command, self.ready = name, command, ready
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it is ready."""
        self.process = subprocess.Popen(
            self.command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        while not self.ready():
            assert self.process.poll() is None, f"{self.name} ended by itself"
            time.sleep(0.05)

    def kill(self) -> None:
        """SIGKILL it with its children."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def answers(port: int, path: str) -> bool:
    """Whether a server answers 200."""
    try:
        return httpx2.get(f"http://127.0.0.1:{port}{path}", timeout=10).status_code == 200
    except httpx2.TransportError:
        return False


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--log", choices=["local", "redis"], default="local")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--role", choices=["producer", "consumer"], help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.role == "producer":
        produce(given.port, given.folder, given.seed)
    if given.role == "consumer":
        apply(given.folder)
    folder = Path(tempfile.mkdtemp(prefix="kill-"))
    try:
        found = run(folder, given)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(found, indent=1))
    if given.out:
        given.out.write_text(json.dumps(found, indent=1) + "\n")
    return 1 if found["lost"] or found["not_in_the_log"] or found["applied_twice"] else 0


def run(folder: Path, given: argparse.Namespace) -> dict[str, object]:
    """Build, load, kill, drain and count."""
    chance, port, redis_port = random.Random(given.seed), free_port(), free_port()
    tenant = folder / "tenant"
    tenant.mkdir()
    generate_tenant(tenant, SyntheticConfig(users=USERS, items=100, seed=1))
    settings = (
        f'[events]\nlog = "redis://127.0.0.1:{redis_port}/0"\n' if given.log == "redis" else ""
    )
    (tenant / "nextedge.toml").write_text(settings)
    own = [sys.executable, __file__, "--folder", str(folder), "--seed", str(given.seed)]
    victims = [
        Victim(
            "server",
            [sys.executable, "-m", "nextedge", "serve", "-c", str(tenant), "--port", str(port)],
            lambda: answers(port, "/health/live"),
        ),
        Victim("consumer", [*own, "--role", "consumer"], lambda: True),
        *(
            Victim("producer", [*own, "--role", "producer", "--port", str(port)], lambda: True)
            for _ in range(2)
        ),
    ]
    if given.log == "redis":
        command = [
            "redis-server",
            "--port",
            str(redis_port),
            "--dir",
            str(folder),
            "--save",
            "",
            "--appendonly",
            "yes",
            "--appendfsync",
            "always",
        ]
        ready = ["redis-cli", "-p", str(redis_port), "ping"]
        victims.insert(
            0,
            Victim(
                "redis",
                command,
                lambda: b"PONG" in subprocess.run(ready, capture_output=True).stdout,
            ),
        )
        victims[0].start()
    Recommender(tenant).build()
    for victim in victims:
        if victim.process is None:
            victim.start()
    killed: Counter[str] = Counter()
    for _ in range(given.kills):
        time.sleep(chance.uniform(0.2, 1.5))
        victim = chance.choice(victims)
        victim.kill()
        killed[victim.name] += 1
        print(f"killed {sum(killed.values())} of {given.kills}: {victim.name}", file=sys.stderr)
        time.sleep(chance.uniform(0.0, 0.3))
        victim.start()
    time.sleep(2)
    for victim in victims:
        if victim.name in ("producer", "server"):
            victim.kill()
    counted = count(folder)
    for victim in victims:
        if victim.name not in ("producer", "server"):
            victim.kill()
    return {"log": given.log, "kills": dict(killed), **counted}


def count(folder: Path) -> dict[str, object]:
    """What became of the events, once the consumer has no more to do."""
    log = open_live_log(load_config(folder / "tenant"))
    deadline = time.monotonic() + 120
    while log.lag(GROUP).events and time.monotonic() < deadline:
        time.sleep(0.2)
    acknowledged = {
        line.rstrip("\n")
        for path in folder.glob("acknowledged-*.txt")
        for line in path.read_text().splitlines(keepends=True)
        if line.endswith("\n")
    }
    logged = Counter(event.event_id for _, event in log.read())
    ledger = sqlite3.connect(folder / "ledger.sqlite")
    applied = {row for (row,) in ledger.execute("SELECT event_id FROM applied")}
    (total,) = ledger.execute("SELECT coalesce(sum(events), 0) FROM counts").fetchone()
    return {
        "acknowledged": len(acknowledged),
        "in_the_log": len(logged),
        "not_applied": len(logged.keys() - applied),
        "lost": len(acknowledged - logged.keys()) + len(acknowledged - applied),
        "in_the_log_twice": sum(times > 1 for times in logged.values()),
        "applied_twice": int(total) - len(applied),
        "not_in_the_log": len(applied - logged.keys()),
        "lag": log.lag(GROUP).events,
    }


if __name__ == "__main__":
    sys.exit(main())
