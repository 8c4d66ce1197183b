"""From tables to recommendations, through every door."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command_line import run_command
from starlette.testclient import TestClient

from nextedge import Question, Recommender
from nextedge.api.app import create_app
from nextedge.errors import (
    BuildLockedError,
    EventError,
    ReleaseError,
    UnknownSurfaceError,
    UnknownUserError,
)
from nextedge.releases.lock import build_lock

QUICK = '[surfaces.people.ranker]\ncompare = ["best_source"]\n'


def pairs(directory: Path, name: str, left: str, right: str) -> set[tuple[str, str]]:
    table = pq.read_table(directory / f"{name}.parquet", columns=[left, right])
    return set(zip(table[left].to_pylist(), table[right].to_pylist(), strict=True))


@pytest.mark.parametrize("surface", ["people", "items"])
def test_full_line_beats_every_source_and_heuristic(tenant: Path, surface: str) -> None:
    report = Recommender(tenant).evaluation()[surface]
    ndcg = {system["name"]: system["metrics"]["ndcg@20"]["mean"] for system in report["systems"]}
    assert ndcg.pop("full_line") > 0.95 * max(ndcg.values())
    assert ndcg["popular"] > 0


def test_every_process_scores_alike_whatever_it_imports_first(tenant: Path) -> None:
    """The ranker's columns are those it was trained on, not those that imports happen to give."""
    program = (
        "import sys, importlib\n"
        "for name in sys.argv[2:]: importlib.import_module(name)\n"
        "from nextedge import Recommender\n"
        "for surface in ('people', 'items'):\n"
        "    for user in ('u000001', 'u000007'):\n"
        "        answer = Recommender(sys.argv[1]).recommend(user, surface)\n"
        "        print([(r.id, round(r.score, 6)) for r in answer.recommendations])\n"
    )

    def scores(*first: str) -> str:
        command = [sys.executable, "-c", program, str(tenant), *first]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
        return done.stdout

    odd = (
        "nextedge.retrieval.two_hop",
        "nextedge.features.taste_features",
        "nextedge.retrieval.recent",
    )
    assert scores() == scores(*odd)


def test_recommend_all_writes_the_promised_table(tenant: Path, tmp_path: Path) -> None:
    out = tmp_path / "recs.parquet"
    done = run_command(
        "recommend", "-c", tenant, "--surface", "people", "--all", "-k", "20", "--out", out
    )
    assert done.returncode == 0, done.stderr
    table = pq.read_table(out)
    assert table.schema.names == ["user_id", "rank", "candidate_id", "score", "reason", "sources"]
    rows = table.to_pylist()
    assert len(rows) == 600 * 20
    shown = {(row["user_id"], row["candidate_id"]) for row in rows}
    assert len(shown) == len(rows)
    known = pairs(tenant, "connections", "src", "dst")
    assert not shown & (known | {(b, a) for a, b in known} | {(u, u) for u, _ in shown})
    blocked = pairs(tenant, "blocks", "user_id", "other_id")
    assert not shown & (blocked | {(b, a) for a, b in blocked})
    users = pq.read_table(tenant / "users.parquet", columns=["user_id", "discoverable"]).to_pylist()
    assert not {c for _, c in shown} & {u["user_id"] for u in users if not u["discoverable"]}
    assert all(row["reason"] and row["sources"] for row in rows)


def test_a_batch_equals_its_single_requests(tenant: Path) -> None:
    recommender = Recommender(tenant)
    ids = recommender.release.entities.users.identifiers(range(0, 60, 7)).to_pylist()
    for surface in ("people", "items"):
        together = recommender.recommend_many(ids, Question(surface, 10))
        for user_id, answer in zip(ids, together, strict=True):
            alone = recommender.recommend(user_id, surface, 10)
            assert [r.id for r in alone.recommendations] == [r.id for r in answer.recommendations]
            assert [r.reason for r in alone.recommendations] == [
                r.reason for r in answer.recommendations
            ]


def test_unavailable_and_unsafe_items_never_show(tenant: Path) -> None:
    items = pq.read_table(tenant / "items.parquet").to_pylist()
    hidden = {i["item_id"] for i in items if not i["available"] or i["unsafe"]}
    assert hidden
    for answers in Recommender(tenant).recommend_all(Question("items", 50)):
        for answer in answers:
            assert not {r.id for r in answer.recommendations} & hidden


def test_events_take_effect_at_once(own_tenant: Path) -> None:
    recommender = Recommender(own_tenant)
    user = recommender.release.entities.users.identifiers([11])[0].as_py()
    first, second, third = (r.id for r in recommender.recommend(user, "people", 3).recommendations)
    other = Recommender(own_tenant)  # another process would be such an object
    other.recommend(user, "people", 3)
    assert (
        recommender.record(
            [
                {"type": "dismiss", "user_id": user, "candidate_id": first, "event_id": "one"},
                {"type": "block", "user_id": second, "candidate_id": user},
                {"type": "connect", "user_id": user, "candidate_id": third},
            ]
        )
        == 3
    )
    assert (
        recommender.record(
            {"type": "dismiss", "user_id": user, "candidate_id": first, "event_id": "one"}
        )
        == 0
    )
    for door in (recommender, other):
        left = {r.id for r in door.recommend(user, "people", 50).recommendations}
        assert not left & {first, second, third}
        assert user not in {r.id for r in door.recommend(second, "people", 50).recommendations}
    with pytest.raises(EventError, match="did you mean 'dismiss'"):
        recommender.record({"type": "dismis", "user_id": user, "candidate_id": first})


def test_opt_out_leaves_lists_and_reasons(own_tenant: Path) -> None:
    recommender = Recommender(own_tenant)
    people = recommender.release.snapshot.connections
    hub = int(np.argmax(people.degree))
    gone = recommender.release.entities.users.identifiers([hub])[0].as_py()
    name = recommender.release.display("users", hub)
    recommender.record({"type": "opt_out", "user_id": gone})
    friends = recommender.release.entities.users.identifiers(people.row(hub)[:30]).to_pylist()
    for answer in recommender.recommend_many(friends, Question("people", 50)):
        assert gone not in {r.id for r in answer.recommendations}
        assert not any(name in r.reason.evidence.get("names", ()) for r in answer.recommendations)
    recommender.record({"type": "opt_in", "user_id": gone})


def test_k_results_even_under_tight_caps(tenant: Path) -> None:
    recommender = Recommender(tenant)
    surface = recommender.release.surface("items")
    tight = surface.policy.settings.model_copy(update={"max_per": {"category": 1}})
    object.__setattr__(surface.policy, "settings", tight)
    user = recommender.release.entities.users.identifiers([4])[0].as_py()
    answer = recommender.recommend(user, "items", 30)
    assert len(answer.recommendations) == 30
    categories = dict(
        zip(
            *(
                pq.read_table(tenant / "items.parquet")[c].to_pylist()
                for c in ("item_id", "category")
            ),
            strict=True,
        )
    )
    first = [categories[r.id] for r in answer.recommendations[:10]]
    assert len(set(first)) == 10


def test_unknown_user_and_surface(tenant: Path) -> None:
    recommender = Recommender(tenant)
    fallback = recommender.recommend("nobody", "people", 10)
    assert (len(fallback.recommendations), fallback.known_user) == (10, False)
    with pytest.raises(UnknownUserError, match="nobody"):
        recommender.recommend_many(["nobody"], Question("people"), strict=True)
    with pytest.raises(UnknownSurfaceError, match="did you mean 'people'"):
        recommender.recommend("nobody", "peple")
    done = run_command("recommend", "-c", tenant, "--surface", "people", "--user", "nobody")
    assert (done.returncode, "nobody" in done.stderr) == (2, True)


def test_http_doors(own_tenant: Path) -> None:
    recommender = Recommender(own_tenant)
    user = recommender.release.entities.users.identifiers([20])[0].as_py()
    with TestClient(create_app(recommender, api_key="secret")) as client:
        assert client.get("/health/ready").json()["status"] == "ready"
        assert client.get("/pymk/recommendations", params={"user_id": user}).status_code == 401
        client.headers["Authorization"] = "Bearer secret"
        found = client.get("/pymk/recommendations", params={"user_id": user, "limit": 5}).json()
        assert [r["rank"] for r in found["recommendations"]] == [1, 2, 3, 4, 5]
        assert {"recommendation_id", "release", "degraded", "latency_ms"} <= set(found)
        items = client.get(
            "/v1/items/recommendations", params={"user_id": user, "limit": 3, "explain": True}
        ).json()
        assert items["recommendations"][0]["item_id"]
        assert items["recommendations"][0]["contributions"]
        body = {"tenant_id": "default", "user_id": user, "count": 4, "surface": "items"}
        assert (
            len(client.post("/internal/ml/recommendations", json=body).json()["recommendations"])
            == 4
        )
        assert (
            client.post(
                "/internal/ml/recommendations", json={**body, "tenant_id": "other"}
            ).status_code
            == 403
        )
        assert (
            client.get("/v1/pepole/recommendations", params={"user_id": user}).json()["status"]
            == 404
        )
        assert (
            client.get(
                "/v1/people/recommendations", params={"user_id": user, "limit": 501}
            ).status_code
            == 422
        )
        events = [
            {"type": "dismiss", "user_id": user, "item_id": items["recommendations"][0]["item_id"]},
            {"type": "no"},
        ]
        recorded = client.post("/v1/events", json=events)
        assert recorded.status_code == 202
        assert [r["index"] for r in recorded.json()["rejected"]] == [1]


def test_releases_roll_back_and_refuse_altered_files(tmp_path: Path) -> None:
    edges = np.random.default_rng(0).integers(0, 40, (300, 2))
    pq.write_table(
        pa.table({"src": edges[:, 0], "dst": edges[:, 1]}), tmp_path / "connections.parquet"
    )
    (tmp_path / "nextedge.toml").write_text(QUICK)
    recommender = Recommender(tmp_path)
    first = recommender.build()
    second = recommender.build()
    assert recommender.releases.current_id() == second
    assert recommender.release.id == second
    altered = tmp_path / "state" / "releases" / second / "snapshot" / "known_users.npy"
    altered.write_bytes(altered.read_bytes()[:-1] + b"\x07")
    assert Recommender(tmp_path).release.id == first  # the altered one is refused
    with pytest.raises(ReleaseError, match=r"known_users\.npy was altered"):
        recommender.releases.promote(second)
    assert recommender.releases.rollback() == first
    with build_lock(tmp_path / "state"), pytest.raises(BuildLockedError, match="holds the lock"):
        recommender.build()
    listed = json.loads(run_command("releases", "-c", tmp_path, "--json").stdout)
    assert [(r["id"], r["served"]) for r in listed] == [(first, True), (second, False)]


def test_a_killed_build_resumes_and_leaves_the_old_release(tmp_path: Path) -> None:
    edges = np.random.default_rng(1).integers(0, 60, (500, 2))
    pq.write_table(
        pa.table({"src": edges[:, 0], "dst": edges[:, 1]}), tmp_path / "connections.parquet"
    )
    (tmp_path / "nextedge.toml").write_text(QUICK)
    recommender = Recommender(tmp_path)
    whole = recommender.build()
    seen: list[str] = []

    def die(text: str, done: int, total: int) -> None:
        seen.append(text)
        if text.startswith("evaluate"):
            raise KeyboardInterrupt

    (tmp_path / "connections.parquet").unlink()
    pq.write_table(
        pa.table({"src": edges[1:, 0], "dst": edges[1:, 1]}), tmp_path / "connections.parquet"
    )
    with pytest.raises(KeyboardInterrupt):
        recommender.build(progress=die)
    assert recommender.releases.current_id() == whole
    assert len(recommender.releases.all()) == 1
    seen.clear()
    resumed = recommender.build(progress=lambda text, done, total: seen.append(text))
    assert "rank: unchanged" in seen
    fresh = recommender.build(fresh=True)
    files = [dict(recommender.releases.get(r).manifest["files"]) for r in (resumed, fresh)]
    for each in files:
        del each["build.json"]  # what the steps took
    assert files[0] == files[1]  # a resumed build's release equals an uninterrupted one's


def test_events_are_in_the_next_build(tmp_path: Path) -> None:
    edges = np.random.default_rng(2).integers(0, 30, (200, 2))
    pq.write_table(
        pa.table({"src": edges[:, 0], "dst": edges[:, 1]}), tmp_path / "connections.parquet"
    )
    moment = pa.array([1_700_000_000_000_000], pa.timestamp("us", "UTC"))
    blocks = pa.table({"user_id": [1], "other_id": [2], "timestamp": moment, "note": ["spam"]})
    pq.write_table(blocks, tmp_path / "blocks.parquet")
    (tmp_path / "nextedge.toml").write_text(QUICK)
    recommender = Recommender(tmp_path)
    recommender.build()
    recommender.record({"type": "connect", "user_id": 3, "candidate_id": 777})
    recommender.record({"type": "block", "user_id": 4, "candidate_id": 5})
    recommender.build()
    users, snapshot = recommender.release.entities.users, recommender.release.snapshot
    assert 777 in users
    assert users.position(777) in snapshot.connections.row(users.position(3))
    assert snapshot.blocks.row(users.position(4)).tolist() == [users.position(5)]
    assert snapshot.blocks.row(users.position(1)).tolist() == [users.position(2)]


def test_bad_configuration_and_data_exit_2(tmp_path: Path) -> None:
    (tmp_path / "nextedge.toml").write_text("[surfaces.people.polcy]\nk = 3\n")
    done = run_command("build", tmp_path)
    assert (done.returncode, "did you mean 'policy'" in done.stderr) == (2, True)
    (tmp_path / "nextedge.toml").unlink()
    pq.write_table(pa.table({"from": [1], "dst": [2]}), tmp_path / "connections.parquet")
    done = run_command("check", tmp_path)
    assert done.returncode == 2
    assert "src" in done.stderr


def test_init_writes_a_config_that_loads(tmp_path: Path) -> None:
    pq.write_table(pa.table({"src": [1], "dst": [2]}), tmp_path / "connections.parquet")
    assert run_command("init", tmp_path).returncode == 0
    assert Recommender(tmp_path).config.data.connections == "connections.parquet"
    assert run_command("init", tmp_path).returncode == 2


def test_the_base_import_loads_nothing_heavy() -> None:
    code = "import sys, nextedge; print([m for m in ('torch', 'faiss', 'pyspark', 'redis', 'numba', 'pyarrow') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_order_that_begins_at_zero_is_an_order(tmp_path: Path) -> None:
    """Places in a sequence are as good as times, and the first of them is no missing time."""
    random = np.random.default_rng(0)
    users = np.repeat(np.arange(150), 8)
    interactions = pa.table(
        {
            "user_id": users,
            "item_id": (users % 5) * 20 + random.integers(0, 20, len(users)),
            "timestamp": np.tile(np.arange(8), 150),
        }
    )
    recommender = Recommender.from_tables(state=tmp_path, interactions=interactions)
    recommender.build()
    assert recommender.evaluation()["items"]["protocol"]["split"].startswith("last")
    assert "slist" in recommender.release.surface("items").line.sources
