"""``examples/plugin`` installed: a build, requests and checks use everything that it offers."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest

PLUGIN = Path(__file__).parents[2] / "examples" / "plugin"
USERS = 160
MOST_EDGES = 14
SETTINGS = f"""
[data]
users = "users.csv"

[serving]
deadline_ms = 0
store = "memory+zlib://"

[surfaces.people.sources]
same_value = {{ options = {{ column = "city" }} }}
degree_product = {{ limit = 40, options = {{ exponent = 0.25 }} }}
random_walk = {{ enabled = false }}

[surfaces.people.ranker]
model = "lightgbm"
compare = ["lightgbm"]
trees = 5
max_rows = 2000

[surfaces.people.policy.rules.most_edges]
edges = {MOST_EDGES}
"""


@dataclass(frozen=True)
class Installed:
    """A tenant, and the environment in which the package is installed."""

    tenant: Path
    environment: dict[str, str]

    def run(self, *arguments: str, fails: bool = False) -> str:
        """Run ``nextedge``; returns the output, or the errors where it fails."""
        done = subprocess.run(
            [sys.executable, "-m", "nextedge", *arguments],
            capture_output=True,
            text=True,
            env=self.environment,
            check=False,
        )
        assert bool(done.returncode) is fails, done.stdout + done.stderr
        return done.stderr if fails else done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The package installed into a folder of its own, and a tenant that its importer wrote."""
    folder = tmp_path_factory.mktemp("plugin")
    shutil.copytree(PLUGIN, folder / "source")  # setuptools writes beside its sources
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    install += ["--no-build-isolation", "--target", str(folder / "site"), str(folder / "source")]
    subprocess.run(install, check=True, capture_output=True)
    path = os.pathsep.join([str(folder / "site"), *filter(None, [os.environ.get("PYTHONPATH")])])
    tenant = Installed(folder / "tenant", {**os.environ, "PYTHONPATH": path})
    draw = random.Random(0)
    names = [f"u{number}" for number in range(USERS)]
    friends = {
        name: sorted({names[(place + draw.randrange(1, 16)) % USERS] for _ in range(6)})
        for place, name in enumerate(names)
    }
    (folder / "friends.json").write_text(json.dumps(friends))
    tenant.run("import", "friends_json", str(folder / "friends.json"), str(tenant.tenant))
    cities = "".join(f"{name},city{place // 20}\n" for place, name in enumerate(names))
    (tenant.tenant / "users.csv").write_text(f"user_id,city\n{cities}")
    (tenant.tenant / "nextedge.toml").write_text(
        SETTINGS.replace("[data]", '[data]\nconnections = "connections.parquet"')
    )
    return tenant


def edit(tenant: Path, before: str, after: str) -> None:
    file = tenant / "nextedge.toml"
    text = file.read_text()
    assert before in text
    file.write_text(text.replace(before, after))


def test_a_tenant_is_built_and_served_with_the_package(installed: Installed) -> None:
    """It installs a package and builds a tenant, which takes most of its time."""
    tenant = installed.tenant
    installed.run("check", str(tenant))
    installed.run("build", str(tenant))
    (release,) = (tenant / "state" / "releases").glob("2*")
    written = "".join(
        path.read_text() for path in (release / "surfaces/people/ranker").glob("*.json")
    )
    for feature in ("degree_gap", "same_value_score", "degree_product_rank"):
        assert f'"{feature}"' in written, "the ranker reads it"
    out = tenant / "out.parquet"
    arguments = ["recommend", str(tenant), "--surface", "people", "--all", "--out", str(out)]
    installed.run(*arguments)
    rows = pq.read_table(out).to_pylist()
    found_by = {source for row in rows for source in row["sources"]}
    assert {"same_value", "degree_product"} <= found_by
    edges: dict[str, set[str]] = {}
    for row in pq.read_table(tenant / "connections.parquet").to_pylist():
        edges.setdefault(row["src"], set()).add(row["dst"])
        edges.setdefault(row["dst"], set()).add(row["src"])
    assert max(len(edges[row["candidate_id"]]) for row in rows) <= MOST_EDGES
    edit(tenant, f"edges = {MOST_EDGES}", "edges = 1000")
    installed.run(*arguments)
    rows = pq.read_table(out).to_pylist()
    assert max(len(edges[row["candidate_id"]]) for row in rows) > MOST_EDGES
    edit(tenant, "edges = 1000", f"edges = {MOST_EDGES}")


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("{ column =", "{ colum =", "did you mean 'column'"),
        ('"city"', "3", "Input should be a valid string"),
        ("same_value =", "same_valu =", "did you mean 'same_value'"),
        ("rules.most_edges", "rules.most_edge", "did you mean 'most_edges'"),
        (f"edges = {MOST_EDGES}", f"edge = {MOST_EDGES}", "did you mean 'edges'"),
    ],
)
def test_check_refuses_wrong_names(
    installed: Installed, before: str, after: str, message: str
) -> None:
    """Every check is a process that imports all sources, which takes most of its time."""
    edit(installed.tenant, before, after)
    try:
        assert message in installed.run("check", str(installed.tenant), fails=True)
    finally:
        edit(installed.tenant, after, before)


def test_its_store_keeps_the_contract(installed: Installed) -> None:
    code = (
        "from nextedge.stores.store import open_store; s = open_store('memory+zlib://', 'a');"
        "s.put_many({'k': b'v' * 999}); print(len(s.get_many(['k', 'x'])[0]), s._bytes < 200)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=installed.environment,
        check=True,
    )
    assert done.stdout.split() == ["999", "True"]
