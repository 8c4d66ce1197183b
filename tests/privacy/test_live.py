"""What is recorded after the release holds at every door, at once and in both directions."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from conftest import PEOPLE, person
from starlette.testclient import TestClient

from nextedge import Recommender
from nextedge.api.app import create_app
from nextedge.data.ids import IdMap
from nextedge.errors import LiveStateError, StorageError


@pytest.fixture
def client(folder: Path) -> Iterator[TestClient]:
    with TestClient(create_app(Recommender(folder))) as client:
        yield client


def record(client: TestClient, kind: str, user: int, other: int | None = None) -> None:
    event = {"type": kind, "user_id": user, "candidate_id": other}
    assert client.post("/v1/events", json=event).status_code == 202


def people(client: TestClient, user: int | str, limit: int = 50) -> list[dict[str, Any]]:
    found = client.get("/pymk/recommendations", params={"user_id": str(user), "limit": limit})
    return list(found.json()["recommendations"])


def shown(client: TestClient, user: int | str) -> set[int]:
    return {each["candidate_id"] for each in people(client, user)}


def name(user: int) -> str:
    return f"Name{user} of"


def a_triple(client: TestClient) -> tuple[int, int, int]:
    """(viewer, candidate, mutual): the mutual is named as evidence to the viewer."""
    users = {name(person(place)): person(place) for place in range(PEOPLE)}
    for place in range(PEOPLE):
        for each in people(client, person(place), 5):
            for told in each["reason"]["evidence"].get("names", ()):
                return person(place), each["candidate_id"], users[told.rsplit(" ", 1)[0]]
    raise AssertionError("nobody has a mutual connection")


def reason(client: TestClient, viewer: int, candidate: int) -> dict[str, Any]:
    found = {each["candidate_id"]: each["reason"] for each in people(client, viewer)}
    return dict(found[candidate])


@pytest.mark.parametrize(
    ("kind", "by", "of"),
    [
        ("opt_out", "mutual", None),
        ("leave", "mutual", None),
        ("block", "mutual", "candidate"),
        ("block", "candidate", "mutual"),
        ("block", "mutual", "viewer"),
        ("block", "viewer", "mutual"),
        ("disconnect", "mutual", "candidate"),
        ("disconnect", "viewer", "mutual"),
        ("hide_connection", "mutual", "candidate"),
        ("hide_connection", "candidate", "mutual"),
        ("hide_connection", "mutual", "viewer"),
        ("hide_connection", "viewer", "mutual"),
    ],
)
def test_evidence_ends_with_the_next_answer(
    client: TestClient, kind: str, by: str, of: str | None
) -> None:
    viewer, candidate, mutual = a_triple(client)
    who = {"viewer": viewer, "candidate": candidate, "mutual": mutual}
    before = reason(client, viewer, candidate)
    reason(client, viewer, candidate)  # the answer is kept as bytes now
    record(client, kind, who[by], who[of] if of else None)
    after = reason(client, viewer, candidate)
    assert name(mutual) not in after["text"]
    count = after["evidence"]["count"] if after["code"] == "mutual_connections" else 0
    assert count == before["evidence"]["count"] - 1


def test_nobody_undoes_what_another_did(client: TestClient) -> None:
    victim, attacker = person(0), person(1)
    for kind, undo in (("block", "unblock"), ("hide_connection", "unhide_connection")):
        record(client, kind, victim, attacker)
        record(client, undo, attacker, victim)
        assert attacker not in shown(client, victim)
        assert victim not in shown(client, attacker)
        record(client, kind, attacker, victim)
        record(client, undo, victim, attacker)
        assert victim not in shown(client, attacker)


@pytest.mark.parametrize("spelling", ["0{}", "+{}", " {}", "{} ", "{}.0"])
def test_an_id_has_one_spelling(client: TestClient, spelling: str) -> None:
    """Live state is kept by the text of an id: no other text may lead to the same person."""
    blocked = people(client, person(0))[0]["candidate_id"]
    record(client, "block", blocked, person(0))
    record(client, "opt_out", person(2))
    other = spelling.format(person(0))
    strangers = [each["candidate_id"] for each in people(client, "nobody-knows")]
    assert [each["candidate_id"] for each in people(client, other)] == strangers
    gone = spelling.format(person(2))
    assert client.get("/v1/people/similar", params={"id": gone}).status_code == 404


def test_a_batch_of_ids_is_found_as_one_by_one() -> None:
    largest = 2**63 - 1
    ids = IdMap(pa.array([-7, 0, 7, 1_234_567_890_123_456_789, largest]))
    texts = [
        "-7",
        "0",
        "7",
        "1234567890123456789",
        str(largest),
        "07",
        "+7",
        "-0",
        "",
        "x",
        str(largest + 1),
        "99999999999999999999",
    ]
    one_by_one = [ids.position(text) for text in texts]
    assert one_by_one == [0, 1, 2, 3, 4, *[-1] * 7]
    assert ids.positions(texts * 10).tolist() == one_by_one * 10


def test_who_left_is_a_stranger_and_shown_to_nobody(client: TestClient) -> None:
    gone = people(client, person(0))[0]["candidate_id"]
    people(client, gone)  # their ranked list and their answer are kept now
    assert people(client, gone) != people(client, "nobody-knows")
    record(client, "leave", gone)
    assert people(client, gone) == people(client, "nobody-knows")
    for place in range(0, PEOPLE, 7):
        assert gone not in shown(client, person(place))
    assert client.get("/v1/people/similar", params={"id": gone}).status_code == 404


def test_hidden_and_unknown_people_cannot_be_told_apart(client: TestClient) -> None:
    undiscoverable, opted_out, departed = person(3), person(4), person(5)
    record(client, "opt_out", opted_out)
    record(client, "leave", departed)
    for path in ("/v1/people/similar?id={}", "/v1/embeddings/user/{}"):
        unknown = client.get(path.format("999"))
        for hidden in (undiscoverable, opted_out, departed):
            answer = client.get(path.format(hidden))
            assert answer.status_code == unknown.status_code
            assert answer.text == unknown.text.replace("999", str(hidden))


def test_people_who_blocked_one_another_are_not_similar(client: TestClient) -> None:
    def similar(user: int) -> list[int]:
        found = client.get("/v1/people/similar", params={"id": user, "limit": 100}).json()
        return [each["id"] for each in found["similar"]]

    first = similar(person(0))[0]
    record(client, "block", first, person(0))
    assert first not in similar(person(0))
    assert person(0) not in similar(first)


def test_without_live_state_nobody_is_shown(folder: Path) -> None:
    recommender = Recommender(folder)
    with TestClient(create_app(recommender)) as client:
        assert people(client, person(0))
        people(client, person(0))  # kept as bytes
        log = folder / "state" / "events.sqlite"
        for path in (folder / "state").glob("events.sqlite*"):
            path.unlink()
        log.write_bytes(b"no database at all" * 500)
        time.sleep(0.15)  # answers kept as bytes look for the file ten times a second
        answer = client.get("/pymk/recommendations", params={"user_id": person(0), "limit": 50})
        assert answer.status_code == 200
        assert answer.json()["recommendations"] == []
        assert answer.json()["degraded"] == ["live_state_unavailable"]
        body = {"tenant_id": "default", "user_id": person(0)}
        internal = client.post("/internal/ml/recommendations", json=body).json()
        assert internal["recommendations"] == []
        similar = client.get("/v1/people/similar", params={"id": person(0)})
        assert similar.status_code == 503
        event = {"type": "opt_out", "user_id": person(1)}
        assert client.post("/v1/events", json=event).status_code == 503
        assert recommender.recommend(person(0)).recommendations == ()
        assert all(
            not a.recommendations
            for a in Recommender(folder).recommend_many(
                [person(0), person(1)], question(recommender)
            )
        )


def test_a_log_that_is_gone_is_not_made_anew(folder: Path) -> None:
    recommender = Recommender(folder)
    recommender.record({"type": "opt_out", "user_id": person(1)})
    assert recommender.recommend(person(0)).recommendations
    for path in (folder / "state").glob("events.sqlite*"):
        path.unlink()
    assert recommender.recommend(person(0)).degraded == ("live_state_unavailable",)
    with pytest.raises(StorageError):
        recommender.record({"type": "opt_out", "user_id": person(2)})


def test_a_locked_log_shows_nobody_until_it_is_free(folder: Path) -> None:
    recommender = Recommender(folder)
    recommender.record({"type": "opt_out", "user_id": person(1)})
    locker = sqlite3.connect(folder / "state" / "events.sqlite", isolation_level=None)
    recommender.overlay.log.close()
    locker.execute("PRAGMA locking_mode = EXCLUSIVE")
    locker.execute("PRAGMA journal_mode = DELETE")
    locker.execute("BEGIN EXCLUSIVE")
    try:
        assert recommender.recommend(person(0)).degraded == ("live_state_unavailable",)
        with pytest.raises(LiveStateError):
            recommender.overlay.catch_up()
    finally:
        locker.execute("ROLLBACK")
        locker.close()
    shown = recommender.recommend(person(0)).recommendations[0].id
    for _ in range(3):  # a new connection counts its changes anew, and may miss none
        recommender.overlay.log.close()
        Recommender(folder).record({"type": "block", "user_id": shown, "candidate_id": person(0)})
        left = [each.id for each in recommender.recommend(person(0)).recommendations]
        assert shown not in left
        shown = left[0]


def question(recommender: Recommender):  # type: ignore[no-untyped-def]
    from nextedge.serving.messages import RecommendationRequest

    return RecommendationRequest(recommender.surface_name(None))
