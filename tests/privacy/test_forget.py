"""After ``forget`` no byte of the state holds the person, and nothing brings them back."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pytest
from conftest import PEOPLE, network, person, write
from starlette.testclient import TestClient
from typer.testing import CliRunner

from nextedge import Recommender
from nextedge.api.app import create_app
from nextedge.api.keys import ApiKeys
from nextedge.cli.main import app as cli
from nextedge.data.ids import IdMap
from nextedge.events.logs.sqlite.log import LocalLog
from nextedge.events.request_log import RequestLog
from nextedge.releases import erasure
from nextedge.releases.repository import Releases

GONE, OTHER = person(20), person(21)


def traces(folder: Path, user: int = GONE) -> set[str]:
    """Files of the state in which an id stands as text or as an int64, SQLite's pages included."""
    marks = str(user).encode(), user.to_bytes(8, "little")
    files = [path for path in (folder / "state").rglob("*") if path.is_file()]
    found = {p for p in files if any(mark in p.read_bytes() for mark in marks)}
    return {str(path.relative_to(folder / "state")) for path in found}


def used(folder: Path) -> Recommender:
    """The tenant after a day of service: the person asked, was shown, blocked and was blocked."""
    release = next((folder / "state" / "releases").glob("2*"))
    shutil.copytree(release, release.with_name("20250101-000000"))  # an older one
    shutil.copytree(folder / "state" / "work", folder / "state" / "text")
    (folder / "state" / "training").mkdir()
    (folder / "state" / "training" / "a.json").write_text(f'"failed at user {GONE}"')
    with TestClient(create_app(Recommender(folder))) as client:
        for place in range(0, PEOPLE, 4):
            for _ in range(2):
                client.get("/pymk/recommendations", params={"user_id": person(place), "limit": 40})
        events = [
            {"type": "block", "user_id": GONE, "candidate_id": OTHER},
            {"type": "connect", "user_id": person(1), "candidate_id": GONE},
            {"type": "impression", "user_id": OTHER, "candidate_id": GONE},
            {
                "type": "dismiss",
                "user_id": OTHER,
                "candidate_id": person(30),
                "seen_by": [str(GONE)],
            },
            {"type": "block", "user_id": OTHER, "candidate_id": person(31)},
            {"type": "opt_out", "user_id": person(32)},
        ]
        assert client.post("/v1/events", json=events).status_code == 202
    recommender = Recommender(folder)
    assert len(traces(folder)) > 10
    return recommender


def still_right(recommender: Recommender) -> None:
    """The others are served as before; the person is a stranger and is shown to nobody."""
    recommender.releases.verify(recommender.release.release)
    for place in range(2, PEOPLE, 6):
        answer = recommender.recommend(person(place), k=40)
        found = [each.id for each in answer.recommendations]
        assert len(found) == 40
        assert not answer.degraded
        assert not {GONE, None, person(32)} & {*found}
        told = " ".join(each.reason.text for each in answer.recommendations)
        assert str(GONE) not in told
        assert "None" not in told
        assert answer.known_user == (person(place) != GONE)
    assert person(31) not in [e.id for e in recommender.recommend(OTHER, k=100).recommendations]
    everybody = [a.user_id for batch in recommender.recommend_all(question()) for a in batch]
    assert sorted(everybody) == [person(p) for p in range(PEOPLE) if person(p) != GONE]


def question():  # type: ignore[no-untyped-def]
    from nextedge.serving.messages import RecommendationRequest

    return RecommendationRequest("people", 3)


def test_no_byte_is_left_and_a_build_brings_nothing_back(folder: Path) -> None:
    recommender = used(folder)
    before = {place: traces(folder, person(place)) for place in (21, 22)}
    ranked = [e.id for e in recommender.recommend(person(60), k=100).recommendations]
    done = CliRunner().invoke(cli, ["forget", str(GONE), "-c", str(folder), "--json"])
    erased = json.loads(done.stdout)
    assert erased["releases"] == 2
    assert erased["events"] == 4
    assert erased["requests"] > 1
    assert traces(folder) == set()
    assert all(traces(folder, person(place)) for place in before)
    still_right(recommender)  # a process that was serving all along
    still_right(Recommender(folder))
    left = [e.id for e in recommender.recommend(person(60), k=100).recommendations]
    assert set(ranked) - set(left) <= {GONE}
    log = RequestLog(folder / "state", recommender.config.serving)
    shown = [each for request in log.read() for each in request.candidates]
    assert None in shown
    assert person(25) in shown
    recommender.replay()
    again = CliRunner().invoke(cli, ["forget", str(GONE), "-c", str(folder), "--json"])
    assert json.loads(again.stdout) == {"releases": 0, "events": 0, "requests": 0}
    recommender.releases.promote("20250101-000000-without-1")
    still_right(recommender)
    # what names them from now on is not kept, and the tables that still hold them are not read
    recommender.record({"type": "connect", "user_id": person(1), "candidate_id": GONE})
    with TestClient(create_app(Recommender(folder))) as client:
        client.get("/pymk/recommendations", params={"user_id": GONE})
    (checked,) = [t for t in recommender.check().tables if t.table == "users"]
    assert [(f.rows, f.action) for f in checked.findings if f.code == "forgotten"] == [
        (1, "dropped")
    ]
    assert checked.rows_read == PEOPLE
    recommender.build()
    assert traces(folder) == set()
    still_right(recommender)


STAGES = {
    "before a release is sealed": (erasure, "seal"),
    "before it takes the old one's place": (Releases, "succeed"),
    "before the events go": (LocalLog, "purge"),
    "before the requests go": (RequestLog, "forget"),
}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stopped_run_is_run_again(
    folder: Path, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    recommender = used(folder)
    owner, name = STAGES[stage]

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, stop)
        with pytest.raises(KeyboardInterrupt):
            recommender.forget(GONE)
    assert traces(folder)
    assert Recommender(folder).recommend(OTHER).recommendations  # what is served is whole
    recommender.forget(GONE)
    assert traces(folder) == set()
    still_right(recommender)


def test_only_an_administrator_forgets_over_http(folder: Path) -> None:
    keys = ApiKeys(folder / "state")
    tokens = {scope: keys.create((scope,))[1] for scope in ("write", "admin")}
    with TestClient(create_app(Recommender(folder))) as client:

        def delete(scope: str, user: int | str):  # type: ignore[no-untyped-def]
            bearer = {"Authorization": f"Bearer {tokens[scope]}"}
            return client.delete(f"/v1/users/{user}", headers=bearer)

        assert delete("write", GONE).status_code == 403
        assert delete("admin", GONE).json()["releases"] == 1
        for unknown in (GONE, "nobody"):
            answer = delete("admin", unknown)
            assert answer.status_code == 200
            assert answer.json() == {"releases": 0, "events": 0, "requests": 0}
    assert traces(folder) == set()


def test_people_with_ids_of_text_are_forgotten(tmp_path: Path) -> None:
    ids = IdMap(pa.array(["ada", "ada-2", "bonnie", "cy"]))
    for _ in range(2):
        ids = ids.without(0).without(2)
        assert [ids.position(each) for each in ("ada", "ada-2", "bonnie", "cy", "")] == [
            -1,
            1,
            -1,
            3,
            -1,
        ]
        many = ids.positions(["ada", "ada-2", "bonnie", "cy", ""] * 20).tolist()
        assert many == [-1, 1, -1, 3, -1] * 20
        ids.save(tmp_path / "ids.arrow")
        assert b"bonnie" not in (tmp_path / "ids.arrow").read_bytes()
        ids = IdMap.load(tmp_path / "ids.arrow")
    numbers = IdMap(pa.array([5, 6, 7, 8])).without(0).without(2)
    assert [numbers.position(each) for each in (0, 5, 6, 7, 8)] == [-1, -1, 1, -1, 3]
    assert numbers.positions(pa.array([0, 5, 6, 7, 8])).tolist() == [-1, -1, 1, -1, 3]


def test_a_forgotten_item_of_the_same_number_stays(tmp_path: Path) -> None:
    """Users and items have ids of their own: only the user is forgotten."""
    found = network()
    found["items"] = pa.table({"item_id": [GONE, 1]})
    found["interactions"] = pa.table({"user_id": [OTHER, GONE], "item_id": [GONE, 1]})
    recommender = Recommender(write(tmp_path / "t", found, "[surfaces.people]\n[surfaces.items]\n"))
    recommender.record({"type": "item_unavailable", "item_id": GONE})
    assert recommender.forget(GONE).events == 0
    read = {t.table: t.rows_used for t in recommender.check().tables}
    assert (read["items"], read["interactions"], read["users"]) == (2, 1, PEOPLE - 1)
