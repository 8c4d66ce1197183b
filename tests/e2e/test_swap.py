"""Releases are swapped under load, whole and warm; a second one answers its share of the users."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from nextedge import Recommender
from nextedge.api.app import create_app
from nextedge.errors import InputError, UnknownReleaseError
from nextedge.releases.pointers import Trial
from nextedge.serving.active_release import in_trial

OTHER = "20990101-000000"
USERS = [f"u{number:06d}" for number in range(200)]


@pytest.fixture
def recommender(tenant: Path, tmp_path: Path) -> Iterator[Recommender]:
    """Of a folder with two releases, the second not promoted."""
    shutil.copytree(tenant, tmp_path / "tenant")
    recommender = Recommender(tmp_path / "tenant")
    folder = recommender.releases.directory
    shutil.copytree(folder / recommender.release.id, folder / OTHER)
    yield recommender
    recommender.close()


def soon(true: Callable[[], bool], seconds: float = 20.0) -> bool:
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        if true():
            return True
        time.sleep(0.02)
    return False


def test_promotions_and_rollbacks_are_seen_under_load(recommender: Recommender) -> None:
    first = recommender.release.id
    recommender.start_serving()
    seen, faults, done = [], [], threading.Event()

    def load() -> None:
        while not done.is_set():
            for user in USERS[:20]:
                try:
                    answer = recommender.recommend(user, "people", 5)
                    assert len(answer.recommendations) == 5
                    seen.append(answer.release)
                except Exception as error:
                    faults.append(error)

    threads = [threading.Thread(target=load) for _ in range(2)]
    for thread in threads:
        thread.start()
    elsewhere = Recommender(recommender.config)
    for promoted in (OTHER, first, OTHER):
        if promoted == first:
            elsewhere.releases.rollback()
        else:
            elsewhere.releases.promote(promoted)
        assert soon(lambda wanted=promoted: bool(seen) and seen[-1] == wanted)  # type: ignore[misc]
    done.set()
    for thread in threads:
        thread.join()
    assert faults == []
    changes = [b for a, b in pairwise(seen) if a != b]
    assert changes[-1] == OTHER
    assert len(changes) < 3 * (len(threads) + 3)  # each thread may end a request on the old one


def test_a_damaged_release_is_not_swapped_in(
    recommender: Recommender, caplog: pytest.LogCaptureFixture
) -> None:
    first = recommender.release.id
    recommender.start_serving()
    recommender.releases.promote(OTHER)
    assert soon(lambda: recommender.release.id == OTHER)
    path = recommender.releases.directory / first / "manifest.json"
    path.write_text("{")
    recommender.releases._replace("CURRENT", first)
    assert not soon(lambda: recommender.release.id != OTHER, 0.5)
    assert len(recommender.recommend(USERS[0], "people", 5).recommendations) == 5


def test_the_files_may_go_while_they_are_served(recommender: Recommender) -> None:
    recommender.start_serving()
    before = recommender.recommend(USERS[3], "people", 5)
    shutil.rmtree(recommender.releases.directory / before.release)
    time.sleep(0.3)
    recommender.session.cache = None
    again = recommender.recommend(USERS[3], "people", 5)
    assert [e.id for e in again.recommendations] == [e.id for e in before.recommendations]


def test_a_trial_answers_its_share_and_says_so(recommender: Recommender) -> None:
    first = recommender.release.id
    recommender.releases.start_trial(OTHER, 0.3, "wider")
    answers = recommender.recommend_many(USERS, _question())
    tried = {a.user_id for a in answers if a.release == OTHER}
    assert 0.2 < len(tried) / len(USERS) < 0.4
    for answer in answers:
        arm = "treatment" if answer.user_id in tried else "control"
        assert answer.experiment == f"wider:{arm}"
        assert answer.release == (OTHER if answer.user_id in tried else first)
    assert tried == {u for u in USERS if in_trial(Trial("wider", OTHER, 0.3), u)}
    assert recommender.releases.prune(1) == []  # both are in use
    recommender.releases.end_trial()
    assert {a.release for a in recommender.recommend_many(USERS, _question())} == {first}
    assert recommender.recommend(USERS[0], "people").experiment is None


def test_a_trial_names_what_is_wrong(recommender: Recommender) -> None:
    with pytest.raises(UnknownReleaseError):
        recommender.releases.start_trial("none", 0.1)
    with pytest.raises(InputError, match=r"share = 1\.5"):
        recommender.releases.start_trial(OTHER, 1.5)


def test_a_trial_that_cannot_be_read_is_none(
    recommender: Recommender, caplog: pytest.LogCaptureFixture
) -> None:
    (recommender.releases.directory / "TRIAL").write_text('{"name": 1')
    for user in USERS[:3]:
        assert recommender.recommend(user, "people", 5).experiment is None
    told = [r for r in caplog.records if "no trial" in r.message]
    assert len(told) == 1


def test_encoded_answers_follow_the_arm_of_their_user(recommender: Recommender) -> None:
    with TestClient(create_app(recommender)) as client:
        recommender.releases.start_trial(OTHER, 0.5, "half")
        assert soon(lambda: recommender.session.active.now().of_user(USERS[0])[1] is not None)
        time.sleep(0.2)  # what is looked at ten times a second
        release = recommender.release
        places = release.entities.users.positions(USERS)
        degree = release.snapshot.connections.degree
        # lists of those whom the release does not know, or without an edge, are not kept
        for user in [u for u, at in zip(USERS, places, strict=True) if at >= 0 and degree[at]][:12]:
            params = {"user_id": user, "limit": 5}
            first, second = (client.get("/pymk/recommendations", params=params) for _ in "ab")
            assert second.headers["x-cache"] == "hit"
            for answer in (first.json(), second.json()):
                arm = "treatment" if answer["release"] == OTHER else "control"
                assert answer["experiment"] == f"half:{arm}"
                assert (answer["release"] == OTHER) == in_trial(Trial("half", OTHER, 0.5), user)


def _question():  # type: ignore[no-untyped-def]
    from nextedge import Question

    return Question("people", 5)
