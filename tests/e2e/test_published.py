"""Published candidates: the same answers, found once; a store that fails costs time, never a list."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from nextedge import Question, Recommender
from nextedge.cli.main import app as cli
from nextedge.errors import StoreError
from nextedge.ranking.pipeline import RankingPipeline
from nextedge.serving.caches.precomputed import (
    CachedCandidates,
    PublishedCandidates,
    open_candidates,
    packed,
)
from nextedge.serving.messages import RecommendationResponse
from nextedge.serving.request import answer
from nextedge.stores.memory import MemoryStore
from nextedge.types import Requests

USERS = [f"u{number:06d}" for number in range(3, 300, 17)]


@pytest.fixture
def recommender(tenant: Path, tmp_path: Path) -> Iterator[Recommender]:
    shutil.copytree(tenant, tmp_path / "tenant")
    recommender = Recommender(tmp_path / "tenant")
    yield recommender
    recommender.close()


def asked(
    recommender: Recommender, surface: str, published: PublishedCandidates | None
) -> list[list[tuple[object, float, tuple[str, ...]]]]:
    question = Question(surface, 15)
    answers: list[RecommendationResponse] = [
        answer(recommender.release, recommender.overlay, [u], question, published=published)[0]
        for u in USERS
    ]
    return [[(e.id, e.score, e.sources) for e in each.recommendations] for each in answers]


@pytest.mark.parametrize("features", [False, True])
@pytest.mark.parametrize("surface", ["people", "items"])
def test_lists_of_what_was_kept_are_the_same_bit_for_bit(
    recommender: Recommender, surface: str, features: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = PublishedCandidates(MemoryStore("t"), 3600.0, 1000, features)
    computed = asked(recommender, surface, None)
    assert asked(recommender, surface, published) == computed
    ends = time.monotonic() + 20
    while len(list(published.store.keys())) < len(USERS) and time.monotonic() < ends:
        time.sleep(0.02)

    def never(*_: object) -> None:
        raise AssertionError("nothing is to be found again")

    monkeypatch.setattr(RankingPipeline, "retrieve", never)
    if features:
        monkeypatch.setattr(RankingPipeline, "matrix", never)
    assert asked(recommender, surface, published) == computed
    published.close()


class _Failing(MemoryStore):
    name = "failing"
    schemes = ()

    def get_many(self, *_: object) -> list[bytes | None]:
        raise StoreError("not reached")

    def put_many(self, *_: object) -> None:
        raise StoreError("not reached")


class _Damaged(MemoryStore):
    name = "damaged"
    schemes = ()

    def get_many(self, keys):  # type: ignore[no-untyped-def]
        return [b"NXPK and then nonsense" for _ in keys]


@pytest.mark.parametrize("kind", [_Failing, _Damaged])
def test_a_store_that_fails_is_as_one_that_holds_nothing(
    recommender: Recommender, kind: type[MemoryStore]
) -> None:
    published = PublishedCandidates(kind("t"), 3600.0, 1000)
    assert asked(recommender, "people", published) == asked(recommender, "people", None)
    assert published.failed >= len(USERS)
    published.close()


def test_requests_add_no_more_than_they_may(recommender: Recommender) -> None:
    published = PublishedCandidates(MemoryStore("t"), 3600.0, 4)
    asked(recommender, "people", published)
    store = published.store
    published.flush()
    assert len(list(store.keys())) == 4


def test_publish_keeps_every_user_once_and_drops_other_releases(recommender: Recommender) -> None:
    store = open_candidates(recommender.config)
    store.put_many({"candidates/19990101-000000/people/0": b"old", "other/1": b"kept"}, 3600.0)
    users = len(recommender.release.entities.users)
    assert recommender.publish() == 2 * users
    keys = {key.decode() for key in store.keys("")}
    assert len(keys) == 2 * users + 1
    assert "other/1" in keys
    assert not {key for key in keys if "1999" in key}
    store.delete_many([f"candidates/{recommender.release.id}/people/7"])
    found: list[np.ndarray] = []
    real = RankingPipeline.retrieve

    def counted(self, requests, *given):  # type: ignore[no-untyped-def]
        found.append(requests.query)
        return real(self, requests, *given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RankingPipeline, "retrieve", counted)
        recommender.publish()
    assert [each.tolist() for each in found] == [[7]]
    store.close()


def test_the_command_publishes(recommender: Recommender) -> None:
    done = CliRunner().invoke(cli, ["publish", "-c", str(recommender.location), "--json"])
    assert done.exit_code == 0, done.output
    assert f'"lists": {2 * len(recommender.release.entities.users)}' in done.output


def test_values_without_features_are_made_whole(recommender: Recommender) -> None:
    bare = PublishedCandidates(open_candidates(recommender.config), 3600.0, 1000)
    asked(recommender, "people", bare)
    bare.close()
    serving = recommender.config.serving.model_copy(update={"candidates_features": True})
    richer = Recommender(recommender.config.model_copy(update={"serving": serving}))
    richer.publish()
    whole = PublishedCandidates(open_candidates(richer.config), 3600.0, 1000, features=True)
    places = richer.release.entities.users.positions(USERS)
    for place in places[places >= 0]:
        kept = whole.get(richer.release.list_name("people", int(place)))
        assert kept is not None
        assert kept.matrix is not None
        assert kept.matrix.shape[0] == len(kept.candidates)
    whole.close()


def test_what_there_was_no_time_for_is_found_in_the_background(recommender: Recommender) -> None:
    published = PublishedCandidates(MemoryStore("t"), 3600.0, 1000)
    surface = recommender.release.surface("people")
    surface.pace.expected_ms["source random_walk"] = 1e6
    question = Question("people", 15, deadline_ms=500.0)
    asking = recommender.release, recommender.overlay, [USERS[0]], question
    assert "late_random_walk" in answer(*asking, published=published)[0].degraded
    ends = time.monotonic() + 20
    while not list(published.store.keys()) and time.monotonic() < ends:
        time.sleep(0.02)
    again = answer(*asking, published=published)[0]
    assert again.degraded == ()
    surface.pace.expected_ms.clear()
    plain = answer(*asking)[0]
    assert [e.id for e in again.recommendations] == [e.id for e in plain.recommendations]
    published.close()


def test_what_is_served_keeps_its_candidates_while_another_is_published(
    recommender: Recommender,
) -> None:
    served = recommender.release.id
    folder = recommender.releases.directory
    for name in ("20990101-000000", "20990202-000000"):
        shutil.copytree(folder / served, folder / name)
    recommender.publish(users=5)
    recommender.publish("20990101-000000", users=5)
    recommender.publish("20990202-000000", users=5)
    store = open_candidates(recommender.config)
    kept = {key.split(b"/")[1].decode() for key in store.keys("candidates/")}
    store.close()
    assert kept == {served, "20990202-000000"}


def test_forgetting_somebody_leaves_no_published_candidates(recommender: Recommender) -> None:
    recommender.publish(users=5)
    recommender.forget(USERS[0])
    store = open_candidates(recommender.config)
    assert list(store.keys("candidates/")) == []
    store.close()


def test_features_of_another_ranker_are_made_anew(recommender: Recommender) -> None:
    published = PublishedCandidates(MemoryStore("t"), 3600.0, 1000, features=True)
    release = recommender.release
    place = int(release.entities.users.position(USERS[0]))
    found = release.surface("people").line.retrieve(Requests(np.int32([place]), 0, 1))
    narrow = np.zeros((len(found), 3), np.float32)
    value = packed(f"candidates/{release.id}/people/{place}", CachedCandidates(found, narrow))
    published.store.put_many({f"candidates/{release.id}/people/{place}": value}, 3600.0)
    question = Question("people", 15)
    kept = answer(release, recommender.overlay, [USERS[0]], question, published=published)[0]
    plain = answer(release, recommender.overlay, [USERS[0]], question)[0]
    assert [(e.id, e.score) for e in kept.recommendations] == [
        (e.id, e.score) for e in plain.recommendations
    ]
    assert published.counts()["hits"] == 1
    published.close()
