"""What a user has just done is in the features of their next request, kept lists or not."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from nextedge import Recommender
from nextedge.data.synthetic import SyntheticConfig, generate_tenant
from nextedge.events.request_log import RequestLog
from nextedge.serving.caches.lru import Cache
from nextedge.serving.caches.precomputed import PublishedCandidates
from nextedge.serving.messages import RecommendationRequest
from nextedge.serving.prepare import prepare
from nextedge.serving.replay import replay_features
from nextedge.serving.request import answer
from nextedge.stores.memory import MemoryStore

SETTINGS = """
[serving]
deadline_ms = 0
log_features_share = 1.0
[surfaces.items.ranker]
model = "lightgbm"
compare = ["lightgbm"]
max_rows = 4000
"""
ASKED = RecommendationRequest("items", 5)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recommender]:
    folder = tmp_path_factory.mktemp("realtime")
    generate_tenant(folder, SyntheticConfig(users=200, items=80, seed=9))
    (folder / "nextedge.toml").write_text(f"{SETTINGS}[events]\nlive_graph = false\n")
    recommender = Recommender(folder)
    recommender.build(["items"])
    yield recommender
    recommender.close()


def matrix_of(recommender: Recommender, user: object) -> np.ndarray:
    release, line = recommender.release, recommender.release.surface("items").line
    requests = prepare(
        release, release.surface(ASKED.surface), recommender.overlay, [user], ASKED
    ).requests  # type: ignore[list-item]
    return line.matrix(requests, line.retrieve(requests))


def interact(recommender: Recommender, user: object, item: object) -> None:
    from nextedge import Event

    recommender.record(Event(type="interact", user_id=user, item_id=item))  # type: ignore[arg-type]


def someone(recommender: Recommender, place: int) -> object:
    return recommender.release.entities.users.identifier(place)


def test_an_interaction_changes_the_features_at_once(built: Recommender) -> None:
    user, item = someone(built, 3), built.release.entities.items.identifier(5)
    names = built.release.surface("items").line.features.names
    place = names.index("query_quiet_hours")
    before = matrix_of(built, user)
    assert (before[:, place] == matrix_of(built, user)[:, place]).all()
    interact(built, user, item)
    after = matrix_of(built, user)
    assert (after[:, place] == 0).all()  # the clock is that of events: nothing is later
    assert not np.array_equal(before, after, equal_nan=True)


def test_a_cached_list_is_left_when_its_user_does_something(built: Recommender) -> None:
    user, other = someone(built, 7), someone(built, 8)
    cache: Cache = Cache(100, 60.0)

    def ask(whom: object) -> bool:
        return answer(built.release, built.overlay, [whom], ASKED, cache=cache)[0].cached  # type: ignore[list-item]

    assert [ask(user), ask(user), ask(other)] == [False, True, False]
    interact(built, user, built.release.entities.items.identifier(2))
    assert [ask(user), ask(user), ask(other)] == [False, True, True]


def test_kept_features_give_the_same_answer_as_fresh_ones(built: Recommender) -> None:
    user = someone(built, 11)
    published = PublishedCandidates(MemoryStore("test"), 3600, 1000, features=True)
    try:
        for item in range(3):
            for _ in range(2):
                kept = answer(built.release, built.overlay, [user], ASKED, published=published)[0]  # type: ignore[list-item]
                published.flush()
            fresh = answer(built.release, built.overlay, [user], ASKED)[0]  # type: ignore[list-item]
            assert kept.recommendations == fresh.recommendations
            interact(built, user, built.release.entities.items.identifier(20 + item))
    finally:
        published.close()
    assert published.counts()["hits"] > 0


def test_batches_replays_and_single_requests_agree(built: Recommender) -> None:
    assert all(report.equal for report in built.parity(10))
    log = RequestLog(built.config.state_path, built.config.serving)
    for place in range(4):
        answer(built.release, built.overlay, [someone(built, place)], ASKED, log=log)  # type: ignore[list-item]
        interact(built, someone(built, place), built.release.entities.items.identifier(place))
    log.close()
    logged = list(RequestLog(built.config.state_path, built.config.serving).read(features=True))
    report = replay_features(built.release, "items", logged)
    assert report.requests == 4
    assert report.equal, report.to_json()
