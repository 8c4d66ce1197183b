"""A started service with a broker that is down, comes back, and sends events of its own."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from servers import small_tenant
from starlette.testclient import TestClient
from typer.testing import CliRunner

from nextedge import Recommender
from nextedge.api.app import create_app
from nextedge.cli.main import app as cli
from nextedge.data.erased_users import ErasedUsers
from nextedge.errors import InputError, StorageError
from nextedge.events.event import Event
from nextedge.events.logs import consume
from nextedge.events.logs import log as logs
from nextedge.events.logs import relay as relays
from nextedge.events.logs.sqlite.log import LocalLog
from nextedge.testing.logs import LaterEvent

SETTINGS = '[events]\nmax_backlog = 5\nbroker = "local://in-the-place-of-kafka"\n'


class Site:
    """A tenant that is served, and a log that it takes for its broker."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.live = LocalLog(folder / "state")
        self.broker = LocalLog(folder / "broker")
        self.up = threading.Event()
        self.sent: list[str] = []
        append, last_position = self.broker.append, self.broker.last_position

        def reached(events: Sequence[Event], *, relayed: bool = False) -> int:
            if not self.up.is_set():
                raise StorageError("the broker is not reached")
            self.sent.extend(each.event_id for each in events)
            return append(events)

        def last() -> str:
            if not self.up.is_set():
                raise StorageError("the broker is not reached")
            return last_position()

        self.arrive = append
        monkeypatch.setattr(self.broker, "append", reached)
        monkeypatch.setattr(self.broker, "last_position", last)
        for module in (relays, logs):
            opened = logs.open_log
            monkeypatch.setattr(
                module,
                "open_log",
                lambda url, config, opened=opened: (
                    opened(url, config) if url is None else self.broker
                ),
            )
        monkeypatch.setattr(consume, "_FIRST_PAUSE_SECONDS", 0.001)
        self.recommender = Recommender(folder)

    def tell(self, *arguments: str) -> str:
        told = CliRunner().invoke(cli, ["events", *arguments, "-c", str(self.folder)])
        assert told.exit_code == 0, told.output
        return told.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_tenant(tmp_path_factory.mktemp("built") / "acme")


@pytest.fixture
def site(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    folder = shutil.copytree(built, tmp_path / "acme")
    (folder / "nextedge.toml").write_text(f'tenant = "acme"\n{SETTINGS}')
    made = Site(folder, monkeypatch)
    yield made
    made.live.close()
    made.broker.close()


@pytest.fixture
def client(site: Site) -> Iterator[TestClient]:
    with TestClient(create_app(site.recommender)) as client:
        wait(lambda: relays.TO_BROKER in site.live.groups())
        yield client


def wait(happens: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(6000):
        if happens():
            return
        pause.wait(0.01)
    pytest.fail("it has not happened")


def dismiss(number: int, **more: object) -> dict[str, object]:
    return {"type": "dismiss", "user_id": 1, "candidate_id": 2, "event_id": f"own {number}", **more}


def ids(log: LocalLog) -> list[str]:
    return [each.event_id for _, each in log.read()]


def test_a_broker_that_is_down_is_waited_for_up_to_a_bound(site: Site, client: TestClient) -> None:
    for number in range(5):
        assert client.post("/v1/events", json=dismiss(number)).status_code == 202
    refused = client.post("/v1/events", json=dismiss(5))
    assert refused.status_code == 503
    assert int(refused.headers["retry-after"]) > 0
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.json()["title"] == "LogFull"
    assert "max_backlog = 5" in refused.json()["detail"]
    assert ids(site.live) == [f"own {number}" for number in range(5)]
    metrics = client.get("/metrics").text
    assert 'nextedge_events_lag{group="to-broker",tenant="acme"} 5.0' in metrics
    assert 'nextedge_events_lag_seconds{group="to-broker",tenant="acme"}' in metrics
    assert 'nextedge_dead_letters{tenant="acme"} 0.0' in metrics
    told = json.loads(site.tell("status", "--json"))
    assert [each["log"] for each in told] == ["local"], "the broker is down"
    assert told[0]["events"] == told[0]["groups"]["to-broker"]["lag"] == 5
    assert "to-broker" in site.tell("status")

    site.up.set()
    wait(lambda: site.live.lag("to-broker").events == 0)
    assert client.post("/v1/events", json=dismiss(5)).status_code == 202
    wait(lambda: len(ids(site.broker)) == 6)
    assert ids(site.broker) == [f"own {number}" for number in range(6)], "all that was acknowledged"


def test_what_a_broker_sends_is_served_and_not_sent_back(site: Site, client: TestClient) -> None:
    def shown() -> list[int]:
        answer = client.get("/v1/people/recommendations", params={"user_id": 1, "limit": 50})
        return [each["candidate_id"] for each in answer.json()["recommendations"]]

    first = shown()[0]
    for number in range(5):
        assert client.post("/v1/events", json=dismiss(number)).status_code == 202
    ErasedUsers(site.recommender.config.state_path).add(7)
    foreign = [
        Event(type="block", user_id=first, candidate_id=1, event_id="foreign block"),
        Event(type="dismiss", user_id=7, candidate_id=2, event_id="of somebody who was forgotten"),
        LaterEvent(type="teleport", user_id=1, event_id="foreign poison"),
        *(
            Event(type="impression", user_id=3, candidate_id=4, event_id=f"foreign {n}")
            for n in range(20)
        ),
    ]
    site.arrive(foreign)
    arrived = ["foreign block", *(f"foreign {n}" for n in range(20))]
    wait(lambda: ids(site.live)[5:] == arrived)  # though no more of our own are taken
    assert client.post("/v1/events", json=dismiss(5)).status_code == 503
    assert first not in shown()
    site.up.set()
    wait(lambda: site.live.lag("to-broker").events == 0)
    assert site.sent == [f"own {number}" for number in range(5)]
    letters = json.loads(site.tell("dead-letters", "--json"))
    assert [(each["log"], "teleport" in each["body"]) for each in letters] == [("local", True)]
    assert "type" in letters[0]["reason"]
    assert "teleport" in site.tell("dead-letters")
    groups = [set(each["groups"]) for each in json.loads(site.tell("status", "--json"))]
    assert groups[0] == {"to-broker"}
    assert len(groups[1]) == 1


def test_without_a_broker_nothing_waits_for_one(built: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(built, tmp_path / "acme")
    (folder / "nextedge.toml").write_text('tenant = "acme"\n[events]\nmax_backlog = 2\n')
    live = LocalLog(folder / "state")
    for group in (relays.TO_BROKER, "forsaken"):  # as one had them before
        with live.consumer(group) as consumer:
            assert consumer.poll(1, 0) == []
    assert set(live.groups()) == {relays.TO_BROKER, "forsaken"}
    with TestClient(create_app(Recommender(folder))) as client:
        assert live.groups() == ["forsaken"]
        for number, status in enumerate((202, 202, 503)):
            answer = client.post("/v1/events", json=dismiss(number))
            assert answer.status_code == status
        assert "nextedge events drop-group forsaken" in answer.json()["detail"]
        command = ["events", "drop-group", "-c", str(folder)]
        wrong = CliRunner().invoke(cli, [*command, "forsakn"]).exception
        assert isinstance(wrong, InputError)
        assert "did you mean 'forsaken'" in str(wrong)
        assert CliRunner().invoke(cli, [*command, "forsaken"]).exit_code == 0
        assert client.post("/v1/events", json=dismiss(2)).status_code == 202
        assert "nextedge_events_lag{" not in client.get("/metrics").text
    live.close()
