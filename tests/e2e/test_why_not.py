"""Every stage that can drop a candidate says that it did."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nextedge import Recommender
from nextedge.cli.main import app
from nextedge.errors import UnknownUserError

EDGES = [
    (0, 1),
    (0, 2),
    (0, 3),
    (1, 4),
    (1, 5),
    (2, 5),
    (2, 6),
    (3, 6),
    (3, 7),
    (4, 8),
    (5, 8),
    (6, 9),
    (7, 9),
]


@pytest.fixture
def tenant(tmp_path: Path) -> Path:
    rows = "".join(f"{a},{b}\n" for a, b in EDGES)
    (tmp_path / "connections.csv").write_text("src,dst\n" + rows)
    users = "".join(f"{u},{'ab'[u % 2]},{'false' if u == 9 else 'true'}\n" for u in range(12))
    (tmp_path / "users.csv").write_text("user_id,team,discoverable\n" + users)
    (tmp_path / "nextedge.toml").write_text(
        '[data]\nconnections = "connections.csv"\nusers = "users.csv"\n'
        "[surfaces.people]\nk = 2\n[surfaces.people.policy]\nrecently_shown_days = 7\n"
        "[surfaces.people.sources]\npopular = { enabled = false }\nprofile = { enabled = false }\n"
        "recent = { enabled = false }\nrandom_walk = { enabled = false }\n"
        "two_hop = { options = { min_common = 1 } }\n"
    )
    Recommender(tmp_path).build()
    return tmp_path


def stage(recommender: Recommender, candidate: int, user: int = 0) -> tuple[str, str]:
    found = recommender.why_not(user, candidate)
    return found.stage, found.explanation


def test_each_stage_is_named(tenant: Path) -> None:
    recommender = Recommender(tenant)
    first = recommender.recommend(0).recommendations[0].id
    assert stage(recommender, first) == ("shown", "it is recommended, at rank 1")
    assert stage(recommender, 1) == ("excluded", "connected already")
    assert stage(recommender, 0)[1] == "the user themself"
    assert stage(recommender, 11)[0] == "sources"
    assert stage(recommender, 9)[0] == "eligible"
    recommender.record({"type": "dismiss", "user_id": 0, "candidate_id": 4})
    assert "dismissed" in stage(recommender, 4)[1]
    recommender.record({"type": "impression", "user_id": 0, "candidate_id": 7})
    assert "recently_shown_days" in stage(recommender, 7)[1]
    with pytest.raises(UnknownUserError, match="99"):
        recommender.why_not(0, 99)


def test_what_ranks_below_the_last_shown_says_so(tenant: Path) -> None:
    found = Recommender(tenant).why_not(0, 7)  # 5 and 6 share two friends, 4 and 7 one
    assert found.stage == "rank"
    assert found.details["rank"] > 2
    assert found.sources["two_hop"] is not None


def test_the_command_line_prints_and_gives_json(tenant: Path) -> None:
    arguments = ["recommend", "-c", str(tenant), "--user", "0", "--why-not", "1"]
    printed = CliRunner().invoke(app, arguments)
    assert printed.exit_code == 0
    assert "connected already" in printed.stdout
    found = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
    assert found[0]["stage"] == "excluded"
    alone = CliRunner().invoke(app, ["recommend", "-c", str(tenant), "--why-not", "1"])
    assert alone.exit_code != 0
