"""The feedback loop: what was shown and what came of it is in the next build, and leaves no trace it must not."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nextedge import Recommender
from nextedge.build.tables import REPORT, TablesStep
from nextedge.build.time_split.history import History
from nextedge.build.training_set.impression_outcomes import ImpressionOutcomes, outcomes_between
from nextedge.config import RankerConfig
from nextedge.engines.duckdb.engine import LocalEngine
from nextedge.progress import quiet
from nextedge.retrieval.registry import source_classes
from nextedge.types import CONNECTS, ENGAGES, Relation

PEOPLE, ITEMS = 120, 40
NOW = datetime.now(UTC).replace(microsecond=0)
SOURCES = {
    "people": ("two_hop", "popular", "recent", "profile"),
    "items": ("item_knn", "popular", "recent"),
}
"""Few, and cheap ones: what is tested is the loop, not how good a list is."""


SETTINGS = "[serving]\ndeadline_ms = 0\n" + "".join(
    f"[surfaces.{name}]\nk = 10\n"
    f"[surfaces.{name}.ranker]\nmodel = 'lightgbm'\ncompare = ['lightgbm']\n"
    f"trees = 20\nmax_rows = 2000\n[surfaces.{name}.sources]\n"
    + "".join(f"{each}.enabled = false\n" for each in source_classes() if each not in used)
    for name, used in SOURCES.items()
)


def ago(days: float) -> datetime:
    return NOW - timedelta(days=days)


def tables() -> dict[str, pa.Table]:
    """People of four schools who know each other and buy alike, over 300 days up to now."""
    random = np.random.default_rng(4)
    school = random.integers(0, 4, PEOPLE)
    near = np.where(school[:, None] == school[None, :], 0.25, 0.02)
    left, right = np.nonzero(np.triu(random.random((PEOPLE, PEOPLE)) < near, 1))
    liked = np.where(school[:, None] == np.arange(ITEMS)[None, :] % 4, 0.3, 0.03)
    user, item = np.nonzero(random.random((PEOPLE, ITEMS)) < liked)

    def times(rows: int) -> pa.Array:
        days = random.uniform(0.5, 300, rows)
        return pa.array([ago(float(day)) for day in days], pa.timestamp("us", "UTC"))

    return {
        "users": pa.table(
            {"user_id": [f"u{n:03d}" for n in range(PEOPLE)], "school": [f"s{n}" for n in school]}
        ),
        "connections": pa.table(
            {
                "src": [f"u{n:03d}" for n in left],
                "dst": [f"u{n:03d}" for n in right],
                "timestamp": times(len(left)),
            }
        ),
        "items": pa.table(
            {
                "item_id": [f"i{n:02d}" for n in range(ITEMS)],
                "category": [f"c{n % 4}" for n in range(ITEMS)],
                "price": np.linspace(1, 9, ITEMS),
                "stock": np.arange(ITEMS) % 7,
            }
        ),
        "interactions": pa.table(
            {
                "user_id": [f"u{n:03d}" for n in user],
                "item_id": [f"i{n:02d}" for n in item],
                "timestamp": times(len(user)),
            }
        ),
    }


def write(folder: Path, found: dict[str, pa.Table], settings: str = SETTINGS) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in found.items():
        pq.write_table(table, folder / f"{name}.parquet")
    (folder / "nextedge.toml").write_text(settings)
    return folder


def work(folder: Path, step: str) -> Path:
    """What the latest build left of a step."""
    (found,) = (folder / "state" / "work").glob(f"{step}-*")
    return found


def impressions(folder: Path) -> dict[tuple[str, str], dict[str, Any]]:
    rows = pq.read_table(work(folder, "tables") / "impressions.parquet").to_pylist()
    found = {(row["recommendation_id"], row["candidate_id"] or row["item_id"]): row for row in rows}
    assert len(found) == len(rows)
    return found


def shown(folder: Path, relation: Relation) -> ImpressionOutcomes:
    history = History.load(work(folder, "entities"))
    start, end = (int(ago(days).timestamp() * 1e6) for days in (100, 0.1))
    found = outcomes_between(history, relation, start, end, RankerConfig())
    assert found is not None
    return found


def counts(folder: Path, relation: Relation) -> tuple[int, int, int]:
    found = shown(folder, relation)
    return found.taken.edges, found.refused.edges, found.open.edges


class Client:
    """Asks for lists, tells what was seen of them and what came of it, and knows what to expect."""

    def __init__(self, recommender: Recommender) -> None:
        self.recommender = recommender
        self.events: list[dict[str, Any]] = []
        self.expected: dict[tuple[str, str], tuple[str | None, datetime | None]] = {}

    def ask(self, user: str, surface: str, place: int) -> None:
        """A list of which five were seen, and one of several things done at its third place."""
        answer = self.recommender.recommend(user, surface)
        of = "candidate_id" if surface == "people" else "item_id"
        rid, at = answer.recommendation_id, ago(60 - place % 50)
        for rank, each in enumerate(answer.recommendations[:5], 1):
            self._tell("impression", user, {of: each.id}, rid, at, position=rank)
            self.expected[rid, str(each.id)] = None, None
        acted = at + timedelta(days=2)
        target, kind = answer.recommendations[2].id, ("accept", "dismiss", None)[place % 3]
        if kind is not None:
            kind = "click" if kind == "accept" and surface == "items" else kind
            self._tell(kind, user, {of: target}, rid, acted)
            self.expected[rid, str(target)] = kind, acted

    def _tell(
        self, kind: str, user: str, target: dict[str, Any], rid: str, at: datetime, **more: int
    ) -> None:
        self.events.append(
            {
                "type": kind,
                "user_id": user,
                "recommendation_id": rid,
                "timestamp": at,
                **target,
                **more,
            }
        )


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tenant that was built; never written to."""
    folder = write(tmp_path_factory.mktemp("built") / "tenant", tables())
    Recommender(folder).build()
    return folder


def serving(built: Path, folder: Path) -> Recommender:
    """A copy of the tenant, served."""
    shutil.copytree(built, folder)
    recommender = Recommender(folder)
    recommender.start_serving()
    return recommender


@pytest.fixture(scope="module")
def served(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Client]]:
    """A tenant that was served, told of, and built again."""
    folder = tmp_path_factory.mktemp("labels") / "tenant"
    recommender = serving(built, folder)
    client = Client(recommender)
    for place in range(PEOPLE):
        for surface in ("people", "items"):
            client.ask(f"u{place:03d}", surface, place)
    np.random.default_rng(0).shuffle(client.events)  # type: ignore[arg-type]
    recommender.record(client.events)
    recommender.close()  # the request log is on disk
    recommender.build()
    yield folder, client
    recommender.close()


def test_what_was_shown_and_what_came_of_it_are_rows_of_the_next_build(
    served: tuple[Path, Client],
) -> None:
    folder, client = served
    found = impressions(folder)
    assert {
        key: (r["action"], r["action_timestamp"]) for key, r in found.items()
    } == client.expected
    assert len(found) == 2 * PEOPLE * 5
    assert {row["position"] for row in found.values()} == {1, 2, 3, 4, 5}
    assert all(0 < row["propensity"] <= 1 for row in found.values())
    assert all(row["arrived_at"] == row["timestamp"] for row in found.values())


def test_labels_are_what_was_told_and_a_late_action_changes_them(
    served: tuple[Path, Client],
) -> None:
    folder, client = served
    told = Counter(
        (kind, ("items" if target.startswith("i") else "people"))
        for (_, target), (kind, _) in client.expected.items()
    )
    before = {relation.name: counts(folder, relation) for relation in (CONNECTS, ENGAGES)}
    taken, refused, still_open = before[CONNECTS.name]
    assert taken == told["accept", "people"] == PEOPLE // 3
    assert refused + still_open == told["dismiss", "people"] + told[None, "people"]
    assert before[ENGAGES.name][0] == told["click", "items"] == PEOPLE // 3
    assert refused > still_open > 0

    history = shown(folder, CONNECTS).refused
    (rid, target), _ = next(
        (key, what)
        for key, what in client.expected.items()
        if what[0] is None
        and key[1].startswith("u")
        and _refused(history, impressions(folder)[key], folder)
    )
    row = impressions(folder)[rid, target]
    late = row["timestamp"] + timedelta(days=3)
    client.recommender.record(
        {
            "type": "accept",
            "user_id": row["user_id"],
            "candidate_id": target,
            "recommendation_id": rid,
            "timestamp": late,
        }
    )
    client.recommender.build()
    now = impressions(folder)[rid, target]
    assert (now["action"], now["action_timestamp"]) == ("accept", late)
    assert counts(folder, CONNECTS) == (taken + 1, refused - 1, still_open)
    assert counts(folder, ENGAGES) == before[ENGAGES.name]


def _refused(refused: Any, row: dict[str, Any], folder: Path) -> bool:
    users = History.load(work(folder, "entities")).entities.users
    source, target = users.positions([row["user_id"], row["candidate_id"]])
    return bool(refused.contains(np.array([source]), np.array([target]))[0])


def test_actions_alone_tell_what_was_seen_of_a_logged_list(built: Path, tmp_path: Path) -> None:
    folder = tmp_path / "tenant"
    recommender = serving(built, folder)
    answer = recommender.recommend("u003", "items")
    log = recommender.session.request_log
    assert log is not None
    log.repeat("ab" * 16, answer.recommendation_id)
    targets = [each.id for each in answer.recommendations]
    shown_at = time.time()
    acted = datetime.fromtimestamp(shown_at + 60, UTC)
    click = {"type": "click", "user_id": "u003", "timestamp": acted}
    recommender.record(
        [
            {**click, "item_id": targets[3], "recommendation_id": answer.recommendation_id},
            {**click, "item_id": targets[1], "recommendation_id": "ab" * 16},
            {**click, "item_id": targets[5], "recommendation_id": "cd" * 16},
        ]
    )
    recommender.close()
    rows = clean(folder)["impressions"].to_pylist()
    first = [r for r in rows if r["recommendation_id"] == answer.recommendation_id]
    again = [r for r in rows if r["recommendation_id"] == "ab" * 16]
    assert [(r["item_id"], r["position"], r["action"]) for r in first] == [
        (target, place, "click" if place == 4 else None)
        for place, target in enumerate(targets[:4], 1)
    ]
    assert [(r["item_id"], r["action"]) for r in again] == [
        (targets[0], None),
        (targets[1], "click"),
    ]
    assert len(rows) == 6
    assert {r["arrived_at"] for r in rows} == {acted}
    assert all(abs(r["timestamp"].timestamp() - shown_at) < 60 for r in rows)


def clean(folder: Path) -> dict[str, pa.Table]:
    """The clean tables that a build would start from, by name."""
    recommender = Recommender(folder)
    output = folder / f"clean-{time.monotonic_ns()}"
    output.mkdir()
    with LocalEngine() as engine:
        TablesStep(recommender.config, engine, "").run({}, output, quiet)
    recommender.close()
    return {path.stem: pq.read_table(path) for path in output.glob("*.parquet")} | {
        "report": (output / REPORT).read_text()  # type: ignore[dict-item]
    }


def record(folder: Path, *events: dict[str, Any]) -> None:
    recommender = Recommender(folder)
    recommender.record(events)
    recommender.close()


def told(found: dict[str, Any]) -> dict[str, Any]:
    """The tables without the list of pairs that are kept apart."""
    return {name: rows for name, rows in found.items() if name != "hidden_connections"}


def seen(user: str, candidate: str, day: float, rid: str = "r") -> dict[str, Any]:
    return {
        "type": "impression",
        "user_id": user,
        "candidate_id": candidate,
        "timestamp": ago(day),
        "recommendation_id": rid,
        "event_id": f"{user}-{candidate}-{day}",
    }


def did(kind: str, user: str, other: str, day: float, rid: str | None = "r") -> dict[str, Any]:
    named = {} if rid is None else {"recommendation_id": rid}
    return {
        "type": kind,
        "user_id": user,
        "candidate_id": other,
        "timestamp": ago(day),
        "event_id": f"{kind}-{user}-{other}-{day}",
        **named,
    }


@pytest.mark.parametrize("how", ["event", "flag of the row", "whole list"])
def test_the_acceptance_of_a_hidden_connection_leaves_no_trace(tmp_path: Path, how: str) -> None:
    """All tables are those of a world in which the two were never shown to each other."""
    found = tables()
    public = [seen("u000", "u001", 9), seen("u000", "u002", 9), did("accept", "u000", "u002", 8)]
    private = [
        seen("u000", "u009", 9),
        did("click", "u000", "u009", 8.5),
        did("request", "u000", "u009", 8),
        did("accept", "u009", "u000", 7, None),
        seen("u009", "u000", 9, "q"),
    ]
    if how == "event":
        private.append(did("hide_connection", "u009", "u000", 6, None))
    elif how == "flag of the row":
        rows = found["connections"]
        flags = [{"src": "u000", "dst": "u009", "timestamp": ago(7)}]
        more = pa.Table.from_pylist(flags, schema=rows.schema)
        hidden = pa.array([False] * len(rows) + [True])
        found["connections"] = pa.concat_tables([rows, more]).append_column("hidden", hidden)
    else:
        users = found["users"]
        hiding = [user == "u009" for user in users["user_id"].to_pylist()]
        found["users"] = users.append_column("connections_hidden", pa.array(hiding))
        private.append(did("disconnect", "u009", "u000", 5, None))  # it is none any more
    without, hidden_too = write(tmp_path / "without", found), write(tmp_path / "with", found)
    record(without, *public)
    record(hidden_too, *public, *private)
    one, other = clean(without), clean(hidden_too)
    assert told(other) == {**told(one), "report": other["report"]} | {
        "users": other["users"],
        "connections": other["connections"],
    }
    assert other["users"].equals(one["users"])
    assert sorted(map(str, other["connections"].to_pylist())) == sorted(
        map(str, one["connections"].to_pylist())
    )
    assert other["impressions"].num_rows == 2


def test_a_hidden_acceptance_does_not_tell_what_else_was_seen(built: Path, tmp_path: Path) -> None:
    folder = tmp_path / "tenant"
    recommender = serving(built, folder)
    answer = recommender.recommend("u003", "people")
    fifth = str(answer.recommendations[4].id)
    rid = answer.recommendation_id
    accept = did("accept", "u003", fifth, 0, rid)
    recommender.record([accept])
    recommender.close()
    assert clean(folder)["impressions"].num_rows == 5
    record(folder, did("hide_connection", fifth, "u003", 0, None))
    assert "impressions" not in clean(folder)


def test_people_who_left_or_were_forgotten_are_in_no_label(tmp_path: Path) -> None:
    folder = write(tmp_path / "tenant", tables())
    record(
        folder,
        seen("u000", "u001", 9),
        seen("u002", "u000", 9),
        seen("u000", "u003", 9),
        seen("u004", "u000", 9),
        seen("u000", "u005", 9),
        did("accept", "u000", "u005", 8),
        {"type": "leave", "user_id": "u001"},
        {"type": "leave", "user_id": "u002"},
        {"type": "opt_out", "user_id": "u005"},
    )
    recommender = Recommender(folder)
    recommender.forget("u003")
    recommender.close()
    found = clean(folder)
    rows = found["impressions"].to_pylist()
    assert [(r["user_id"], r["candidate_id"]) for r in rows] == [("u000", "u005"), ("u004", "u000")]
    out = [r["user_id"] for r in found["users"].to_pylist() if not r["discoverable"]]
    assert out == ["u005"]  # an opt-out hides a person, and keeps what others learnt


def test_strangers_are_users_of_the_next_build_where_they_are_taken(tmp_path: Path) -> None:
    events = [
        did("connect", "stranger", "u000", 3, None),
        seen("stranger", "u001", 2),
        {"type": "interact", "user_id": "stranger", "item_id": "i01", "event": "like"},
    ]
    taken = write(tmp_path / "taken", tables())
    refused = write(tmp_path / "refused", tables(), SETTINGS + "[events]\ncreate_users = false\n")
    for folder in (taken, refused):
        record(folder, *events)
    one, other = clean(taken), clean(refused)
    assert one["users"].num_rows == PEOPLE + 1
    assert other["users"].num_rows == PEOPLE
    assert one["connections"].num_rows == other["connections"].num_rows + 1
    assert one["interactions"].num_rows == other["interactions"].num_rows + 1
    assert "impressions" in one and "impressions" not in other


def test_items_and_profiles_are_in_the_next_build_and_faults_in_its_report(tmp_path: Path) -> None:
    folder = write(tmp_path / "tenant", tables())
    record(
        folder,
        {"type": "item_upsert", "item_id": "i99", "category": "c1", "price": 3},
        {"type": "item_upsert", "item_id": "i00", "stock": "many"},
        {"type": "item_unavailable", "item_id": "i01"},
        {"type": "profile_update", "user_id": "u000", "school": "new"},
    )
    found = clean(folder)
    items = {row["item_id"]: row for row in found["items"].to_pylist()}
    assert (items["i99"]["category"], items["i99"]["price"], items["i99"]["available"]) == (
        "c1",
        3.0,
        True,
    )
    assert items["i00"]["stock"] is None
    assert not items["i01"]["available"]
    assert found["users"].to_pylist()[0]["school"] == "new"
    assert '"event_stock"' in found["report"]  # type: ignore[operator]
