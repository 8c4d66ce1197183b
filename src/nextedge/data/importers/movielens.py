"""MovieLens in its public layouts: 100K, 1M (and 10M), and the CSV files of "latest" and later.

A rating becomes the weight of an interaction with the event ``rating``. Genres become a list; the
first one is the category. F. M. Harper and J. A. Konstan, The MovieLens Datasets:
History and Context, ACM TiiS 5(4), 2015.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nextedge.data.importers.importer import Importer, ImportReport
from nextedge.data.importers.tables import importing, literal, write_parquet
from nextedge.errors import DataError

_GENRES_100K = (
    "unknown",
    "Action",
    "Adventure",
    "Animation",
    "Children's",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Film-Noir",
    "Horror",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
    "Western",
)
_YEAR = "TRY_CAST(regexp_extract(title, '\\(([0-9]{4})\\)\\s*$', 1) AS INTEGER)"
_NOTE = "the rating is the weight of an interaction with the event 'rating'"


@dataclass(frozen=True)
class _Layout:
    """One public layout: the file that identifies it, and a SELECT per table of ours."""

    marker: str
    selects: Callable[[Path], dict[str, str]]


class MovieLens(Importer):
    """``interactions``, ``items`` and, where the source has them, ``users``."""

    name = "movielens"
    summary = "MovieLens 100K, 1M, 10M or latest, unpacked"

    def run(self, source: Path, target: Path) -> ImportReport:
        """Write the tables of the unpacked folder, or of the folder that contains it.

        Raises:
            DataError: there is no known layout, or a file of it is missing or broken.
        """
        directory, layout = _find(source)
        with importing(directory) as connection:
            tables = {
                name: write_parquet(connection, select, target / f"{name}.parquet")
                for name, select in layout.selects(directory).items()
            }
        return ImportReport(tables, (_NOTE,))


def _find(source: Path) -> tuple[Path, _Layout]:
    if not source.is_dir():
        raise DataError(f"{source}: no such folder")
    # Sorted: of two data sets the same one is read on every machine.
    folders = [source, *sorted(path for path in source.glob("*") if path.is_dir())]
    for folder in folders:
        for layout in _LAYOUTS:
            if (folder / layout.marker).is_file():
                return folder, layout
    expected = ", ".join(layout.marker for layout in _LAYOUTS)
    raise DataError(
        f"{source}: no MovieLens files; expected one of {expected} (unpack the archive)"
    )


def _ratings(path: Path, delimiter: str, *, header: bool = False) -> str:
    source = _read(path, delimiter, ("user_id", "item_id", "rating", "seconds"), header=header)
    return (
        "SELECT CAST(user_id AS BIGINT) AS user_id, CAST(item_id AS BIGINT) AS item_id, "
        "'rating' AS event, CAST(rating AS DOUBLE) AS weight, "
        f"make_timestamptz(CAST(seconds AS BIGINT) * 1000000) AS timestamp FROM {source}"
    )


def _read(path: Path, delimiter: str, columns: tuple[str, ...], *, header: bool = False) -> str:
    """A read of a file as text."""
    if not path.is_file():
        raise DataError(f"{path}: no such file; the layout has one: unpack the whole archive")
    types = ", ".join(f"{literal(name)}: 'VARCHAR'" for name in columns)
    # Only the CSV files have a header, quotes and UTF-8; the others are Latin-1.
    quoting = "'\"'" if header else "''"
    return (
        f"read_csv({literal(str(path))}, auto_detect = false, header = {str(header).lower()}, "
        f"delim = {literal(delimiter)}, quote = {quoting}, escape = {quoting}, "
        f"encoding = '{'utf-8' if header else 'latin-1'}', columns = {{{types}}})"
    )


def _100k(directory: Path) -> dict[str, str]:
    flags = tuple(f"genre_{index}" for index in range(len(_GENRES_100K)))
    fields = ("item_id", "title", "released", "video", "url", *flags)
    named = ", ".join(
        f"CASE WHEN {flag} = '1' THEN {literal(genre)} END"
        for flag, genre in zip(flags, _GENRES_100K, strict=True)
    )
    genres = f"list_filter([{named}], lambda genre: genre IS NOT NULL)"
    people = _read(
        directory / "u.user", "|", ("user_id", "age", "gender", "occupation", "zip_code")
    )
    return {
        "interactions": _ratings(directory / "u.data", "\t"),
        "items": (
            f"SELECT CAST(item_id AS BIGINT) AS item_id, title, {genres} AS genres, "
            f"({genres})[1] AS category, {_YEAR} AS year, "
            "CAST(TRY_STRPTIME(released, '%d-%b-%Y') AS TIMESTAMPTZ) AS created_at "
            f"FROM {_read(directory / 'u.item', '|', fields)}"
        ),
        "users": (
            "SELECT CAST(user_id AS BIGINT) AS user_id, CAST(age AS INTEGER) AS age, gender, "
            f"occupation, zip_code FROM {people}"
        ),
    }


def _1m(directory: Path) -> dict[str, str]:
    tables = {
        "interactions": _ratings(directory / "ratings.dat", "::"),
        "items": _items(_read(directory / "movies.dat", "::", ("item_id", "title", "genres"))),
    }
    if (directory / "users.dat").is_file():  # 10M has none
        columns = ("user_id", "gender", "age", "occupation", "zip_code")
        tables["users"] = (
            "SELECT CAST(user_id AS BIGINT) AS user_id, gender, CAST(age AS INTEGER) AS age, "
            "CAST(occupation AS INTEGER) AS occupation, zip_code "
            f"FROM {_read(directory / 'users.dat', '::', columns)}"
        )
    return tables


def _latest(directory: Path) -> dict[str, str]:
    movies = _read(directory / "movies.csv", ",", ("item_id", "title", "genres"), header=True)
    return {
        "interactions": _ratings(directory / "ratings.csv", ",", header=True),
        "items": _items(movies),
    }


def _items(source: str) -> str:
    named = "genre NOT IN ('', '(no genres listed)')"
    genres = f"list_filter(string_split(coalesce(genres, ''), '|'), lambda genre: {named})"
    return (
        f"SELECT CAST(item_id AS BIGINT) AS item_id, title, {genres} AS genres, "
        f"({genres})[1] AS category, {_YEAR} AS year FROM {source}"
    )


_LAYOUTS = (_Layout("u.data", _100k), _Layout("ratings.dat", _1m), _Layout("ratings.csv", _latest))
