"""The kinds that columns are taken for, on small tables and on real ones."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from nextedge import schema
from nextedge.config import EntityFeatures
from nextedge.data.kinds import feature_kinds
from nextedge.engines.local import LocalEngine
from nextedge.errors import ConfigError
from nextedge.schema import ColumnKind as Kind

ROOT = Path(__file__).parents[3]
DATA = Path(os.environ.get("NEXTEDGE_DATA", ROOT.parent / "shared" / "data"))
USERS = schema.TABLES[schema.USERS]


@pytest.fixture(scope="module")
def engine() -> Iterator[LocalEngine]:
    with LocalEngine(threads=1) as opened:
        yield opened


def kinds(engine: LocalEngine, columns: dict[str, Any], **settings: Any) -> dict[str, Kind]:
    table = engine.register("users", pa.table(columns))
    return feature_kinds(table, USERS, EntityFeatures(**settings))


COLUMNS: dict[str, Any] = {
    "user_id": list(range(400)),
    "plan": ["free", "pro"] * 200,
    "dorm": [number % 60 for number in range(400)],
    "followers": [number * 7919 % 100_003 for number in range(400)],
    "income": [number / 7 for number in range(400)],
    "about": [f"I am number {number} and I like long walks on the beach" for number in range(400)],
    "likes": [["a", "b"]] * 400,
    "premium": [True, False] * 200,
    "bio": ["hi"] * 400,
    "latitude": [1.0] * 400,
    "skills": [["x"]] * 400,
}


def test_types_and_distinct_values_decide(engine: LocalEngine) -> None:
    assert kinds(engine, COLUMNS) == {
        "plan": Kind.CATEGORY,
        "dorm": Kind.CATEGORY,
        "followers": Kind.NUMBER,
        "income": Kind.NUMBER,
        "about": Kind.TEXT,
        "likes": Kind.TAGS,
        "premium": Kind.FLAG,
        "bio": Kind.TEXT,
        "latitude": Kind.LATITUDE,
        "skills": Kind.TAGS,
    }


def test_settings_come_first(engine: LocalEngine) -> None:
    found = kinds(engine, COLUMNS, numeric=("dorm",), text=("plan",), ignore=("income",))
    assert found["dorm"] is Kind.NUMBER and found["plan"] is Kind.TEXT
    assert "income" not in found and "user_id" not in found


def test_a_configured_column_that_is_absent_names_the_nearest(engine: LocalEngine) -> None:
    with pytest.raises(ConfigError, match=r"'dorms'.*did you mean 'dorm'"):
        kinds(engine, COLUMNS, categorical=("dorms",))


def _real(engine: LocalEngine, location: str) -> dict[str, Kind]:
    if not (DATA / location).is_file():
        pytest.skip(f"{location} is not in the data folder (NEXTEDGE_DATA)")
    table = engine.read("users", location, DATA)
    first = table.columns[0]
    table = table.rename({schema.USER_ID: first}) if first != schema.USER_ID else table
    return feature_kinds(table, USERS, EntityFeatures())


@pytest.mark.parametrize("college", ["caltech36", "american75"])
def test_facebook_codes_are_categories(engine: LocalEngine, college: str) -> None:
    """The high school is left out: where most of it are different, it looks like a quantity."""
    found = _real(engine, f"facebook100/{college}/users.parquet")
    for name in ("student_fac", "gender", "major_index", "second_major", "dorm", "year"):
        assert found[name] is Kind.CATEGORY, name


def test_twitch_users(engine: LocalEngine) -> None:
    found = _real(engine, "musae_twitch/de/users.parquet")
    assert found["mature"] in (Kind.FLAG, Kind.CATEGORY)
    assert found["views"] is Kind.NUMBER
