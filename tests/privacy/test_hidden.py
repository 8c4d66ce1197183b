"""Hidden connections change nothing for anybody, and give a built release nothing to tell."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from attack import ATTACKERS, NOW, VICTIM, Observed, friends, observe, of_victim, suspicion, tables
from attack import tenant as attacked
from conftest import PEOPLE, person, write

from nextedge import Recommender
from nextedge.build.tables import TablesStep
from nextedge.engines.duckdb.engine import LocalEngine
from nextedge.progress import quiet


@pytest.fixture(scope="module")
def clock() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time", lambda: NOW)
        yield


@pytest.fixture(scope="module")
def absent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return attacked(tmp_path_factory.mktemp("absent") / "tenant", "absent")


@pytest.fixture(scope="module")
def hidden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return attacked(tmp_path_factory.mktemp("hidden") / "tenant", "hidden")


def files(folder: Path) -> dict[str, str]:
    release = Recommender(folder).release.release
    apart = ("snapshot/hidden_connections/", "tables/check.json", "build.json")
    return {n: h for n, h in release.manifest["files"].items() if not n.startswith(apart)}


def test_a_release_is_the_same_byte_for_byte(absent: Path, hidden: Path) -> None:
    """But for the list of pairs that are not recommended to each other, and the check's counts."""
    one, other = files(absent), files(hidden)
    assert {name for name in one if one[name] != other.get(name)} == set()
    assert one.keys() == other.keys()
    assert Recommender(hidden).release.snapshot.hidden_connections.edges > 0


def lists(recommender: Recommender, user: int, without: tuple[int, ...] = ()) -> list[Any]:
    found = recommender.recommend(user, k=30, exclude=without)
    return [
        (each.id, each.score, each.rank, each.reason, each.sources)
        for each in found.recommendations
    ]


def test_answers_differ_only_by_the_other_end(clock: None, absent: Path, hidden: Path) -> None:
    without, with_edges = Recommender(absent), Recommender(hidden)
    ends = {*friends(), *ATTACKERS}
    kept_apart = 0
    for user in map(person, range(PEOPLE)):
        apart = tuple(ends) if user == VICTIM else (VICTIM,) if user in ends else ()
        assert lists(with_edges, user) == lists(without, user, apart)
        kept_apart += lists(without, user) != lists(without, user, apart)
    assert kept_apart > 0


@pytest.fixture(scope="module")
def seen(
    clock: None, absent: Path, hidden: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Observed]:
    """What the attackers see of a list that does not exist, is hidden, and is open."""
    public = attacked(tmp_path_factory.mktemp("open") / "tenant", "open")
    return {"absent": observe(absent), "hidden": observe(hidden), "open": observe(public)}


def precision(observed: Observed) -> float:
    guesses = suspicion(observed)[: len(friends())]
    return len(friends() & set(guesses)) / len(guesses)


def test_an_attacker_learns_nothing_of_a_hidden_list(seen: dict[str, Observed]) -> None:
    """Every answer, score and contribution is that of a network without the list."""
    assert seen["hidden"].keys() == seen["absent"].keys()
    assert [q for q in seen["hidden"] if seen["hidden"][q] != seen["absent"][q]] == []
    assert precision(seen["hidden"]) == precision(seen["absent"])


def test_the_attack_is_one(seen: dict[str, Observed]) -> None:
    """The same questions tell much of a list that is not hidden."""
    assert precision(seen["open"]) > 2 * precision(seen["hidden"])


def clean(folder: Path, found: dict[str, pa.Table], events: list[dict[str, Any]]) -> Path:
    """The clean tables that a build of these would start from."""
    recommender = Recommender(write(folder, found))
    if events:
        recommender.record(events)
    output = folder / "clean"
    output.mkdir()
    with LocalEngine() as engine:
        TablesStep(recommender.config, engine, "").run({}, output, quiet)
    return output


def pairs(folder: Path, name: str) -> set[frozenset[str]]:
    rows = pq.read_table(folder / f"{name}.parquet", columns=["src", "dst"])
    ends = [rows.column(name).cast(pa.string()).to_pylist() for name in ("src", "dst")]
    return {frozenset(pair) for pair in zip(*ends, strict=True)}


def test_a_list_is_hidden_by_rows_by_its_user_and_by_events(tmp_path: Path) -> None:
    found = tables()
    rows, users = found["connections"], found["users"]
    mine = of_victim(rows)
    ends = zip(*(rows.filter(mine).column(n).to_pylist() for n in ("src", "dst")), strict=True)
    events = [
        {"type": "hide_connection", "user_id": a, "candidate_id": b}
        if place % 2
        else {"type": "hide_connection", "user_id": b, "candidate_id": a}
        for place, (a, b) in enumerate(ends)
    ]
    first = events[0]  # the end that did not hide it cannot take that back
    events.append(
        {
            "type": "unhide_connection",
            "user_id": first["candidate_id"],
            "candidate_id": first["user_id"],
        }
    )
    words = pc.if_else(mine, "yes", "")
    flagged = users.append_column("connections_hidden", pc.equal(users.column("user_id"), VICTIM))
    ways = {
        "rows": ({**found, "connections": rows.append_column("hidden", words)}, []),
        "user": ({**found, "users": flagged}, []),
        "events": (found, events),
    }
    outputs = {name: clean(tmp_path / name, *way) for name, way in ways.items()}
    wanted = pairs(outputs["rows"], "hidden_connections")
    assert len(wanted) == len({*friends(), *ATTACKERS})
    for output in outputs.values():
        alone = {frozenset({str(VICTIM)})}  # says that those to come are hidden, too
        assert pairs(output, "hidden_connections") - alone == wanted
        assert not pairs(output, "connections") & wanted
        assert len(pairs(output, "connections")) > 500
        assert "connections_hidden" not in pq.read_schema(output / "users.parquet").names
        assert "hidden" not in pq.read_schema(output / "connections.parquet").names


def test_new_connections_of_who_hides_all_change_nothing(tmp_path: Path) -> None:
    found = tables()
    users = found["users"]
    flag = pc.equal(users.column("user_id"), VICTIM)
    found["users"] = users.append_column("connections_hidden", flag)
    recommender = Recommender(write(tmp_path / "tenant", found))
    recommender.build()
    before = recommender.release
    graph, ids = before.snapshot.connections, before.entities.users
    strangers = [ids.identifier(each) for each in range(20, 23)]
    recommender.record(
        [{"type": "accept", "user_id": VICTIM, "candidate_id": each} for each in strangers]
    )
    assert recommender.release.snapshot.connections is graph
    recommender.record({"type": "accept", "user_id": strangers[0], "candidate_id": strangers[1]})
    live = recommender.release.snapshot.connections
    assert live.edges > graph.edges
    assert not len(live.row(ids.position(VICTIM)))


def test_a_pair_that_is_hidden_once_is_hidden_in_every_row(tmp_path: Path) -> None:
    found = tables()
    rows = found["connections"].append_column(
        "hidden", pa.array([False] * len(found["connections"]))
    )
    one = rows.slice(0, 1)
    again = pa.table(
        {
            "src": one.column("dst"),
            "dst": one.column("src"),
            "timestamp": rows.column("timestamp").slice(9, 1),
            "hidden": pa.array([True]),
        }
    )
    output = clean(tmp_path / "t", {**found, "connections": pa.concat_tables([rows, again])}, [])
    assert len(pairs(output, "hidden_connections")) == 1
    assert not pairs(output, "connections") & pairs(output, "hidden_connections")


def test_what_made_a_hidden_connection_is_no_label(tmp_path: Path) -> None:
    found = tables()
    rows = found["connections"]
    a, b = (rows.column(name)[0].as_py() for name in ("src", "dst"))
    found["impressions"] = pa.table(
        {
            "user_id": [a, b, a, person(1)],
            "candidate_id": [b, a, b, person(2)],
            "timestamp": pa.array([10**15] * 4, pa.timestamp("us", "UTC")),
            "action": ["connect", "accept", None, "connect"],
        }
    )
    hide = [{"type": "hide_connection", "user_id": b, "candidate_id": a}]
    output = clean(tmp_path / "t", found, hide)
    left = pq.read_table(output / "impressions.parquet").column("action").to_pylist()
    assert sorted(map(str, left)) == ["None", "connect"]


def test_who_left_is_in_no_clean_table(tmp_path: Path) -> None:
    found = tables()
    gone, opted_out = person(9), person(11)
    found["blocks"] = pa.table({"user_id": [gone, 1], "other_id": [person(1), gone]})
    events = [
        {"type": "leave", "user_id": gone},
        {"type": "opt_out", "user_id": opted_out},
        {"type": "connect", "user_id": gone, "candidate_id": person(50)},
        {"type": "block", "user_id": person(1), "candidate_id": person(2)},
        {"type": "block", "user_id": person(4), "candidate_id": person(5)},
        {"type": "unblock", "user_id": person(5), "candidate_id": person(4)},
        {"type": "unblock", "user_id": person(1), "candidate_id": person(2)},
    ]
    output = clean(tmp_path / "t", found, events)
    for path in output.glob("*.parquet"):
        assert str(gone) not in json.dumps(pq.read_table(path).to_pylist(), default=str), path.name
    users = pq.read_table(output / "users.parquet").to_pylist()
    assert [u["discoverable"] for u in users if u["user_id"] == opted_out] == [False]
    blocks = pq.read_table(output / "blocks.parquet").to_pylist()
    assert [(row["user_id"], row["other_id"]) for row in blocks] == [(person(4), person(5))]
