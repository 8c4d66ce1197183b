"""Random histories: whatever happened in whatever order, no door shows what is forbidden.

What is forbidden is told by a model of a few sets, which knows nothing of overlays and caches.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import defaultdict
from itertools import combinations
from pathlib import Path
from typing import Any, ClassVar

import pyarrow.parquet as pq
from conftest import PEOPLE, network, person
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from starlette.testclient import TestClient

from nextedge import Recommender
from nextedge.api.app import create_app
from nextedge.serving.messages import RecommendationRequest


def cast() -> list[int]:
    """A viewer, two friends, two who share those friends, and one who is not discoverable."""
    rows = network()["connections"]
    near: dict[int, set[int]] = defaultdict(set)
    for a, b in zip(rows.column("src").to_pylist(), rows.column("dst").to_pylist(), strict=True):
        near[a].add(b)
        near[b].add(a)
    hidden = {person(place) for place in range(3, PEOPLE, 10)}
    shared = {
        (viewer, *two): [
            o for o in near[two[0]] & near[two[1]] - near[viewer] - hidden if o != viewer
        ]
        for viewer in near.keys() - hidden
        for two in combinations(sorted(near[viewer] - hidden), 2)
    }
    (viewer, *friends), others = max(shared.items(), key=lambda each: (len(each[1]), each[0]))
    return [viewer, *friends, *sorted(others)[:2], person(23)]


CAST = cast()
"""Few people, and near one another, so that their histories meet."""
ones = st.sampled_from(CAST)
pairs = st.lists(ones, min_size=2, max_size=2, unique=True).map(tuple)


class Histories(RuleBasedStateMachine):
    """A tenant that is served with caches on, and what must be true of it."""

    built: ClassVar[Path]

    @initialize()
    def start(self) -> None:
        self.home = Path(tempfile.mkdtemp())
        shutil.copytree(self.built, self.home / "tenant", ignore=shutil.ignore_patterns("work"))
        self.recommender = Recommender(self.home / "tenant")
        self.client = TestClient(create_app(Recommender(self.home / "tenant")))
        self.client.__enter__()
        rows = pq.read_table(self.home / "tenant" / "connections.parquet")
        ends = zip(rows.column("src").to_pylist(), rows.column("dst").to_pylist(), strict=True)
        self.released = {frozenset(pair) for pair in ends}
        self.linked: set[frozenset[int]] = set()
        self.ended: set[frozenset[int]] = set()
        self.blocks: set[tuple[int, int]] = set()
        self.hides: set[tuple[int, int]] = set()
        self.dismissed: set[tuple[int, int]] = set()
        self.opted_out: set[int] = set()
        self.gone: set[int] = set()
        self.forgotten: set[int] = set()

    def teardown(self) -> None:
        self.client.__exit__(None, None, None)
        self.recommender.close()
        shutil.rmtree(self.home)

    def record(self, kind: str, user: int, other: int | None = None) -> bool:
        """Half of the events come over HTTP, half from another process; a forgotten's go nowhere."""
        event = {"type": kind, "user_id": user, "candidate_id": other}
        if user % 2:
            assert self.client.post("/v1/events", json=event).status_code == 202
        else:
            self.recommender.record(event)
        return not {user, other} & self.forgotten

    @rule(pair=pairs)
    def connect(self, pair: tuple[int, int]) -> None:
        if self.record("connect", *pair):
            self.linked.add(frozenset(pair))
            self.ended.discard(frozenset(pair))

    @rule(pair=pairs)
    def disconnect(self, pair: tuple[int, int]) -> None:
        if self.record("disconnect", *pair):
            self.linked.discard(frozenset(pair))
            self.ended.add(frozenset(pair))

    @rule(pair=pairs)
    def block(self, pair: tuple[int, int]) -> None:
        if self.record("block", *pair):
            self.blocks.add(pair)

    @rule(data=st.data(), turned=st.booleans())
    def unblock(self, data: st.DataObject, turned: bool) -> None:
        if self.blocks:
            pair = data.draw(st.sampled_from(sorted(self.blocks)))
            pair = pair[::-1] if turned else pair  # the other side's attempt
            self.record("unblock", *pair)
            self.blocks.discard(pair)

    @rule(pair=pairs)
    def hide(self, pair: tuple[int, int]) -> None:
        if self.record("hide_connection", *pair):
            self.hides.add(pair)

    @rule(data=st.data(), turned=st.booleans())
    def unhide(self, data: st.DataObject, turned: bool) -> None:
        if self.hides:
            pair = data.draw(st.sampled_from(sorted(self.hides)))
            pair = pair[::-1] if turned else pair
            self.record("unhide_connection", *pair)
            self.hides.discard(pair)

    @rule(pair=pairs)
    def dismiss(self, pair: tuple[int, int]) -> None:
        if self.record("dismiss", *pair):
            self.dismissed.add(pair)

    @rule(user=ones)
    def opt_out(self, user: int) -> None:
        self.record("opt_out", user)
        self.opted_out.add(user)

    @rule(user=ones)
    def opt_in(self, user: int) -> None:
        self.record("opt_in", user)
        self.opted_out.discard(user)

    @rule(user=ones)
    def leave(self, user: int) -> None:
        if not self.gone:
            self.record("leave", user)
            self.gone.add(user)

    @rule(user=ones)
    def forget(self, user: int) -> None:
        if not self.forgotten:
            self.recommender.forget(user)
            self.forgotten.add(user)
            for kept in (self.blocks, self.hides, self.dismissed, self.linked, self.ended):
                kept -= {pair for pair in kept if user in pair}  # type: ignore[misc]

    def absent(self) -> set[int]:
        return self.opted_out | self.gone | self.forgotten | {person(23)}

    def apart(self, user: int, other: int) -> bool:
        """Whether one of the two must not be linked to the other."""
        both = {(user, other), (other, user)}
        return bool(both & (self.blocks | self.hides))

    def forbidden(self, user: int) -> set[int]:
        strangers = self.gone | self.forgotten
        found = self.absent() | {user}
        for other in CAST:
            pair = frozenset((user, other))
            mine = (user, other) in self.dismissed or pair in self.linked or self.apart(user, other)
            if user not in strangers and (mine or pair in self.released):
                found.add(other)
        return found if user not in strangers else found - {user} | self.absent()

    def check(self, user: int, shown: list[tuple[int, str, dict[str, Any]]]) -> None:
        assert not {each for each, _, _ in shown} & self.forbidden(user), user
        for candidate, text, evidence in shown:
            if "names" not in evidence:
                continue
            assert user not in self.gone | self.forgotten
            for other in CAST:
                pairs = frozenset((user, other)), frozenset((other, candidate))
                told = f"Name{other} of" in text
                assert not (told and other in self.absent())
                assert not (told and any(self.apart(*pair) for pair in pairs if len(pair) == 2))
                assert not (told and set(pairs) & self.ended)
            possible = [
                mutual
                for mutual in self.neighbours(user) & self.neighbours(candidate)
                if not self.apart(user, mutual) and not self.apart(candidate, mutual)
            ]
            assert evidence["count"] <= len(set(possible) - self.absent())

    def neighbours(self, user: int) -> set[int]:
        return {next(iter(p - {user})) for p in self.released - self.ended if user in p}

    @invariant()
    def nothing_forbidden_is_shown(self) -> None:
        answers = self.recommender.recommend_many(CAST, RecommendationRequest("people", 40))
        for user, answer in zip(CAST, answers, strict=True):
            found = answer.recommendations
            self.check(user, [(each.id, each.reason.text, each.reason.evidence) for each in found])  # type: ignore[misc]
        for user in CAST[:3]:
            given = {"user_id": user, "limit": 40}
            for path in ("/pymk/recommendations",) * 2:
                self.rows(user, self.client.get(path, params=given).json())
            body = {"tenant_id": "default", "user_id": user, "count": 40, "surface": "people"}
            self.rows(user, self.client.post("/internal/ml/recommendations", json=body).json())

    def rows(self, user: int, answer: dict[str, Any]) -> None:
        self.check(
            user,
            [
                (each["candidate_id"], each["reason"]["text"], each["reason"]["evidence"])
                for each in answer["recommendations"]
            ],
        )

    @invariant()
    def nobody_hidden_is_similar_to_anybody(self) -> None:
        for user in CAST[3:5]:
            answer = self.client.get("/v1/people/similar", params={"id": user, "limit": 60})
            assert answer.status_code == (404 if user in self.absent() else 200)
            near = {each["id"] for each in answer.json().get("similar", ())}
            assert not near & self.absent()
            assert not {o for o in CAST if {(user, o), (o, user)} & self.blocks} & near


def test_random_histories_show_nothing_forbidden(built: Path) -> None:
    Histories.built = built
    run_state_machine_as_test(
        Histories,
        settings=settings(
            max_examples=3,
            stateful_step_count=25,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate],
        ),
    )
