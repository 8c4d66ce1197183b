"""Fronts and processes with shards over real sockets: exact, in time, and refused where wrong."""

from __future__ import annotations

import shutil
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from nextedge.config import Config
from nextedge.data.partition import Part
from nextedge.errors import (
    ConfigError,
    CorruptValueError,
    InputError,
    NoReleaseError,
    ShardError,
    StorageError,
)
from nextedge.index.sharded import saved_bounds
from nextedge.index.vector_index import VectorIndex
from nextedge.releases.manifest import Release
from nextedge.releases.repository import Releases
from nextedge.serving.rank_with_deadline import Deadline
from nextedge.serving.release.loaded import StageLatency
from nextedge.serving.shards import protocol
from nextedge.serving.shards.client import RemoteIndex, ShardClient
from nextedge.serving.shards.loaded_shards import LOADED_RELEASES, LoadedShards, shards_of
from nextedge.serving.shards.server import ShardService, listening, run_shard_server
from nextedge.testing.shards import SOURCE, SURFACE, write_shards
from nextedge.types import Waiting

RELEASE = "20260101-000000"
PATIENCE = 60.0


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    drawn = np.random.default_rng(0).standard_normal((1000, 12))
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def releases(vectors: np.ndarray, tmp_path: Path) -> Releases:
    """One release of an exact index in five shards."""
    return write_shards(tmp_path / "state", RELEASE, vectors, 5)


class Processes:
    """Servers of parts in threads of this process, and a client of them."""

    def __init__(self, releases: Releases) -> None:
        self.releases = releases
        self.started: list[Any] = []
        self.clients: list[ShardClient] = []
        self.told: Counter[str] = Counter()

    def start(
        self,
        part: Part,
        port: int = 0,
        path: Path | None = None,
        service: type[ShardService] = ShardService,
        key: str = "",
        tenant: str = "default",
    ) -> Any:
        served = service(LoadedShards(self.releases, part), tenant, key)
        server = listening(served, "127.0.0.1", port, path)
        self.started.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return server

    def client(self, *shards: str) -> ShardClient:
        found = ShardClient(Config.model_validate({"serving": {"shards": shards}}))
        found.tell = lambda part, what, seconds: self.told.update([what])
        self.clients.append(found)
        return found

    def index(self, client: ShardClient) -> RemoteIndex:
        folder = self.releases.directory / RELEASE / "surfaces" / SURFACE / "index" / SOURCE
        return RemoteIndex(client, RELEASE, SURFACE, SOURCE, saved_bounds(folder))

    def stop(self, server: Any) -> None:
        server.service.answer = _gone  # its connections live on in threads of this process
        server.shutdown()
        server.server_close()
        self.started.remove(server)


@pytest.fixture
def processes(releases: Releases) -> Iterator[Processes]:
    found = Processes(releases)
    yield found
    for client in found.clients:
        client.close()
    for server in list(found.started):
        found.stop(server)


def _gone(_: bytes) -> bytes:
    raise ConnectionResetError


def address(server: Any) -> str:
    return f"127.0.0.1:{server.server_address[1]}"


def waiting(seconds: float = PATIENCE) -> Waiting:
    return Waiting(time.perf_counter() + seconds)


def soon(happens: Callable[[], bool]) -> bool:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        if happens():
            return True
        time.sleep(0.01)
    return False


@pytest.mark.parametrize("parts", [1, 2, 3, 7])
def test_parts_together_equal_one_index(
    processes: Processes, vectors: np.ndarray, parts: int, tmp_path: Path
) -> None:
    """Also where there are more processes than shards, filters, and Unix sockets."""
    paths = [tmp_path / f"{place}.socket" for place in range(parts)]
    for place, path in enumerate(paths):
        processes.start(Part(place, parts), path=path)
    index = processes.index(processes.client(*(f"unix:{path}" for path in paths)))
    whole = VectorIndex.build(vectors, vectors[:0], kind="flat")
    random = np.random.default_rng(1)
    for share in (None, 0.5, 0.02):
        allowed = None if share is None else random.random(len(vectors)) < share
        for rows in (1, 40):
            asked = random.standard_normal((rows, 12)).astype(np.float32)
            found, score = index.search(asked, 30, allowed, waiting())
            expected, scored = whole.search(asked, 30, allowed)
            assert found.tolist() == expected.tolist()
            np.testing.assert_allclose(score, scored, rtol=1e-4, atol=1e-6)
    nothing, _ = index.search(asked, 30, np.zeros(len(vectors), bool), waiting())
    assert not (nothing >= 0).any()
    assert index.search(asked[:0], 30, None, waiting())[0].shape == (0, 0)


def test_many_ask_at_once(processes: Processes, vectors: np.ndarray) -> None:
    servers = [processes.start(Part(place, 3)) for place in range(3)]
    index = processes.index(processes.client(*map(address, servers)))
    whole = VectorIndex.build(vectors, vectors[:0], kind="flat")
    wrong: list[int] = []

    def ask(seed: int) -> None:
        random = np.random.default_rng(seed)
        for _ in range(20):
            asked = random.standard_normal((1, 12)).astype(np.float32)
            found, _ = index.search(asked, 10, None, waiting())
            if found.tolist() != whole.search(asked, 10)[0].tolist():
                wrong.append(seed)

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert processes.told == {"answered": 8 * 20 * 3}


def test_what_does_not_run_is_left_out_and_found_again(
    processes: Processes, vectors: np.ndarray
) -> None:
    servers = [processes.start(Part(place, 2)) for place in range(2)]
    index = processes.index(processes.client(*map(address, servers)))
    whole, _ = index.search(vectors[:1], 1000, None, waiting())
    port = servers[1].server_address[1]
    processes.stop(servers[1])
    asked = waiting()
    assert soon(lambda: bool(left_out(index, vectors)))
    found, _ = index.search(vectors[:1], 1000, None, asked)
    assert asked.left_out == {"no_index_shard_1"}
    assert set(found[0].tolist()) == {each for each in whole[0].tolist() if each < 400}
    with pytest.raises(ShardError, match=f"part 1/2 .* 127.0.0.1:{port}: .*serve-shard 1/2"):
        index.search(vectors[:1], 5)
    processes.start(Part(1, 2), port=port)
    assert soon(lambda: not left_out(index, vectors))
    assert index.search(vectors[:1], 1000)[0].tolist() == whole.tolist()


def left_out(index: RemoteIndex, vectors: np.ndarray) -> set[str]:
    asked = waiting()
    index.search(vectors[:1], 5, None, asked)
    return asked.left_out


def test_what_was_left_out_is_not_asked_again_for_the_same_request(
    processes: Processes, vectors: np.ndarray
) -> None:
    servers = [processes.start(Part(place, 2)) for place in range(2)]
    index = processes.index(processes.client(*map(address, servers)))
    asked = waiting()
    asked.left_out.add("no_index_shard_0")
    found, _ = index.search(vectors[:1], 1000, None, asked)
    assert (found >= 400).all()
    assert processes.told == {"answered": 1}


class Blocked(ShardService):
    """Does not answer searches before it may."""

    go_on = threading.Event()

    def _search(self, *given: Any) -> bytes:
        self.go_on.wait(PATIENCE)
        return super()._search(*given)


def test_a_late_answer_is_not_waited_for_and_later_not_asked_for(
    processes: Processes, vectors: np.ndarray
) -> None:
    Blocked.go_on.clear()
    servers = [processes.start(Part(0, 2)), processes.start(Part(1, 2), service=Blocked)]
    client = processes.client(*map(address, servers))
    index = processes.index(client)
    for _ in range(3):
        asked = waiting(0.3)
        index.search(vectors[:1], 5, None, asked)
        assert asked.left_out >= {"no_index_shard_1"}
    assert processes.told["late"] >= 3
    Blocked.go_on.set()
    assert soon(lambda: not left_out(index, vectors)), "no late answer is taken for another's"
    whole = VectorIndex.build(vectors, vectors[:0], kind="flat").search(vectors[:3], 9)[0]
    for row in range(3):
        found, _ = index.search(vectors[row : row + 1], 9, None, waiting())
        assert found[0].tolist() == whole[row].tolist()


def test_a_replica_is_asked_beside_one_that_takes_long(
    processes: Processes, vectors: np.ndarray
) -> None:
    Blocked.go_on.clear()
    slow, quick = processes.start(Part(0, 1), service=Blocked), processes.start(Part(0, 1))
    client = processes.client(f"{address(slow)},{address(quick)}")
    index = processes.index(client)
    client._latencies[0].usual = 0.01
    for _ in range(2):  # each of the two is asked first once
        found, _ = index.search(vectors[:1], 5, None, waiting())
        assert found[0, 0] >= 0
    Blocked.go_on.set()
    assert processes.told["hedged"] >= 1
    assert processes.told["answered"] == 2
    assert not processes.told["left_out"]


def test_few_questions_are_asked_twice() -> None:
    from nextedge.serving.shards.scatter_gather import ReplicaLatency

    pace = ReplicaLatency()
    hedged = 0
    for _ in range(1000):
        pace.answered(0.01)
        hedged += pace.hedge()
    assert 90 <= hedged <= 110
    assert pace.usual == pytest.approx(0.01)


def test_a_replica_takes_over_from_one_that_is_gone(
    processes: Processes, vectors: np.ndarray
) -> None:
    servers = [processes.start(Part(0, 1)) for _ in range(2)]
    index = processes.index(processes.client(",".join(map(address, servers))))
    index.search(vectors[:1], 5)
    processes.stop(servers[0])
    for _ in range(10):
        found, _ = index.search(vectors[:1], 5, None, waiting())
        assert found[0, 0] >= 0
    assert not processes.told["left_out"]


def test_others_and_wrong_orders_are_refused(
    processes: Processes, vectors: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    servers = [
        processes.start(Part(1, 2)),
        processes.start(Part(0, 2)),
        processes.start(Part(0, 1)),
        processes.start(Part(0, 1), key="secret"),
        processes.start(Part(0, 1), tenant="umbra"),
    ]
    for shards, said in (
        ([0, 1], "this is part 1/2 of tenant 'default'"),
        ([3], "NEXTEDGE_SHARD_KEY is not the same here"),
        ([4], "tenant 'umbra'"),
    ):
        index = processes.index(processes.client(*(address(servers[each]) for each in shards)))
        with pytest.raises(ShardError):
            index.search(vectors[:1], 5)
        assert said in caplog.text


def test_messages_that_are_none_end_nothing(processes: Processes, vectors: np.ndarray) -> None:
    server = processes.start(Part(0, 1))
    client = processes.client(address(server))
    index = processes.index(client)
    place = server.server_address
    for sent in (b"GET / HTTP/1.1\r\n\r\n", b"\x00" * 8, protocol.LENGTH.pack(20) + b"x" * 20):
        with socket.create_connection(place, PATIENCE) as connection:
            connection.sendall(sent)
            try:
                connection.shutdown(socket.SHUT_WR)
                said = connection.recv(1000)
            except OSError:  # the server has closed it already
                said = b""
        assert not said or b'"error":"wrong"' in said
    search = {"op": "search", "release": RELEASE, "surface": SURFACE, "source": SOURCE}
    good = {**search, "k": 5, "within_ms": 1e6, "candidates": 1000}
    queries = {"queries": vectors[:1]}
    filtered = {**queries, "allowed": np.zeros(125, np.uint8)}
    for about, arrays, error in (
        ({**good, "release": "20990101-000000"}, queries, "unknown_release"),
        ({**good, "release": "../" + RELEASE}, queries, "unknown_release"),
        ({**good, "source": "other"}, queries, "not_here"),
        ({**good, "k": 0}, queries, "wrong"),
        ({**good, "k": 1 << 30}, queries, "wrong"),
        (good, {"queries": vectors[:1, :5]}, "wrong"),
        (good, {"queries": vectors[:1].astype(np.float64)}, "wrong"),
        (good, {}, "wrong"),
        ({**good, "candidates": 10**9}, filtered, "wrong"),
        ({**good, "candidates": 7}, filtered, "wrong"),
        ({**good, "within_ms": -1.0}, queries, "late"),
        ({"op": "dance"}, {}, "wrong"),
        (good, filtered, None),
    ):
        message = client.message(Part(0, 1), about, arrays)
        with socket.create_connection(place, PATIENCE) as connection:
            connection.sendall(message)
            answer = protocol.receive(connection)
        assert answer is not None
        assert protocol.decode(answer)[0].get("error") == error, about
    assert index.search(vectors[:1], 5)[0].shape == (1, 5)


def test_answers_that_are_none_leave_the_part_out(vectors: np.ndarray, releases: Releases) -> None:
    class Wrong(ShardService):
        def _search(self, *given: Any) -> bytes:
            return said.pop()

    said = [
        protocol.encode({}, {"position": np.zeros((2, 2), np.int32)}),
        protocol.encode({}, {"position": np.zeros(3, np.int64), "score": np.zeros(3)}),
        protocol.LENGTH.pack(30) + b"y" * 30,
        protocol.LENGTH.pack(1 << 40),
        protocol.encode({"error": "failed", "detail": "?"}),
    ]
    processes = Processes(releases)
    index = processes.index(processes.client(address(processes.start(Part(0, 1), service=Wrong))))
    while said:
        assert left_out(index, vectors) == {"no_index_shard_0"}
        assert soon(lambda: processes.clients[0].replicas[0][0].up)
    processes.stop(processes.started[0])
    processes.clients[0].close()


def test_releases_stay_open_beside_each_other_until_too_many_are(
    releases: Releases, vectors: np.ndarray
) -> None:
    names = [f"2026010{day}-000000" for day in range(2, LOADED_RELEASES + 3)]
    indexes = LoadedShards(releases, Part(0, 1))
    first = indexes.release(RELEASE)
    for name in names:
        write_shards(releases.state, name, -vectors, 2)
        indexes.release(name)
    assert indexes.release(names[-1]) is indexes.release(names[-1])
    assert indexes.release(RELEASE) is not first, "it was let go"
    assert indexes.search(RELEASE, SURFACE, SOURCE, vectors[:1], 1, None)[0][0, 0] == 0  # type: ignore[index]
    shutil.rmtree(releases.directory / RELEASE)
    write_shards(releases.state, RELEASE, vectors[::-1].copy(), 2)  # as erasing somebody does
    assert indexes.search(RELEASE, SURFACE, SOURCE, vectors[:1], 1, None)[0][0, 0] == 999  # type: ignore[index]


def test_opening_a_release_reaches_every_replica(processes: Processes) -> None:
    servers = [processes.start(Part(0, 1)) for _ in range(2)]
    client = processes.client(",".join(map(address, servers)))
    assert client.open_release(RELEASE) == []
    for server in servers:
        assert list(server.service._shards._loaded) == [RELEASE]
    faults = client.open_release("20990101-000000")
    assert len(faults) == 2 and "no release '20990101-000000'" in faults[0]


class Slow(Releases):
    """Its files come only once they may, as from a bucket."""

    may = threading.Event()

    def get(self, release_id: str) -> Release:
        assert self.may.wait(PATIENCE)
        return super().get(release_id)


def test_a_release_that_takes_long_to_load_is_waited_for_but_no_search_is(
    releases: Releases, vectors: np.ndarray
) -> None:
    Slow.may.clear()
    processes = Processes(Slow(releases.state))
    client = processes.client(address(processes.start(Part(0, 1))))
    found, _ = processes.index(client).search(
        vectors[:1], 5, None, Waiting(time.perf_counter() + 0.3)
    )
    assert found.shape == (1, 0)
    assert client.open_release(RELEASE, 0.0) == [
        f"{client.replicas[0][0].address}: it is being loaded"
    ]
    faults: list[list[str]] = []
    opening = threading.Thread(target=lambda: faults.append(client.open_release(RELEASE)))
    opening.start()
    opening.join(1.5)
    assert opening.is_alive(), "it waits for more than one answer"
    Slow.may.set()
    opening.join(PATIENCE)
    assert faults == [[]]
    assert not left_out(processes.index(client), vectors)
    processes.stop(processes.started[0])
    client.close()


def test_parts_cover_all_shards_each_once() -> None:
    bounds = list(range(0, 110, 10))
    for of in (1, 2, 3, 10, 17):
        parts = [shards_of(bounds, Part(place, of)) for place in range(of)]
        assert [each.low for each in parts[1:]] == [each.high for each in parts[:-1]]
        assert (parts[0].low, parts[-1].high) == (0, 10)
        assert sum(each.stop - each.start for each in parts) == 100


def test_a_stopped_process_has_half_of_what_a_deadline_spares() -> None:
    pace = StageLatency({"source b": 30.0, "ranking": 10.0})
    deadline = Deadline.after(time.perf_counter(), 200_000.0, pace)
    left = deadline.wait_until(("source b", "ranking")) - time.perf_counter()
    assert 99.0 < left < 100.0
    overdue = Deadline.after(time.perf_counter() - 10, 200.0, pace).wait_until(())
    assert overdue <= time.perf_counter()


@pytest.mark.parametrize(
    "shards",
    [["host"], ["host:0"], ["host:99999"], ["a:1,"], ["a:1", "a:1"], ["a:1,a:1"], ["a b:1"]],
)
def test_addresses_that_are_none_are_refused(shards: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"serving\.shards"):
        protocol.parse_shards(shards)


def test_a_length_beyond_all_messages_is_refused() -> None:
    with pytest.raises(CorruptValueError, match="a message of"):
        protocol.length_of(protocol.LENGTH.pack(protocol.MAX_BYTES + 1))


def test_a_server_starts_only_where_it_can_serve(
    releases: Releases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(protocol.KEY_VARIABLE, raising=False)
    config = Config(base=tmp_path, state="state")
    with pytest.raises(InputError, match="NEXTEDGE_SHARD_KEY"):
        run_shard_server(config, Part(0, 1), "0.0.0.0", 0)
    with pytest.raises(NoReleaseError, match="nextedge build"):
        run_shard_server(Config(base=tmp_path, state="empty"), Part(0, 1), "127.0.0.1", 0)
    named = Config.model_validate(
        {"base": tmp_path, "serving": {"shards": ("127.0.0.1:1", "127.0.0.1:2")}}
    )
    with pytest.raises(InputError, match=r"serving\.shards names 2 parts, not 3"):
        run_shard_server(named, Part(0, 3), "127.0.0.1", 0)


def test_a_socket_that_another_process_answers_on_is_not_taken(tmp_path: Path) -> None:
    path = tmp_path / "shard"
    service = ShardService(cast("Any", None), "acme")
    with listening(service, "", 0, path) as first:
        with pytest.raises(StorageError, match=r"cannot listen there: Address already in use"):
            listening(service, "", 0, path)
        assert path.is_socket()
        first.server_close()
    with listening(service, "", 0, path):  # what was left is removed
        assert path.is_socket()


@pytest.mark.parametrize("port", [-1, 99_999])
def test_a_port_that_is_none_is_told_in_words(port: int) -> None:
    with pytest.raises(StorageError, match=r"cannot listen there: .*0-65535"):
        listening(ShardService(cast("Any", None), "acme"), "127.0.0.1", port)
