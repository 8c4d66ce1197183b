"""A network small enough to be built in a second, of which every edge is known."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nextedge import Recommender

PEOPLE = 120
FIRST = 7_300_000_000_001
"""Id of the first person: numbers that no array holds by chance."""
SETTINGS = """\
[serving]
deadline_ms = 0  # what is compared must not depend on how fast the machine is

[surfaces.people]
k = 20
[surfaces.people.ranker]
max_rows = 3000
"""


def person(place: int) -> int:
    """The id of the person at a place."""
    return FIRST + 17 * place


def network(seed: int = 5) -> dict[str, pa.Table]:
    """Users of a few schools, connected mostly within them, one tenth not discoverable."""
    random = np.random.default_rng(seed)
    school = random.integers(0, 5, PEOPLE)
    near = np.where(school[:, None] == school[None, :], 0.28, 0.025)
    left, right = np.nonzero(np.triu(random.random((PEOPLE, PEOPLE)) < near, 1))
    days = random.integers(0, 300, len(left))
    start = 1_700_000_000_000_000
    users = pa.table(
        {
            "user_id": [person(place) for place in range(PEOPLE)],
            "name": [f"Name{person(place)} of {place}" for place in range(PEOPLE)],
            "school": [f"school {number}" for number in school],
            "discoverable": [place % 10 != 3 for place in range(PEOPLE)],
        }
    )
    connections = pa.table(
        {
            "src": [person(int(place)) for place in left],
            "dst": [person(int(place)) for place in right],
            "timestamp": pa.array(start + days * 86_400_000_000, pa.timestamp("us", "UTC")),
        }
    )
    return {"users": users, "connections": connections}


def write(folder: Path, tables: dict[str, pa.Table], settings: str = SETTINGS) -> Path:
    """A tenant's folder of these tables."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        pq.write_table(table, folder / f"{name}.parquet")
    (folder / "nextedge.toml").write_text(settings)
    return folder


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network, built once; never written to."""
    folder = write(tmp_path_factory.mktemp("privacy") / "tenant", network())
    Recommender(folder).build()
    return folder


@pytest.fixture
def folder(built: Path, tmp_path: Path) -> Path:
    """A copy of the built network, to be written to."""
    shutil.copytree(built, tmp_path / "tenant")
    return tmp_path / "tenant"
