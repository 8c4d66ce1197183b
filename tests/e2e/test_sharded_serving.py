"""A front and real processes that hold parts of its index: exact, in time, and never without an answer."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from servers import Running
from typer.testing import CliRunner

from nextedge import Recommender
from nextedge.cli.main import app
from nextedge.config import Config, load_config
from nextedge.data.partition import Part, partition_of
from nextedge.errors import ShardError
from nextedge.retrieval.model_source import ModelSource
from nextedge.serving.messages import RecommendationRequest, RecommendationResponse
from nextedge.serving.shards.client import RemoteIndex
from nextedge.stores.store import open_store

OTHER = "20990101-000000"
USERS = 160
PATIENCE = 60.0
SETTINGS = """\
tenant = "acme"
[serving]
cache_entries = 0
cached_lists_per_hour = 0
deadline_ms = 6000
{shards}
[surfaces.items]
candidates = 60
[surfaces.items.ranker]
compare = ["best_source"]
[surfaces.items.index]
shards = 5
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tenant of items whose index is in five exact shards, and the same release once more."""
    folder = tmp_path_factory.mktemp("built") / "acme"
    folder.mkdir()
    random = np.random.default_rng(3)
    users = random.integers(0, USERS, 3000)
    items = (users * 7 + random.zipf(1.6, 3000) % 150) % 150
    times = pa.array(
        random.integers(0, 10**12, 3000) * 10 + 1_600_000_000_000_000, pa.timestamp("us", "UTC")
    )
    table = {"user_id": users, "item_id": items, "timestamp": times}
    pq.write_table(pa.table(table), folder / "interactions.parquet")
    category = [f"c{item % 5}" for item in range(150)]
    pq.write_table(
        pa.table({"item_id": np.arange(150), "category": category}), folder / "items.parquet"
    )
    (folder / "nextedge.toml").write_text(SETTINGS.format(shards=""))
    recommender = Recommender(folder)
    home = recommender.releases.directory
    shutil.copytree(home / recommender.build(), home / OTHER)
    recommender.close()
    return folder


class ShardProcess:
    """``nextedge serve-shard`` in a process of its own."""

    def __init__(self, folder: Path, part: Part, log: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.command = [
            sys.executable,
            "-m",
            "nextedge",
            "serve-shard",
            str(part),
            "-c",
            str(folder),
            "--port",
            str(self.port),
        ]
        self.log = log
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(self.command, stdout=output, stderr=output)

    def wait(self) -> None:
        def reached() -> bool:
            assert self.process is not None and self.process.poll() is None, self.log.read_text()
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self.port)) == 0

        assert soon(reached), self.log.read_text()

    def send(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)
        if number in (signal.SIGKILL, signal.SIGTERM):
            self.process.wait(PATIENCE)


@pytest.fixture(scope="module")
def folder(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tenant, in a folder of its own, for processes to serve."""
    folder = tmp_path_factory.mktemp("home") / "acme"
    shutil.copytree(built, folder)
    return folder


@pytest.fixture(scope="module")
def running(folder: Path) -> Iterator[tuple[list[ShardProcess], Running]]:
    """Three processes with shards, and a front."""
    started = [
        ShardProcess(folder, Part(place, 3), folder.parent.parent / f"shard{place}.log")
        for place in range(3)
    ]
    addresses = [f"127.0.0.1:{each.port}" for each in started]
    (folder / "nextedge.toml").write_text(SETTINGS.format(shards=f"shards = {addresses}"))
    for each in started:
        each.start()
    for each in started:
        each.wait()
    front = Running(folder.parent)
    front.wait_until_ready()
    yield started, front
    front.stop()
    for each in started:
        each.send(signal.SIGKILL)


@pytest.fixture
def shards(running: tuple[list[ShardProcess], Running]) -> Iterator[list[ShardProcess]]:
    """The processes, all of them running; started again where a test has stopped them."""
    yield running[0]
    for each in running[0]:
        assert each.process is not None
        if each.process.poll() is None:
            each.send(signal.SIGCONT)
        else:
            each.start()
    assert soon(lambda: ask(running[1])["degraded"] == [])


@pytest.fixture
def front(running: tuple[list[ShardProcess], Running]) -> Running:
    return running[1]


def soon(happens: Callable[[], bool]) -> bool:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        if happens():
            return True
        time.sleep(0.05)
    return False


def without_shards(config: Config) -> Config:
    return config.model_copy(update={"serving": config.serving.model_copy(update={"shards": ()})})


def ask(front: Running, user: int = 1) -> dict[str, Any]:
    response = front.get("/v1/items/recommendations", params={"user_id": user, "limit": 10})
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    assert len(found["recommendations"]) == 10
    return found


def counted(front: Running, what: str, shard: int) -> float:
    line = rf'nextedge_shard_questions_total\{{shard="{shard}",tenant="acme",what="{what}"\}} (\S+)'
    found = re.search(line, front.get("/metrics").text)
    return float(found[1]) if found else 0.0


def shown(answer: RecommendationResponse) -> list[tuple[Any, float, tuple[str, ...]]]:
    assert not answer.degraded
    return [(each.id, each.score, each.sources) for each in answer.recommendations]


def test_answers_are_those_of_an_index_in_one_process(
    shards: list[ShardProcess], folder: Path
) -> None:
    config = load_config(folder)
    remote, local = Recommender(config), Recommender(without_shards(config))
    exact = Recommender(without_shards(config))
    for source in exact.release.surface("items").line.sources.values():
        if isinstance(source, ModelSource):
            source.index = None  # all candidates are compared
    source = remote.release.surface("items").line.sources["als"]
    assert isinstance(source, ModelSource) and isinstance(source.index, RemoteIndex)
    whole = RecommendationRequest("items", 20)
    for question in (whole, RecommendationRequest("items", 20, filters={"category": ["c1", "c3"]})):
        for start in range(0, USERS, 40):
            users = range(start, start + 40)
            answers = [
                each.recommend_many(list(users), question) for each in (remote, local, exact)
            ]
            for one, other, third in zip(*answers, strict=True):
                assert shown(one) == shown(other)
                assert [x[0] for x in shown(one)] == [x[0] for x in shown(third)]
    one = [shown(remote.recommend(user, "items", 20)) for user in range(5)]
    assert one == [shown(each) for each in local.recommend_many(list(range(5)), whole)]
    assert any("als" in sources for answer in one for _, _, sources in answer)
    for each in (remote, local, exact):
        each.close()


@pytest.mark.slow
def test_a_killed_process_is_left_out_until_it_is_back(
    shards: list[ShardProcess], front: Running
) -> None:
    assert ask(front)["degraded"] == []
    before = counted(front, "left_out", 1)
    shards[1].send(signal.SIGKILL)
    for user in range(10):
        assert ask(front, user)["degraded"] == ["no_index_shard_1"]
    assert counted(front, "left_out", 1) - before == 10
    assert counted(front, "left_out", 0) == 0
    assert 'nextedge_shard_seconds_count{shard="0",tenant="acme"}' in front.get("/metrics").text
    similar = front.get("/v1/items/similar", params={"id": 3})
    assert similar.status_code == 200
    shards[1].start()
    assert soon(lambda: ask(front)["degraded"] == [])
    shards[0].send(signal.SIGTERM)
    assert shards[0].process is not None and shards[0].process.returncode == 0
    assert ask(front)["degraded"] == ["no_index_shard_0"]


@pytest.mark.slow
def test_a_stopped_process_is_not_waited_for_beyond_the_deadline(
    shards: list[ShardProcess], front: Running
) -> None:
    assert ask(front)["degraded"] == []
    before = counted(front, "late", 2)
    shards[2].send(signal.SIGSTOP)  # it takes connections, and never answers
    for user in range(8):
        assert "no_index_shard_2" in ask(front, user)["degraded"]
    late = counted(front, "late", 2) - before
    assert 3 <= late < 8, "after three late answers in a row it is not asked"


@pytest.mark.slow
def test_releases_roll_over_without_a_gap(
    shards: list[ShardProcess], front: Running, folder: Path
) -> None:
    releases = Recommender(without_shards(load_config(folder))).releases
    first = releases.current_id()
    assert first is not None
    seen: list[tuple[str, list[str]]] = []
    done = threading.Event()

    def load() -> None:
        while not done.is_set():
            found = ask(front, len(seen) % USERS)
            seen.append((found["release"], found["degraded"]))

    thread = threading.Thread(target=load)
    thread.start()
    try:
        for wanted in (OTHER, first, OTHER):
            releases.promote(wanted)
            assert soon(lambda wanted=wanted: bool(seen) and seen[-1][0] == wanted)  # type: ignore[misc]
    finally:
        done.set()
        thread.join()
    assert {degraded for _, each in seen for degraded in each} == set()
    assert {release for release, _ in seen} == {first, OTHER}


def test_what_is_written_for_all_is_whole_or_not_at_all(
    shards: list[ShardProcess], folder: Path, tmp_path: Path
) -> None:
    shards[0].send(signal.SIGKILL)
    recommender = Recommender(folder)
    with pytest.raises(ShardError, match="serve-shard 0/3"):
        recommender.publish()
    with pytest.raises(ShardError, match="no_index_shard_0"):
        list(recommender.recommend_all(RecommendationRequest("items", 5)))
    recommender.close()
    to = tmp_path / "all.parquet"
    done = CliRunner().invoke(
        app, ["recommend", "-c", str(folder), "--surface", "items", "--all", "--out", str(to)]
    )
    assert isinstance(done.exception, ShardError)
    assert not to.exists()


@pytest.fixture
def plain(built: Path, tmp_path: Path) -> Path:
    """The tenant without processes for its shards."""
    shutil.copytree(built, tmp_path / "plain")
    return tmp_path / "plain"


def published(folder: Path) -> dict[bytes, bytes]:
    store = open_store("sqlite:///candidates.sqlite", "acme", base=folder / "state")
    keys = list(store.keys())
    found = {k: v for k, v in zip(keys, store.get_many(keys), strict=True) if v is not None}
    store.close()
    (folder / "state" / "candidates.sqlite").unlink()
    return found


def test_what_is_published_by_parts_is_what_is_published_at_once(plain: Path) -> None:
    command = ["publish", "-c", str(plain)]
    assert CliRunner().invoke(app, command).exit_code == 0
    whole = published(plain)
    assert len(whole) == USERS
    together: dict[bytes, bytes] = {}
    for place in range(3):
        done = CliRunner().invoke(app, [*command, "--partition", f"{place}/3", "--json"])
        assert done.exit_code == 0, done.output
        part = published(plain)
        assert part and not part.keys() & together.keys()
        together |= part
    assert together == whole
    some = {}
    for place in range(2):
        given = [*command, "--users", "50", "--partition", f"{place}/2"]
        assert CliRunner().invoke(app, given).exit_code == 0
        some |= published(plain)
    assert len(some) == 50, "of the 50 who were active last"
    refused = CliRunner().invoke(app, [*command, "--partition", "3/3"])
    assert refused.exit_code != 0


def test_files_of_parts_are_the_file_of_all(plain: Path, tmp_path: Path) -> None:
    command = ["recommend", "-c", str(plain), "--surface", "items", "-k", "5", "--all"]
    tables = []
    for place in (None, 0, 1):
        to = tmp_path / f"{place}.parquet"
        part = [] if place is None else ["--partition", f"{place}/2"]
        done = CliRunner().invoke(app, [*command, "--out", str(to), *part])
        assert done.exit_code == 0, done.output
        tables.append(pq.read_table(to).select(["user_id", "rank", "item_id"]).to_pylist())
    whole, *parts = tables
    for place, rows in enumerate(parts):
        assert {partition_of(row["user_id"], 2) for row in rows} == {place}
    assert sorted(map(str, whole)) == sorted(map(str, parts[0] + parts[1]))
    alone = CliRunner().invoke(app, [*command[:-1], "--user", "1", "--partition", "0/2"])
    assert alone.exit_code != 0
