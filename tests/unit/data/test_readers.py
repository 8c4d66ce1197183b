"""Every form of a location, and every way in which a file can be broken."""

from __future__ import annotations

import csv
import gzip
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import fsspec
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nextedge.engines.duckdb.engine import LocalEngine
from nextedge.engines.duckdb.frames import to_arrow_table
from nextedge.errors import DataError, MissingDependencyError
from nextedge.storage.locations import public_url


@pytest.fixture
def engine() -> Iterator[LocalEngine]:
    with LocalEngine(threads=1) as opened:
        yield opened


def rows(engine: LocalEngine, location: str, base: Path) -> list[dict[str, Any]]:
    return list(engine.to_arrow(engine.read("users", location, base)).to_pylist())


def test_every_file_format_and_gzip(engine: LocalEngine, tmp_path: Path) -> None:
    expected = [{"user_id": 1, "city": "東京 😀"}, {"user_id": 2, "city": None}]
    text = "user_id,city\n1,東京 😀\n2,\n"
    lines = '{"user_id": 1, "city": "東京 😀"}\n{"user_id": 2}\n'
    pq.write_table(pa.Table.from_pylist(expected), tmp_path / "u.parquet")
    (tmp_path / "u.csv").write_text(text, encoding="utf-8-sig")
    (tmp_path / "u.jsonl").write_text(lines, encoding="utf-8")
    (tmp_path / "u.ndjson").write_text(lines, encoding="utf-8")
    (tmp_path / "u.csv.gz").write_bytes(gzip.compress(text.encode()))
    (tmp_path / "u.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    for name in ("u.parquet", "u.csv", "u.jsonl", "u.ndjson", "u.csv.gz", "u.jsonl.gz"):
        assert rows(engine, name, tmp_path) == expected, name
        assert rows(engine, str(tmp_path / name), Path("elsewhere")) == expected, name


def test_globs_and_folders(engine: LocalEngine, tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    for part in range(3):
        pq.write_table(pa.table({"user_id": [part]}), tmp_path / "parts" / f"{part}.parquet")
        (tmp_path / f"u{part}.csv").write_text(f"user_id,x{part % 2}\n{part},a\n")
    (tmp_path / "parts" / "README").write_text("passed over")
    for location in ("parts/*.parquet", "parts"):
        assert [row["user_id"] for row in rows(engine, location, tmp_path)] == [0, 1, 2]
    found = rows(engine, "u*.csv", tmp_path)
    assert found[1] == {"user_id": 1, "x0": None, "x1": "a"}
    (tmp_path / "u.parquet").write_bytes(b"")
    with pytest.raises(DataError, match="several formats"):
        rows(engine, "u*", tmp_path)
    with pytest.raises(DataError, match="no file matches"):
        rows(engine, "z*.csv", tmp_path)
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="the folder holds no table; expected files of"):
        rows(engine, "none", tmp_path)


def test_parts_of_types_that_do_not_meet(engine: LocalEngine, tmp_path: Path) -> None:
    pq.write_table(pa.table({"t": [5]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"t": pa.array([5], pa.timestamp("us"))}), tmp_path / "b.parquet")
    with pytest.raises(DataError, match=r'cannot be read:.*a\.parquet.*column "t"'):
        rows(engine, "*.parquet", tmp_path)


CSV_TYPES = {
    "id\n1\n-2\n": (pa.int64(), [1, -2]),
    "id\n007\n8\n": (pa.string(), ["007", "8"]),
    "id\n+5\n": (pa.string(), ["+5"]),
    "id\n1\nx\n": (pa.string(), ["1", "x"]),
    "id\n92233720368547758070\n1\n": (pa.string(), ["92233720368547758070", "1"]),
    "id\n1.5\n2\n": (pa.float64(), [1.5, 2.0]),
    "id\ntrue\nfalse\n": (pa.bool_(), [True, False]),
    "id;x\n1;2,5\n": (pa.int64(), [1]),
    "id\tx\n1\t\n": (pa.int64(), [1]),
    'id,x\n"a,\nb",1\n': (pa.string(), ["a,\nb"]),
    'id\r\n"say ""hi"""\r\n': (pa.string(), ['say "hi"']),
    "id,x\n": (pa.string(), []),
    "id, x\n 1,2\n2 ,3\n": (pa.int64(), [1, 2]),
    "id,x,\n1,2,\n": (pa.int64(), [1]),
    '"id","a;b;c"\n1,x\n': (pa.int64(), [1]),
    "id\n0.5\n9007199254740993\n": (pa.string(), ["0.5", "9007199254740993"]),
}


@pytest.mark.parametrize("text", CSV_TYPES)
def test_csv_types_keep_the_spelling_of_ids(engine: LocalEngine, tmp_path: Path, text: str) -> None:
    (tmp_path / "t.csv").write_bytes(text.encode())
    kind, values = CSV_TYPES[text]
    column = engine.to_arrow(engine.read("t", "t.csv", tmp_path)).column("id")
    assert column.type == kind
    assert column.to_pylist() == values


VALUES = st.one_of(
    st.integers(-(2**70), 2**70).map(str),
    st.from_regex(r"[+-]?0*[0-9]{1,5}(\.[0-9]*)?", fullmatch=True),
    st.text(st.characters(codec="utf-8", exclude_characters="\x00\r"), max_size=6),
)


@settings(
    deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(VALUES, min_size=1, max_size=8))
def test_integers_read_from_csv_are_spelled_as_they_were(
    engine: LocalEngine, tmp_path: Path, values: list[str]
) -> None:
    """Oracle: a column of integers or strings, written back, gives the same text."""
    path = tmp_path / "p.csv"
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(
            [["id", "one"], *([value, "1"] for value in values)]
        )
    column = engine.to_arrow(engine.read("p", "p.csv", tmp_path)).column("id")
    if column.type in (pa.int64(), pa.string()):
        read = ["" if value is None else str(value) for value in column.to_pylist()]
        blank = " " if column.type == pa.int64() else ""
        assert read == [value.strip(blank) if blank else value for value in values]
    else:
        assert column.type in (pa.float64(), pa.bool_(), pa.timestamp("us", "UTC"))


def test_json_strings_stay_as_given(engine: LocalEngine, tmp_path: Path) -> None:
    (tmp_path / "j.jsonl").write_text(
        '{"a": "007", "b": "2024-01-01", "c": "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", "d": 1}\n'
        '{"a": 5, "d": "x", "e": ["p", "q"]}\n'
    )
    assert rows(engine, "j.jsonl", tmp_path)[0] == {
        "a": "007",
        "b": "2024-01-01",
        "c": "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11",
        "d": "1",
        "e": None,
    }


def test_json_numbers_are_not_rounded(engine: LocalEngine, tmp_path: Path) -> None:
    (tmp_path / "j.jsonl").write_text(
        '{"huge": 18446744073709551617, "mixed": 9007199254740993, "real": 1, "json": 1}\n'
        '{"huge": 18446744073709551616, "mixed": 2.5, "real": 0.5}\n'
    )
    assert rows(engine, "j.jsonl", tmp_path) == [
        {"huge": "18446744073709551617", "mixed": "9007199254740993", "real": 1.0, "json": 1},
        {"huge": "18446744073709551616", "mixed": "2.5", "real": 0.5, "json": None},
    ]


def test_json_objects_with_ever_new_keys_are_rows(engine: LocalEngine, tmp_path: Path) -> None:
    lines = "".join(f'{{"user_id": {number}, "k{number}": 1}}\n' for number in range(300))
    (tmp_path / "j.jsonl").write_text(lines)
    found = rows(engine, "j.jsonl", tmp_path)
    assert len(found) == 300 and found[7]["k7"] == 1 and found[7]["k8"] is None


def test_nanoseconds_with_a_zone(engine: LocalEngine, tmp_path: Path) -> None:
    """What pandas writes and hands over by default."""
    times = pd.to_datetime(["2024-01-01T00:00:00.000000+09:00"])
    frame = pd.DataFrame({"t": times.as_unit("ns")})
    frame.to_parquet(tmp_path / "n.parquet")
    read = engine.read("n", "n.parquet", tmp_path)
    for table in (read, engine.register("n", frame)):
        column = engine.to_arrow(table).column("t")
        assert column.type == pa.timestamp("us", "UTC")
        assert column.cast(pa.int64()).to_pylist() == [1_704_034_800_000_000]


BROKEN = {
    "wide.csv": (b"a,b\n1,2\n3,4,5\n", r"wide\.csv, line 3: expected 2 values, found 3"),
    "narrow.csv": (b"a,b\n1\n", r"narrow\.csv, line 2: expected 2 values, found 1"),
    "quote.csv": (b'a,b\n1,"x\n3,4\n', r"quote\.csv, line 2: a quoted value has no end"),
    "latin.csv": ("a,b\n1,é\n".encode("latin-1"), r"latin\.csv, line 2: not UTF-8"),
    "head.csv": ("é,b\n1,2\n".encode("latin-1"), r"head\.csv: line 1 is not UTF-8"),
    "twice.csv": (b"a,a\n1,2\n", r"twice\.csv: line 1 names column 'a' more than once"),
    "case.csv": (b"ID,id\n1,2\n", r"case\.csv: line 1 names columns 'ID' and 'id', which differ"),
    "mac.csv": (b"a,b\r1,2\r", r"mac\.csv: line 1 cannot be read.*end lines with LF"),
    "long.csv": (b"a,b\n1," + b"x" * 2_100_000, r"long\.csv, line 2: the row is longer than 2 MB"),
    "cut.csv.gz": (gzip.compress(b"a,b\n" * 9)[:20], r"cut\.csv\.gz: cannot be read: .*GZIP"),
    "cut.jsonl.gz": (gzip.compress(b'{"a":1}\n' * 9)[:20], r"cut\.jsonl\.gz: not readable as gzip"),
    "empty.csv": (b"", r"empty\.csv: empty; expected a header line"),
    "gzip.csv.gz": (b"a,b\n1,2\n", r"gzip\.csv\.gz: not readable as gzip"),
    "bad.jsonl": (b'{"a":1}\n{bad}\n', r"bad\.jsonl, line 2: not valid JSON"),
    "list.jsonl": (b'{"a":1}\n[1]\n', r"list\.jsonl, line 2: expected a JSON object"),
    "lists.jsonl": (b"[1]\n", r"lists\.jsonl, line 1: expected a JSON object"),
    "utf.jsonl": (b'{"a":1}\n{"a":"\xff"}\n', r"utf\.jsonl, line 2: not UTF-8"),
    "empty.jsonl": (b"", r"empty\.jsonl: empty; expected one JSON object a line"),
    "bad.parquet": (b"PAR1 not much of a file PAR1", r"bad\.parquet.*write it again"),
    "users.xlsx": (b"", r"users\.xlsx: format not known by its name; expected one of \.parquet"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_name_file_line_and_remedy(
    engine: LocalEngine, tmp_path: Path, name: str
) -> None:
    content, message = BROKEN[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        rows(engine, name, tmp_path)


def test_a_missing_file_names_the_nearest(engine: LocalEngine, tmp_path: Path) -> None:
    (tmp_path / "users.parquet").write_bytes(b"")
    with pytest.raises(DataError, match=r"usrs\.parquet: no such file; did you mean 'users"):
        rows(engine, "usrs.parquet", tmp_path)
    with pytest.raises(DataError, match="nor is there a folder"):
        rows(engine, "nowhere/users.parquet", tmp_path)


def test_sqlite(engine: LocalEngine, tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "s.db")
    connection.execute('CREATE TABLE "the users" (id TEXT, n INTEGER, mixed, real REAL, void TEXT)')
    connection.executemany(
        'INSERT INTO "the users" VALUES (?, ?, ?, ?, ?)',
        [("007", 1, 1, 0.5, None), ("李", None, "x", 2, None)],
    )
    connection.commit()
    connection.close()
    expected = [
        {"id": "007", "n": 1, "mixed": "1", "real": 0.5, "void": None},
        {"id": "李", "n": None, "mixed": "x", "real": 2.0, "void": None},
    ]
    for location in (
        "sqlite:///s.db#the%20users",
        "sqlite:///s.db?table=the users",
        f"sqlite:///{tmp_path}/s.db#the users",
    ):
        assert rows(engine, location, tmp_path) == expected
    with pytest.raises(DataError, match="no table 'users'; did you mean 'the users'"):
        rows(engine, "sqlite:///s.db#users", tmp_path)
    with sqlite3.connect(tmp_path / "latin.db") as connection:
        connection.execute("CREATE TABLE users AS SELECT CAST(x'ff' AS TEXT) AS user_id")
    connection.close()
    with pytest.raises(DataError, match=r"latin\.db#users: cannot be read:.*decode to UTF-8"):
        rows(engine, "sqlite:///latin.db#users", tmp_path)
    (tmp_path / "no.db").write_bytes(b"no database at all, only text" * 100)
    with pytest.raises(DataError, match="not readable as an SQLite database"):
        rows(engine, "sqlite:///no.db#users", tmp_path)


def test_duckdb(engine: LocalEngine, tmp_path: Path) -> None:
    with duckdb.connect(str(tmp_path / "d.duckdb")) as connection:
        connection.execute("CREATE TABLE users AS SELECT 1 AS user_id")
        connection.execute("CREATE SCHEMA app; CREATE VIEW app.users AS SELECT 2 AS user_id")
    assert rows(engine, "duckdb:///d.duckdb#users", tmp_path) == [{"user_id": 1}]
    assert rows(engine, "duckdb:///d.duckdb#app.users", tmp_path) == [{"user_id": 2}]
    with pytest.raises(DataError, match=r"no table 'user'; did you mean 'users'"):
        rows(engine, "duckdb:///d.duckdb#user", tmp_path)
    with pytest.raises(DataError, match=r"names no table; write it after a #"):
        rows(engine, "duckdb:///d.duckdb", tmp_path)
    with pytest.raises(DataError, match=r"e\.duckdb: no such file; did you mean 'd\.duckdb'"):
        rows(engine, "duckdb:///e.duckdb#users", tmp_path)


def test_passwords_are_never_shown(engine: LocalEngine, tmp_path: Path) -> None:
    pytest.importorskip("adbc_driver_postgresql")
    url = "postgresql://ada:secret@localhost:1/db#users"
    assert public_url(url) == "postgresql://ada:***@localhost:1/db#users"
    for location in (url, url.replace("secret", "sec@secret"), f"{url[:-6]}?password=secret#users"):
        with pytest.raises(DataError, match="the server cannot be read") as caught:
            rows(engine, location, tmp_path)
        assert "secret" not in str(caught.value)
    assert public_url("postgresql://h/db?user=a&password=secret#t").endswith("password=***#t")


def _postgres_programs() -> Path | None:
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    if on_path := shutil.which("initdb"):
        folders.append(Path(on_path).parent)
    return next((folder for folder in folders if (folder / "initdb").exists()), None)


@pytest.fixture
def postgres() -> Iterator[str]:
    """A PostgreSQL server of its own, as a user that is not root, on a socket in its folder."""
    pytest.importorskip("adbc_driver_postgresql")
    programs = _postgres_programs()
    if programs is None:
        pytest.skip("no PostgreSQL server is installed here")
    prefix: list[str] = []
    if os.geteuid() == 0:
        if shutil.which("runuser") is None:
            pytest.skip("PostgreSQL refuses to run as root, and there is no runuser")
        prefix = ["runuser", "-u", "nobody", "--"]
    # not below pytest's folders, which other users may not enter
    with tempfile.TemporaryDirectory(prefix="nextedge-pg-", dir="/tmp") as made:
        folder = Path(made)
        if prefix:
            shutil.chown(folder, "nobody")
        yield from _served(folder, programs, prefix)


def _served(folder: Path, programs: Path, prefix: list[str]) -> Iterator[str]:
    def run(program: str, *arguments: str) -> None:
        command = [*prefix, str(programs / program), *arguments]
        subprocess.run(command, check=True, capture_output=True, cwd=folder)

    run("initdb", "-D", f"{folder}/db", "-U", "ada", "-A", "trust", "-E", "UTF8", "--no-sync")
    options = f"-k {folder} -h '' -c fsync=off"
    run("pg_ctl", "-D", f"{folder}/db", "-l", f"{folder}/log", "-w", "-o", options, "start")
    try:
        yield f"postgresql://ada:secret@/postgres?host={folder}"
    finally:
        run("pg_ctl", "-D", f"{folder}/db", "-m", "immediate", "stop")


def test_postgresql(engine: LocalEngine, tmp_path: Path, postgres: str) -> None:
    import adbc_driver_postgresql.dbapi as adbc

    with adbc.connect(postgres) as connection, connection.cursor() as cursor:
        cursor.execute(
            "CREATE TABLE users AS SELECT 1::bigint AS user_id, '李😀' AS name, "
            "ARRAY['a', 'b'] AS skills, 1.50::numeric AS price, "
            "'2024-01-01T00:00:00+05:00'::timestamptz AS created_at"
        )
        cursor.execute("CREATE SCHEMA app")
        cursor.execute("CREATE TABLE app.users AS SELECT 'x' AS user_id WHERE false")
        connection.commit()
    (row,) = rows(engine, f"{postgres}#users", tmp_path)
    assert row["user_id"] == 1 and row["name"] == "李😀" and row["skills"] == ["a", "b"]
    assert row["created_at"].isoformat() == "2023-12-31T19:00:00+00:00"
    assert float(row["price"]) == 1.5
    assert rows(engine, f"{postgres}#app.users", tmp_path) == []
    with pytest.raises(DataError, match="no table 'usrs'; did you mean 'users'") as caught:
        rows(engine, f"{postgres}#usrs", tmp_path)
    assert "secret" not in str(caught.value)


def test_object_stores_are_read_through_fsspec(engine: LocalEngine, tmp_path: Path) -> None:
    """fsspec's own memory store stands in for S3: the way to both is the same."""
    memory = fsspec.filesystem("memory")
    memory.pipe("/bucket/u.csv", b"user_id\n1\n2\n")
    with memory.open("/bucket/u.parquet", "wb") as stream:
        pq.write_table(pa.table({"user_id": [3]}), stream)
    assert rows(engine, "memory://bucket/u.csv", tmp_path) == [{"user_id": 1}, {"user_id": 2}]
    assert rows(engine, "memory://bucket/u.parquet", tmp_path) == [{"user_id": 3}]
    memory.pipe("/bucket/v.csv", b"user_id\n4\n")
    assert [row["user_id"] for row in rows(engine, "memory://bucket/*.csv", tmp_path)] == [1, 2, 4]
    for name in ("none.csv", "none*.parquet"):
        with pytest.raises(DataError, match="no such object; check the setting"):
            rows(engine, f"memory://bucket/{name}", tmp_path)


def test_unknown_and_uninstalled_kinds_of_location(
    engine: LocalEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match="no such kind of location; valid: a path, a glob"):
        rows(engine, "ftps3://bucket/u.parquet", tmp_path)
    monkeypatch.setitem(sys.modules, "obstore", None)  # as where it is not installed
    with pytest.raises(MissingDependencyError, match=r"nextedge\[s3\]"):
        rows(engine, "s3://bucket/u.parquet", tmp_path)


def test_frames_of_mixed_objects_become_strings() -> None:
    frame = pd.DataFrame({"user_id": [1, "x", None], "n": [1, 2, 3]}, index=["a", "b", "c"])
    table = to_arrow_table(frame, "users")
    assert table.to_pydict() == {"user_id": ["1", "x", None], "n": [1, 2, 3]}
    assert to_arrow_table(pl.DataFrame({"a": ["😀"]}), "users").to_pydict() == {"a": ["😀"]}
    with pytest.raises(DataError, match="users: a dict is not a table; expected a pandas"):
        to_arrow_table({"a": [1]}, "users")
    with pytest.raises(DataError, match="users: a Series is not a table"):
        to_arrow_table(pd.Series([1]), "users")


def test_frames_whose_columns_cannot_be_told_apart_or_held() -> None:
    assert to_arrow_table(pd.DataFrame([[1, 2]], columns=["a", 7]), "users").column_names == [
        "a",
        "7",
    ]
    with pytest.raises(DataError, match="two columns are named 'a' and 'a'"):
        to_arrow_table(pd.DataFrame([[1, 2]], columns=["a", "a"]), "users")
    with pytest.raises(DataError, match="two columns are named 'City' and 'city'"):
        to_arrow_table(pa.table({"City": [1], "city": [2]}), "users")
    with pytest.raises(DataError, match="has no column"):
        to_arrow_table(pd.DataFrame(), "users")
    seconds = pa.array([2**60], pa.timestamp("s"))
    with pytest.raises(DataError, match="users: column 'created_at' cannot be used"):
        to_arrow_table(pa.table({"created_at": seconds}), "users")
    half = pa.array([1.5, None], pa.float16())
    assert to_arrow_table(pa.table({"x": half}), "users").to_pydict() == {"x": [1.5, None]}
