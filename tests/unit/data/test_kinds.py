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
from nextedge.engines.duckdb.engine import LocalEngine
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
    "dorm": [number % 40 for number in range(400)],
    "age": [13 + number % 80 for number in range(400)],
    "campus_id": [number % 80 for number in range(400)],
    "school_of_origin": [number % 80 * 7919 for number in range(400)],
    "room": [float(number % 30) for number in range(399)] + [None],
    "login": [f"user{number}@example.org" for number in range(400)],
    "zip_text": [f"{number % 250:05}" for number in range(400)],
    "motto": [f"carpe {number}" for number in range(400)],
    "lat": [number / 10 for number in range(400)],
    "nested": [{"a": 1}] * 400,
    "friends": [[{"a": 1}]] * 400,
    "void": pa.nulls(400, pa.string()),
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
        "age": Kind.NUMBER,
        "campus_id": Kind.CATEGORY,
        "school_of_origin": Kind.CATEGORY,
        "room": Kind.CATEGORY,
        "zip_text": Kind.CATEGORY,
        "motto": Kind.TEXT,
        "lat": Kind.LATITUDE,
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


@pytest.mark.parametrize(
    ("setting", "column"),
    [("numeric", "plan"), ("tags", "plan"), ("text", "likes"), ("categorical", "nested")],
)
def test_a_column_that_cannot_be_what_is_configured_is_named(
    engine: LocalEngine, setting: str, column: str
) -> None:
    with pytest.raises(ConfigError, match=rf"features\.users\.{setting} names.*'{column}' of type"):
        kinds(engine, COLUMNS, **{setting: (column,)})


def test_amounts_stay_numbers_and_codes_stay_categories_at_any_size(engine: LocalEngine) -> None:
    """What decides is how values lie, so that ten times the rows change nothing."""
    for rows in (1_000, 10_000, 100_000):
        spread = [(number * 7919) % rows for number in range(rows)]
        found = kinds(
            engine,
            {
                "user_id": range(rows),
                "days": [300 + place * 3000 // rows for place in spread],
                "earned": [place**2 // rows for place in spread],
                "employer": [place * 2 // 3 % (rows // 3) * 104_729 for place in spread],
            },
        )
        assert found == {"days": Kind.NUMBER, "earned": Kind.NUMBER, "employer": Kind.CATEGORY}


def _real(engine: LocalEngine, location: str) -> dict[str, Kind]:
    if not (DATA / location).is_file():
        pytest.skip(f"{location} is not in the data folder (NEXTEDGE_DATA)")
    table = engine.read("users", location, DATA)
    first = table.columns[0]
    table = table.rename({schema.USER_ID: first}) if first != schema.USER_ID else table
    return feature_kinds(table, USERS, EntityFeatures())


@pytest.mark.parametrize("college", ["caltech36", "american75", "haverford76", "reed98"])
def test_facebook_codes_are_categories(engine: LocalEngine, college: str) -> None:
    found = _real(engine, f"facebook100/{college}/users.parquet")
    codes = ("student_fac", "gender", "major_index", "second_major", "dorm", "year", "high_school")
    assert found == dict.fromkeys(codes, Kind.CATEGORY)


@pytest.mark.parametrize("country", ["de", "es", "fr"])
def test_twitch_users(engine: LocalEngine, country: str) -> None:
    assert _real(engine, f"musae_twitch/{country}/users.parquet") == {
        "days": Kind.NUMBER,
        "mature": Kind.FLAG,
        "views": Kind.NUMBER,
        "partner": Kind.FLAG,
    }
