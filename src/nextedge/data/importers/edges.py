"""Plain edge lists, as SNAP, KONECT, Network Repository and others publish them.

One edge a line, two ids and at most a weight and a time after them, separated by commas,
semicolons, tabs or spaces; a header, the size line of a Matrix Market file and comments (``#``,
``%``, ``//``) are skipped; ``.gz`` is read too.
"""

from __future__ import annotations

import csv
import gzip
import re
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import duckdb

from nextedge.data.importers.importer import Importer, ImportReport
from nextedge.data.importers.tables import importing, literal, write_parquet
from nextedge.engines.duckdb.text import INTEGER, open_binary
from nextedge.errors import DataError

_SUFFIXES = (".txt", ".csv", ".tsv", ".edges", ".edgelist", ".el", ".mtx")
_MATRIX_MARKET = "%%MatrixMarket"
_COMMENT = r"^\s*(#|%|//)"
_QUOTING = (",", ";")
_DATE = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}"
_NUMBER = re.compile(r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$")
_HEADS = re.compile(r"^(src|source|from|node|id|user|u|v|tail|follower)", re.IGNORECASE)
_EARLIEST_SECONDS = 1e8  # March 1973; a column that never goes below it holds times
_SNIFFED_LINES = 1000


@dataclass(frozen=True)
class _Dialect:
    """The separator of a file, whether it has a header, and its number of columns."""

    separator: str  # a comma, a semicolon, or a regular expression
    header: bool
    width: int


class Edges(Importer):
    """``connections.parquet`` from one edge list, or from all of a folder.

    A third and a fourth column are recognised by their values: dates, and numbers of 1e8 and more
    (since 1970; the unit by magnitude, as for every table), are times; other numbers are weights.
    Weights below zero (signed networks) become a column ``rating``.
    """

    name = "edges"
    summary = "a plain edge list (.txt, .csv, .tsv, .gz), or a folder"

    def run(self, source: Path, target: Path) -> ImportReport:
        """Write the edges.

        Raises:
            DataError: there is no edge list, or a line has fewer than two ids; names the line.
        """
        files = _files(source)
        with importing(source) as connection:
            parts = [_select(path) for path in files]
            # By name, as files of a folder may differ in their number of columns.
            connection.execute(f"CREATE TABLE edges AS {' UNION ALL BY NAME '.join(parts)}")
            _require_edges(connection, source)
            select, notes = _columns(connection)
            rows = write_parquet(connection, select, target / "connections.parquet")
        return ImportReport({"connections": rows}, tuple(notes))


def _files(source: Path) -> list[Path]:
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise DataError(f"{source}: no such file or folder")
    # Sorted, as file systems list in any order, and the rows follow it.
    found = sorted(
        path
        for path in source.glob("*")
        if path.is_file() and path.name.lower().removesuffix(".gz").endswith(_SUFFIXES)
    )
    if not found:
        expected = ", ".join(_SUFFIXES)
        raise DataError(
            f"{source}: no edge list; expected a file, or a folder with {expected} or .gz"
        )
    return found


def _select(path: Path) -> str:
    dialect = _sniff(path)
    # a line is read as one value: no byte that text may hold separates it
    lines = (
        f"read_csv({literal(str(path))}, auto_detect = false, header = false, delim = '\\x01', "
        "quote = '', escape = '', columns = {'line': 'VARCHAR'})"
    )
    numbered = f"SELECT line, row_number() OVER () AS number FROM {lines}"
    kept = f"SELECT *, row_number() OVER () AS place FROM ({numbered}) " + (
        f"WHERE trim(line) <> '' AND NOT regexp_matches(line, {literal(_COMMENT)})"
    )
    values = _fields(dialect.separator)
    fields = ", ".join(
        f"nullif(trim(part[{place}], ' \"'), '') AS field_{place}"
        for place in range(1, max(2, dialect.width) + 1)
    )
    return (
        f"SELECT {literal(str(path))} AS file, number, line, {fields} FROM "
        f"(SELECT *, {values} AS part FROM ({kept}) WHERE place > {int(dialect.header)})"
    )


def _fields(separator: str) -> str:
    """SQL that splits a line; commas and semicolons between quotes do not separate."""
    if separator not in _QUOTING:
        return f"string_split_regex(trim(line), {literal(separator)})"
    field = rf"""\s*("(?:[^"]|"")*"|[^{separator}]*)\s*(?:{separator}|$)"""
    return f"regexp_extract_all(trim(line), {literal(field)}, 1)"


def _split(line: str, separator: str) -> list[str]:
    """The same for one line in Python."""
    if separator in _QUOTING:
        return next(csv.reader([line], delimiter=separator, skipinitialspace=True))
    return re.split(separator, line)


def _sniff(path: Path) -> _Dialect:
    try:
        with open_binary(str(path)) as stream:
            raw = [line.decode("utf-8") for line in islice(stream, _SNIFFED_LINES)]
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text: {error}") from None
    except (gzip.BadGzipFile, EOFError) as error:
        raise DataError(f"{path}: not readable as gzip: {error}") from None
    lines = [line.strip() for line in raw if line.strip() and not re.match(_COMMENT, line)]
    if not lines:
        raise DataError(f"{path}: no edge in it; expected two ids a line")
    last = lines[-1]  # the first lines may be a header
    separator = next((s for s in (",", ";", "\t") if s in last), None)
    separator = separator or r"\s+"
    rows = [_split(line, separator) for line in lines[:2]]
    # The first line of a matrix after its comments has its size, not an edge.
    header = raw[0].startswith(_MATRIX_MARKET) or _is_header(rows)
    return _Dialect(separator, header, min(4, len(_split(last, separator))))


def _is_header(rows: list[list[str]]) -> bool:
    first = [value.strip('" ') for value in rows[0]]
    if any(_NUMBER.match(value) for value in first):
        return False
    numeric_below = len(rows) > 1 and any(_NUMBER.match(value.strip('" ')) for value in rows[1])
    return numeric_below or bool(_HEADS.match(first[0]))


def _require_edges(connection: duckdb.DuckDBPyConnection, source: Path) -> None:
    broken = connection.execute(
        "SELECT file, number, line FROM edges WHERE field_1 IS NULL OR field_2 IS NULL "
        "ORDER BY file, number LIMIT 1"
    ).fetchone()
    if broken:
        raise DataError(
            f"{broken[0]}, line {broken[1]}: expected two ids, found {broken[2][:80]!r}; "
            f"mark comments with #"
        )
    if connection.execute("SELECT count(*) FROM edges").fetchone() == (0,):
        raise DataError(f"{source}: no edge in it; expected two ids a line")


def _columns(connection: duckdb.DuckDBPyConnection) -> tuple[str, list[str]]:
    """The final SELECT, and notes on the extra columns."""
    names = [row[0] for row in connection.execute("DESCRIBE edges").fetchall()]
    whole = connection.execute(
        # The cast alone would take 1.5 for a whole number.
        "SELECT bool_and(regexp_matches(field_1, $1) AND TRY_CAST(field_1 AS BIGINT) IS NOT NULL "
        "AND regexp_matches(field_2, $1) AND TRY_CAST(field_2 AS BIGINT) IS NOT NULL) FROM edges",
        [INTEGER],
    ).fetchone()
    kind = "BIGINT" if whole and whole[0] else "VARCHAR"
    columns = [f"CAST(field_1 AS {kind}) AS src", f"CAST(field_2 AS {kind}) AS dst"]
    notes: list[str] = []
    for field in [name for name in ("field_3", "field_4") if name in names]:
        _add_extra(connection, field, columns, notes)
    return f"SELECT {', '.join(columns)} FROM edges", notes


def _add_extra(
    connection: duckdb.DuckDBPyConnection, field: str, columns: list[str], notes: list[str]
) -> None:
    facts = connection.execute(
        f"SELECT count({field}), count(TRY_CAST({field} AS DOUBLE)), "
        f"min(TRY_CAST({field} AS DOUBLE)), max(TRY_CAST({field} AS DOUBLE)) FROM edges"
    ).fetchone()
    given, numbers, least, most = facts or (0, 0, None, None)
    place = f"column {field[-1]}"
    if given and _holds_dates(connection, field):
        columns.append(f"CAST({field} AS TIMESTAMPTZ) AS timestamp")
        notes.append(f"{place} is taken as the timestamp")
        return
    if not given or numbers < given:
        if given:
            notes.append(f"{place} is left out: it is neither a weight nor a time")
        return
    if least >= _EARLIEST_SECONDS:
        scale = next(
            (s for bound, s in ((1e11, 1e6), (1e14, 1e3), (1e17, 1.0)) if most < bound), 1e-3
        )
        microseconds = f"CAST(round(CAST({field} AS DOUBLE) * {scale}) AS BIGINT)"
        columns.append(f"make_timestamptz({microseconds}) AS timestamp")
        notes.append(f"{place} is taken as the timestamp")
    elif least < 0:  # the weight of a connection cannot be negative
        columns.append(f"CAST({field} AS DOUBLE) AS rating")
        notes.append(f"{place} goes below zero: kept as 'rating', not as the weight")
    else:
        columns.append(f"CAST({field} AS DOUBLE) AS weight")
        notes.append(f"{place} is taken as the weight")


def _holds_dates(connection: duckdb.DuckDBPyConnection, field: str) -> bool:
    found = connection.execute(
        f"SELECT bool_and(regexp_matches({field}, $1) AND TRY_CAST({field} AS TIMESTAMPTZ) "
        f"IS NOT NULL) FROM edges WHERE {field} IS NOT NULL",
        [_DATE],
    ).fetchone()
    return bool(found and found[0])
