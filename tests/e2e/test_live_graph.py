"""Edges that events make and end: lists change as if the release had been built with them."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from shared_builds import quick_builds
from starlette.testclient import TestClient

from nextedge import Recommender
from nextedge.api.app import create_app
from nextedge.graph.csr import Graph
from nextedge.serving.release.loaded import LoadedRelease
from nextedge.types import Identifier, Requests

EVENTS = 120


@pytest.fixture
def folder(tenant: Path, tmp_path: Path) -> Path:
    shutil.copytree(tenant, tmp_path / "tenant")
    return quick_builds(tmp_path / "tenant")


def drawn_events(release: LoadedRelease, chance: random.Random) -> list[dict[str, object]]:
    """Edges made, ended, hidden and left, of known users; some pairs more than once."""
    users, items = release.entities.users, release.entities.items
    graph = release.snapshot.connections

    def user() -> int:
        return chance.randrange(len(users))

    def neighbor(of: int) -> int:
        row = graph.row(of)
        return int(chance.choice(row.tolist())) if len(row) else (of + 1) % len(users)

    events: list[dict[str, object]] = []
    for _ in range(EVENTS):
        one = user()
        kind = chance.choice(
            ["connect", "accept"] * 2
            + ["disconnect"] * 3
            + ["interact", "click", "purchase"] * 2
            + ["hide_connection", "block"]
        )
        event: dict[str, object] = {"type": kind, "user_id": users.identifier(one)}
        if kind in ("interact", "click", "purchase"):
            event["item_id"] = items.identifier(chance.randrange(len(items)))
            if kind == "interact":
                event |= chance.choice(
                    [{}, {"weight": 2.5}, {"event": "dismiss"}, {"event": "like"}]
                )
        else:
            other = user() if kind in ("connect", "accept") else neighbor(one)
            if other == one:
                continue
            event["candidate_id"] = users.identifier(other)
        events.append(event)
        if chance.random() < 0.2:
            events.append({**event, "type": "disconnect"} if kind == "connect" else event)
    events.append({"type": "leave", "user_id": users.identifier(int(graph.degree.argmax()))})
    return events


def edges(release: LoadedRelease, graph: Graph, table: str) -> dict[tuple[object, object], tuple]:
    """Weight and times of each edge, by ids."""
    users = release.entities.users
    targets = users if table == "users" else release.entities.items
    found = {}
    for source in range(len(graph)):
        rows = slice(int(graph.indptr[source]), int(graph.indptr[source + 1]))
        columns = (graph.indices, graph.weight, graph.first, graph.last)
        for target, *values in zip(*(each[rows].tolist() for each in columns), strict=True):
            found[users.identifier(source), targets.identifier(target)] = tuple(values)
    return found


def two_hop(release: LoadedRelease, user: Identifier) -> list[tuple[object, float]]:
    """The candidates of one user with their scores, in order."""
    position = release.entities.users.position(user)
    requests = Requests(np.array([position], np.int32), int(time.time() * 1e6), 10)
    found = release.surface("people").line.sources["two_hop"].candidates(requests, 500)
    names = release.entities.users.identifiers(found.candidate).to_pylist()
    return list(zip(names, found.columns["score"].tolist(), strict=True))


@pytest.mark.slow
def test_lists_over_live_edges_are_those_of_a_release_that_is_built_with_them(folder: Path) -> None:
    """Long: the release with the edges is a second build."""
    recommender = Recommender(folder)
    base = recommender.release
    recommender.record(drawn_events(base, random.Random(7)))
    live = recommender.release
    assert live.id == base.id
    assert live.snapshot.connections.edges != base.snapshot.connections.edges
    assert recommender.release is live  # nothing is merged twice
    recommender.build()
    rebuilt = recommender.release
    assert rebuilt.id != live.id
    for name, table in (("connections", "users"), ("engagements", "items")):
        one = edges(live, getattr(live.snapshot, name), table)
        assert one == edges(rebuilt, getattr(rebuilt.snapshot, name), table), name
    assert live.snapshot.engaged_by.edges == live.snapshot.engagements.edges
    touched = np.flatnonzero(live.editions)
    users = [live.entities.users.identifier(int(each)) for each in touched[:: len(touched) // 80]]
    changed = 0
    for user in users:
        if rebuilt.entities.users.position(user) < 0:
            continue  # who left is nobody any more
        assert two_hop(live, user) == two_hop(rebuilt, user)
        changed += two_hop(live, user) != two_hop(base, user)
    assert changed > len(users) / 2
    assert recommender.release is rebuilt  # it has all that was recorded: nothing is live


def test_editions_tell_whose_lists_change_and_nothing_of_the_order(folder: Path) -> None:
    recommender = Recommender(folder)
    base = recommender.release
    users, graph = base.entities.users, base.snapshot.connections
    one, other, third = (int(each) for each in np.argsort(-graph.degree)[[3, 40, 80]])
    assert other not in graph.row(one)
    first = {
        "type": "connect",
        "user_id": users.identifier(one),
        "candidate_id": users.identifier(other),
    }
    second = {
        "type": "interact",
        "user_id": users.identifier(third),
        "item_id": base.entities.items.identifier(0),
    }
    for each in (first, second):
        each |= {"timestamp": datetime.now(UTC).isoformat()}
    twin = folder.parent / "twin"
    shutil.copytree(folder, twin)
    recommender.record([first])
    expected = {one, other, *graph.row(one).tolist(), *graph.row(other).tolist()}
    assert set(np.flatnonzero(recommender.release.editions).tolist()) == expected
    recommender.record([second])
    after = Recommender(twin)
    after.record([second])
    assert np.flatnonzero(after.release.editions).tolist() == [third]
    after.record([first])
    np.testing.assert_array_equal(after.release.editions, recommender.release.editions)


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_served_lists_of_both_and_of_their_neighbours_change(folder: Path, encoding: str) -> None:
    recommender = Recommender(folder)
    users, graph = recommender.release.entities.users, recommender.release.snapshot.connections
    one, other = (int(each) for each in np.argsort(-graph.degree)[[5, 60]])
    assert other not in graph.row(one)
    neighbor = next(int(n) for n in graph.row(other) if n not in graph.row(one) and n != one)

    with TestClient(create_app(recommender)) as client:
        client.headers["accept-encoding"] = encoding

        def asked(position: int, limit: int = 40) -> dict[str, object]:
            params = {"user_id": str(users.identifier(position)), "limit": limit}
            return client.get("/pymk/recommendations", params=params).json()

        def mutual(position: int, candidate: int) -> bool:
            shown = asked(position, 500)["recommendations"]
            return any(each["candidate_id"] == users.identifier(candidate) for each in shown)

        before = [asked(each) for each in (one, other, neighbor)]
        assert [asked(each)["cache"] for each in (one, other, neighbor)] == ["hit"] * 3
        event = {
            "type": "accept",
            "user_id": users.identifier(one),
            "candidate_id": users.identifier(other),
        }
        assert client.post("/v1/events", json=event).status_code == 202
        assert not mutual(one, other) and not mutual(other, one)  # at once
        deadline = time.monotonic() + 60
        while recommender.release.edition(one) == 0 and time.monotonic() < deadline:
            time.sleep(0.01)
        after = [asked(each) for each in (one, other, neighbor)]
        assert [each["cache"] for each in after] == ["miss"] * 3
        for each, former in zip(after, before, strict=True):
            assert each["recommendations"] != former["recommendations"]
        assert mutual(one, neighbor)  # a friend of the new friend
        untouched = int(np.flatnonzero(recommender.release.editions == 0)[0])
        asked(untouched)
        assert asked(untouched)["cache"] == "hit"


def test_kept_candidates_of_both_and_of_neighbours_are_renewed_before_anybody_asks(
    folder: Path,
) -> None:
    with (folder / "nextedge.toml").open("a") as settings:
        settings.write("[events]\nneighbors_refreshed = 1\n")
    recommender = Recommender(folder)
    users, graph = recommender.release.entities.users, recommender.release.snapshot.connections
    one, other = (int(each) for each in np.argsort(-graph.degree)[[7, 50]])
    assert other not in graph.row(one)
    near = sorted({*graph.row(one).tolist(), *graph.row(other).tolist()} - {one, other})[:5]
    recommender.start_serving()
    try:
        published = recommender.session.published
        assert published is not None

        def kept(position: int) -> bool:
            return published.get(recommender.release.list_name("people", position)) is not None

        def wait(done: Callable[[], bool]) -> None:
            deadline = time.monotonic() + 60
            while not done():
                assert time.monotonic() < deadline
                time.sleep(0.02)

        everybody = [one, other, *near]
        for position in everybody:
            recommender.recommend(users.identifier(position), "people")
        wait(lambda: all(map(kept, everybody)))
        former = recommender.release.list_name("people", one)
        event = {
            "type": "accept",
            "user_id": users.identifier(one),
            "candidate_id": users.identifier(other),
        }
        recommender.record(event)
        wait(lambda: recommender.release.edition(one) != 0)
        wait(lambda: kept(one) and kept(other))
        assert published.get(former) is None  # nobody reads it any more
        assert sum(map(kept, near)) <= 1  # the budget; the others wait for their request
    finally:
        recommender.close()
