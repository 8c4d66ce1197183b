"""The public layouts of MovieLens and of edge lists, in miniature."""

from __future__ import annotations

import gzip
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from nextedge.data.importers.edges import Edges
from nextedge.data.importers.importer import importers
from nextedge.data.importers.movielens import MovieLens
from nextedge.errors import DataError


def _rows(path: Path) -> list[dict[str, Any]]:
    return list(pq.read_table(path).to_pylist())


def _movielens_100k(folder: Path) -> None:
    folder.mkdir()
    (folder / "u.data").write_text("196\t242\t3\t881250949\n186\t302\t5\t891717742\n")
    flags = {242: "0|0|0|0|0|1|0|0|1" + "|0" * 10, 302: "1" + "|0" * 18}
    lines = [
        f"242|Misérables, Les (1995)|01-Jan-1995||http://x|{flags[242]}",
        f"302|unknown||||{flags[302]}",
    ]
    (folder / "u.item").write_bytes("\n".join(lines).encode("latin-1") + b"\n")
    (folder / "u.user").write_text("196|49|M|writer|00501\n186|39|F|executive|T8H1N\n")


def test_movielens_100k_in_a_folder_below(tmp_path: Path) -> None:
    _movielens_100k(tmp_path / "ml-100k")
    report = MovieLens().run(tmp_path, tmp_path / "out")
    assert report.tables == {"interactions": 2, "items": 2, "users": 2}
    assert "weight" in report.notes[0]
    first = _rows(tmp_path / "out" / "interactions.parquet")[0]
    assert first == {
        "user_id": 196,
        "item_id": 242,
        "event": "rating",
        "weight": 3.0,
        "timestamp": datetime.fromtimestamp(881250949, UTC),
    }
    items = _rows(tmp_path / "out" / "items.parquet")
    assert items[0]["title"] == "Misérables, Les (1995)"
    assert items[0]["genres"] == ["Comedy", "Drama"]
    assert items[0]["category"] == "Comedy"
    assert items[0]["year"] == 1995
    assert items[0]["created_at"] == datetime(1995, 1, 1, tzinfo=UTC)
    assert items[1]["created_at"] is None and items[1]["year"] is None
    users = _rows(tmp_path / "out" / "users.parquet")
    assert users[0]["zip_code"] == "00501"


def test_movielens_1m(tmp_path: Path) -> None:
    (tmp_path / "ratings.dat").write_text("1::1193::5::978300760\n")
    movies = '1193::L\'été: un "film" (1975)::Drama|War\n2::Empty (2000)::\n'
    (tmp_path / "movies.dat").write_bytes(movies.encode("latin-1"))
    (tmp_path / "users.dat").write_text("1::F::1::10::48067\n")
    report = MovieLens().run(tmp_path, tmp_path / "out")
    assert report.tables == {"interactions": 1, "items": 2, "users": 1}
    items = _rows(tmp_path / "out" / "items.parquet")
    assert items[0]["title"] == 'L\'été: un "film" (1975)'
    assert items[0]["genres"] == ["Drama", "War"] and items[1]["genres"] == []


def test_movielens_latest(tmp_path: Path) -> None:
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,1,4.5,964982703\n")
    (tmp_path / "movies.csv").write_text(
        'movieId,title,genres\n1,"American President, The (1995)",Comedy|Drama\n'
        "2,七人の侍 (1954),(no genres listed)\n",
        encoding="utf-8",
    )
    report = MovieLens().run(tmp_path, tmp_path / "out")
    assert report.tables == {"interactions": 1, "items": 2}
    items = _rows(tmp_path / "out" / "items.parquet")
    assert items[0]["title"] == "American President, The (1995)"
    assert items[1]["title"] == "七人の侍 (1954)" and items[1]["genres"] == []
    assert _rows(tmp_path / "out" / "interactions.parquet")[0]["weight"] == 4.5


def test_movielens_faults(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no MovieLens files; expected one of u\.data"):
        MovieLens().run(tmp_path, tmp_path / "out")
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,x,4.5,964982703\n")
    with pytest.raises(DataError, match=r"movies\.csv: no such file"):
        MovieLens().run(tmp_path, tmp_path / "out")
    (tmp_path / "movies.csv").write_text("movieId,title,genres\n")
    with pytest.raises(DataError, match="cannot be imported"):
        MovieLens().run(tmp_path, tmp_path / "out")
    assert not list((tmp_path / "out").glob("*")), "a failed table leaves nothing behind"


EDGE_LISTS = {
    "spaces.txt": ("# a comment\n1 2\n2   3\n", [(1, 2), (2, 3)]),
    "tabs.tsv": ("% konect\n1\t2\n2\t3\n", [(1, 2), (2, 3)]),
    "commas.csv": ("id_1,id_2\n1,2\n2, 3\n", [(1, 2), (2, 3)]),
    "quoted.csv": ('"a","b"\n"c, d","e"\n"f" , g\n', [("a", "b"), ("c, d", "e"), ("f", "g")]),
    "dos.csv": ("\ufeffsrc;dst\r\n1;2\r\n2;\t3\r\n", [(1, 2), (2, 3)]),
    "market.mtx": ("%%MatrixMarket matrix\n% c\n3 3 2\n1 2\n2 3\n", [(1, 2), (2, 3)]),
    "headless.csv": ("1,2\n2,3\n", [(1, 2), (2, 3)]),
    "names.txt": ("source target\nada 李\n李 😀\n", [("ada", "李"), ("李", "😀")]),
    "names_headless.txt": ("ada bo\nbo cy\n", [("ada", "bo"), ("bo", "cy")]),
    "zeros.txt": ("007 8\n8 9\n", [("007", "8"), ("8", "9")]),
    "spaced.tsv": ("Ada L\tBo\nBo\tCy D\n", [("Ada L", "Bo"), ("Bo", "Cy D")]),
}


@pytest.mark.parametrize("name", EDGE_LISTS)
def test_edge_lists(tmp_path: Path, name: str) -> None:
    text, expected = EDGE_LISTS[name]
    (tmp_path / name).write_text(text, encoding="utf-8")
    report = Edges().run(tmp_path / name, tmp_path / "out")
    assert report.tables == {"connections": len(expected)}
    rows = _rows(tmp_path / "out" / "connections.parquet")
    assert [(row["src"], row["dst"]) for row in rows] == expected
    assert set(rows[0]) == {"src", "dst"}


@pytest.mark.parametrize(
    ("line", "columns", "value"),
    [
        ("1 2 0.5", "weight", 0.5),
        ("1 2 1082040961", "timestamp", datetime.fromtimestamp(1082040961, UTC)),
        ("1 2 1082040961000", "timestamp", datetime.fromtimestamp(1082040961, UTC)),
        ("1,2,2004-04-15", "timestamp", datetime(2004, 4, 15, tzinfo=UTC)),
        ("1\t2\t2004-04-15 02:00:00+02:00", "timestamp", datetime(2004, 4, 15, tzinfo=UTC)),
        ("1,2,-10", "rating", -10.0),
        ("1 2 1 1082040961", "weight timestamp", 1.0),
        ("1 2 word", "", None),
    ],
)
def test_third_and_fourth_column(tmp_path: Path, line: str, columns: str, value: Any) -> None:
    (tmp_path / "edges.txt").write_text(line + "\n")
    report = Edges().run(tmp_path / "edges.txt", tmp_path / "out")
    (row,) = _rows(tmp_path / "out" / "connections.parquet")
    assert set(row) == {"src", "dst", *columns.split()}
    assert report.notes
    if columns:
        assert row[columns.split()[0]] == value


def test_folder_of_gzipped_edge_lists(tmp_path: Path) -> None:
    for name, text in (("a.txt.gz", "1 2\n"), ("b.edges.gz", "2 x\n")):
        with gzip.open(tmp_path / name, "wt") as stream:
            stream.write(text)
    (tmp_path / "README.md").write_text("not an edge list")
    assert Edges().run(tmp_path, tmp_path / "out").tables == {"connections": 2}
    assert _rows(tmp_path / "out" / "connections.parquet")[0]["src"] == "1"


def test_edge_list_faults(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no edge list"):
        Edges().run(tmp_path, tmp_path / "out")
    path = tmp_path / "edges.txt"
    with pytest.raises(DataError, match="no such file or folder"):
        Edges().run(path, tmp_path / "out")
    path.write_text("# nothing\n")
    with pytest.raises(DataError, match="no edge in it"):
        Edges().run(path, tmp_path / "out")
    path.write_text("# one\n\n1 2\n3\n4 5\n")
    with pytest.raises(DataError, match=r"edges\.txt, line 4: expected two ids, found '3'"):
        Edges().run(path, tmp_path / "out")
    path.write_bytes(b"1 2\n\xff 3\n")
    with pytest.raises(DataError, match="not UTF-8"):
        Edges().run(path, tmp_path / "out")


def test_registry_names_its_importers() -> None:
    assert {name: importer.name for name, importer in importers().items()} == {
        "movielens": "movielens",
        "edges": "edges",
    }
    assert all(importer.summary for importer in importers().values())
