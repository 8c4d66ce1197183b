"""A release built with the events gives the real-time features of one that is told of them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from nextedge.build.entities import EntitiesStep
from nextedge.build.tables import TablesStep
from nextedge.build.time_split.history import History
from nextedge.build.time_split.window_snapshot import serving_snapshot
from nextedge.config import parse_config
from nextedge.data.synthetic import SyntheticConfig, generate_tenant
from nextedge.engines.duckdb.engine import LocalEngine
from nextedge.events.event import Event
from nextedge.events.logs.sqlite.log import LocalLog
from nextedge.events.projections.counted import CountedFacts
from nextedge.events.state.overlay import Overlay
from nextedge.features.feature import FeatureInput, FeatureSet, feature_groups
from nextedge.graph.scope import Scope
from nextedge.graph.snapshot import Snapshot
from nextedge.progress import quiet
from nextedge.serving.release.live_counters import LiveFacts
from nextedge.types import CONNECTS, ENGAGES, Candidates, Relation, Requests

TABLES = ("users", "items", "connections", "interactions")
QUERIES = 24
HOUR = 3_600_000_000
Columns = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("given")
    generate_tenant(folder, SyntheticConfig(users=120, items=60, seed=7))
    return folder


def snapshot_of(folder: Path, state: Path) -> Snapshot:
    """What a build makes of the tables and of the events that the state holds."""
    tables = {name: f"{name}.parquet" for name in TABLES}
    config = parse_config({"data": tables, "state": str(state)}, base=folder, origin="test")
    work = state / "made"
    for name in ("tables", "entities"):
        (work / name).mkdir(parents=True)
    with LocalEngine(temp_directory=work / "spill") as engine:
        TablesStep(config, engine, "").run({}, work / "tables", quiet)
        step = EntitiesStep(config, engine)
        step.run({"tables": work / "tables"}, work / "entities", quiet)
    return serving_snapshot(History.load(work / "entities"))


def asked(snapshot: Snapshot, relation: Relation, overlay: Overlay | None) -> FeatureInput:
    """Some users and one stranger with many candidates."""
    users = np.arange(-1, QUERIES - 1, dtype=np.int32)
    candidates = np.arange(50, dtype=np.int32)
    found = Candidates(
        np.arange(QUERIES + 1, dtype=np.int64) * len(candidates), np.tile(candidates, QUERIES)
    )
    live = None if overlay is None else LiveFacts(snapshot).counters(overlay)
    return FeatureInput(Scope(snapshot, relation), Requests(users, 0, 10, live=live), found)


def features(snapshot: Snapshot, relation: Relation, overlay: Overlay | None) -> Columns:
    """Their live features."""
    given, columns = asked(snapshot, relation, overlay), {}
    for group in feature_groups(relation):
        columns |= group.compute(given) if group.live else {}
    return columns


def pairs(folder: Path) -> set[frozenset[str]]:
    rows = pl.read_parquet(folder / "connections.parquet")
    return {frozenset(map(str, row)) for row in rows.select("src", "dst").iter_rows()}


def events(folder: Path, as_of: int, seed: int) -> list[Event]:
    """Interactions of all kinds of pairs; connections made, repeated, ended, hidden; in any order."""
    random = np.random.default_rng(seed)
    known, found = pairs(folder), []
    users = pl.read_parquet(folder / "users.parquet")["user_id"].sort().to_list()[:30]
    items = pl.read_parquet(folder / "items.parquet")["item_id"].sort().to_list()
    times = as_of + 1 + random.permutation(400 * HOUR // 1_000_000)[:140] * 1_000_000
    for number, time in enumerate(times.tolist()):
        fields: dict[str, object] = {
            "event_id": f"e{number}",
            "timestamp": datetime.fromtimestamp(time / 1e6, UTC),
            "user_id": users[random.integers(30)],
        }
        if number % 2:
            fields |= {"type": "interact", "item_id": items[random.integers(60)]}
        else:
            other = users[random.integers(30)]
            if frozenset((str(fields["user_id"]), str(other))) in known:
                continue  # of what the release holds, nothing is taken back before the next build
            kinds = ["connect", "connect", "accept", "disconnect", "hide_connection"]
            fields |= {"type": str(random.choice(kinds)), "candidate_id": other}
            if other == fields["user_id"]:
                continue
        found.append(Event.model_validate(fields))
    return found


@pytest.fixture(scope="module")
def before(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    return snapshot_of(folder, tmp_path_factory.mktemp("before"))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_release_with_the_events_equals_one_that_is_told_of_them(
    folder: Path, before: Snapshot, tmp_path: Path, seed: int
) -> None:
    log = LocalLog(tmp_path)
    made = events(folder, before.as_of, seed)
    # builds read ends and hides in the order of arrival
    log.append(sorted(made, key=lambda event: event.micros))
    overlay = Overlay(log)
    overlay.catch_up()
    after = snapshot_of(folder, tmp_path)
    for relation in (CONNECTS, ENGAGES):
        told, built = features(before, relation, overlay), features(after, relation, None)
        plain = features(before, relation, None)
        assert told.keys() == built.keys()
        assert len(told) >= 4
        for name in told.keys() - {"recent_similarity"}:  # its similarities are the release's own
            np.testing.assert_allclose(told[name], built[name], rtol=1e-5, atol=1e-5, err_msg=name)
            assert not np.array_equal(told[name], plain[name], equal_nan=True), name


def test_what_the_release_has_counts_once(folder: Path, before: Snapshot, tmp_path: Path) -> None:
    """Events up to its as_of are in the release, be they in the log still or not."""
    log = LocalLog(tmp_path)
    log.append(events(folder, before.as_of, 1))
    overlay = Overlay(log)
    overlay.catch_up()
    after = snapshot_of(folder, tmp_path)
    assert after.as_of > before.as_of
    assert LiveFacts(after).counters(overlay) is None
    counters = LiveFacts(before).counters(overlay)
    assert counters is not None
    assert counters.clock == after.as_of


def test_facts_are_told_once_to_each_release_and_anew_after_erasure(
    folder: Path, before: Snapshot, tmp_path: Path
) -> None:
    log = LocalLog(tmp_path)
    overlay = Overlay(log)
    overlay.catch_up()
    facts = LiveFacts(before)
    assert facts.counters(overlay) is None
    made = [event for event in events(folder, before.as_of, 2) if event.type == "interact"]
    name, total = "user_interactions_week", []
    everybody = np.arange(len(before.entities.users), dtype=np.int32)
    for event in made:
        log.append([event, event])  # an event counts once
        overlay.catch_up()
        counters = facts.counters(overlay)
        assert counters is not None
        total.append(counters.counts(name, everybody, before.as_of).sum())
    whole = LiveFacts(before).counters(overlay)
    assert whole is not None
    np.testing.assert_allclose(whole.counts(name, everybody, before.as_of).sum(), total[-1])
    doomed = [position for position, _ in log.read()][: len(made) // 2]
    LocalLog(tmp_path).purge(doomed)  # as another process does
    overlay.catch_up()
    left = facts.counters(overlay)
    assert left is not None
    assert 0 < left.counts(name, everybody, before.as_of).sum() < total[-1]


def test_counted_facts_are_the_same_after_dump_and_load_and_in_any_order(folder: Path) -> None:
    made = events(folder, 1_700_000_000_000_000, 3)
    whole, early = CountedFacts(), CountedFacts()
    for event in made:
        whole.apply(event)
    for event in made[:50]:
        early.apply(event)
    loaded = CountedFacts()
    loaded.load(json.loads(json.dumps(early.dump())))
    for event in made[50:]:
        loaded.apply(event)
    assert loaded.dump() == whole.dump()
    assert loaded.since(3) == whole.since(3)
    other = CountedFacts()
    for event in reversed(made):
        other.apply(event)
    assert standing(other) == standing(whole)
    assert standing(whole)


def standing(facts: CountedFacts) -> dict[tuple[str, int, str, str], int]:
    """How often each fact counts in the end."""
    found: dict[tuple[str, int, str, str], int] = {}
    for kind, time, user, other, sign in facts.since(0)[0]:
        found[kind, time, user, other] = found.get((kind, time, user, other), 0) + sign
    return {fact: count for fact, count in found.items() if count}


def test_a_connection_that_is_hidden_counts_for_nobody() -> None:
    facts = CountedFacts()
    about = {"user_id": "a", "candidate_id": "b"}
    for number, kind in enumerate(("connect", "hide_connection")):
        time = datetime.fromtimestamp(1_700_000_000 + number, UTC)
        facts.apply(Event.model_validate({"type": kind, "timestamp": time, **about}))
    assert standing(facts) == {}


def test_the_oldest_facts_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nextedge.events.projections.counted.KEPT", 10)
    facts = CountedFacts()
    for number in range(57):
        facts.apply(Event.model_validate({"type": "interact", "user_id": number, "item_id": 1}))
    kept, added = facts.since(0)
    assert added == 57
    assert [fact.user for fact in kept] == [str(each) for each in range(57 - len(kept), 57)]
    assert 10 <= len(kept) <= 20
    assert facts.since(57) == ([], 57)


@pytest.mark.parametrize("relation", [CONNECTS, ENGAGES], ids=["people", "items"])
def test_a_kept_matrix_is_renewed_where_events_change_it(
    folder: Path, before: Snapshot, tmp_path: Path, relation: Relation
) -> None:
    log = LocalLog(tmp_path)
    log.append(events(folder, before.as_of, 4))
    overlay = Overlay(log)
    overlay.catch_up()
    given, now = asked(before, relation, None), asked(before, relation, overlay)
    groups = tuple(g for g in feature_groups(relation) if g.live or g.name == "activity")
    declared = FeatureSet(groups, tuple(f for g in groups for f in g.declare(given.scope)))
    kept, fresh = declared.matrix(given), declared.matrix(now)
    kept.setflags(write=False)  # as one out of a store
    np.testing.assert_array_equal(declared.renewed(now, kept), fresh)
    np.testing.assert_array_equal(declared.renewed(given, fresh), kept)
    changed = ~np.array(
        [
            np.array_equal(kept[:, place], fresh[:, place], equal_nan=True)
            for place in range(kept.shape[1])
        ]
    )
    assert set(np.array(declared.names)[changed]) == set(declared.live)
