"""Read CSV and JSON lines as text, then infer types from the values of all rows.

A column gets a type only if all its values have it and keep their spelling. A value such as ``007``
or ``+5`` makes the whole column a string. So does a whole number that does not fit 64 bits or, in a
column with fractions, a float. Blanks around a number are ignored.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import zlib
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

import duckdb

from nextedge.engines.duckdb.session import DuckDBSession, literal, quoted
from nextedge.errors import DataError
from nextedge.storage.duckdb_errors import refuses_writing
from nextedge.storage.locations import Files

if TYPE_CHECKING:
    import ibis.expr.types as ir

DELIMITERS = ",\t;|"
INTEGER = r"^ *(0|-?[1-9][0-9]{0,18}) *$"
_DIGITS = r"^ *[+-]?[0-9]+ *$"
_REAL = (
    r"^ *[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)? *$"
    r"|^ *[+-]?(nan|NaN|inf|Inf|Infinity) *$"
)
_EXACT = 2**53  # beyond it, neighbouring whole numbers are one float
_BROKEN_GZIP = (gzip.BadGzipFile, EOFError, zlib.error)
_FLAG = r"^(true|false|True|False|TRUE|FALSE)$"
_TIME = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9:.]+ ?(Z|UTC|[+-][0-9:]+)?)?$"


def read_csv(session: DuckDBSession, files: Files) -> ir.Table:
    """Read CSV files with a header row, separated by commas, tabs, semicolons or bars.

    Raises:
        DataError: a row is broken or not UTF-8, or the header names a column twice; says the file
            and line.
    """
    parts = [_csv_select(session, path, remote=bool(files.remote)) for path in files.paths]
    try:
        table = session.define(" UNION ALL BY NAME ".join(parts), materialise=True)
    except duckdb.InvalidInputException as error:
        raise DataError(_csv_fault(files, error)) from None
    return _typed(session, table)


def _csv_select(session: DuckDBSession, path: str, *, remote: bool) -> str:
    """A SELECT of one file with all columns as text; the header decides the delimiter."""
    header = _header_line(path, remote=remote)
    bare = re.sub(r'"[^"]*"', "", header)
    delimiter = max(DELIMITERS, key=bare.count) if bare else ","
    names = _header_names(path, header, delimiter)
    columns = ", ".join(f"{literal(name)}: 'VARCHAR'" for name in names)
    return (
        f"SELECT * FROM read_csv({literal(path)}, auto_detect = false, header = true, "
        f"delim = {literal(delimiter)}, quote = '\"', escape = '\"', columns = {{{columns}}})"
    )


def _header_names(path: str, header: str, delimiter: str) -> list[str]:
    try:
        cells = next(csv.reader(io.StringIO(header), delimiter=delimiter), [])
    except csv.Error as error:
        raise DataError(f"{path}: line 1 cannot be read ({error}); end lines with LF") from None
    if not any(name.strip() for name in cells):
        raise DataError(f"{path}: empty; expected a header line 1 that names the columns")
    names = [name.strip() or f"column_{number}" for number, name in enumerate(cells, start=1)]
    first: dict[str, str] = {}
    for name in names:
        if (other := first.setdefault(name.casefold(), name)) != name:
            raise DataError(
                f"{path}: line 1 names columns {other!r} and {name!r}, which differ only in "
                f"case; rename one of them"
            )
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(
            f"{path}: line 1 names column {twice[0]!r} more than once; rename one of them"
        )
    return names


def _header_line(path: str, *, remote: bool) -> str:
    if remote:
        from nextedge.engines.duckdb.objects import file_system

        store = file_system(path.partition("://")[0])
        stream: Any = store.open(path, "rb", compression="infer")
    else:
        stream = open_binary(path)
    try:
        with stream:
            raw: bytes = stream.readline()
            while raw.count(b'"') % 2 and (more := stream.readline()):  # a quoted line break
                raw += more
        return raw.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: line 1 is not UTF-8 ({error.reason}); save it as UTF-8") from None
    except _BROKEN_GZIP as error:
        raise DataError(f"{path}: not readable as gzip: {error}; compress it again") from None


def open_binary(path: str) -> IO[bytes]:
    """Open a local file, decompressed if its name ends with .gz."""
    if path.endswith(".gz"):
        return cast("IO[bytes]", gzip.open(path, "rb"))
    return Path(path).open("rb")


def _csv_fault(files: Files, error: Exception) -> str:
    text = str(error)
    line = re.search(r"CSV Error on Line: (\d+)", text)
    named = re.search(r"file = (.+)", text)
    original = re.search(r"Original Line: (.*)", text)
    counts = re.search(r"Expected Number of Columns: (\d+) Found: (\d+)", text)
    if "unicode" in text.lower():
        fault = "not UTF-8; save the file as UTF-8"
    elif counts:
        fault = f"expected {counts[1]} values, found {counts[2]}; quote values that hold the comma"
    elif "unterminated quote" in text:
        fault = 'a quoted value has no end; close it with ", and write a quote inside as ""'
    elif "maximum line size" in text.lower():
        fault = "the row is longer than 2 MB; shorten it, or give the table as Parquet"
    else:
        fault = text.splitlines()[0]
    where = named[1].strip() if named else files.paths[0]
    row = f", line {line[1]}" if line else ""
    given = f" (given: {original[1][:80]!r})" if original else ""
    return f"{where}{row}: {fault}{given}"


def read_jsonl(session: DuckDBSession, files: Files) -> ir.Table:
    """Read JSON lines: one object a line, columns by name, null for absent fields.

    Raises:
        DataError: a line is not a JSON object or not UTF-8; the message names file and line.
    """
    listed = ", ".join(map(literal, files.paths))
    # all rows decide a type (sample_size -1): a sample would miss later values
    options = "format = 'newline_delimited', union_by_name = true, sample_size = -1"
    # objects with other keys in each line stay objects, not maps
    source = f"read_json([{listed}], {options}, map_inference_threshold = -1"
    try:
        described = session.connection.execute(f"DESCRIBE SELECT * FROM {source})").fetchall()
        kinds = {name: kind for name, kind, *_ in described}
        if list(kinds) == ["json"]:  # DuckDB's name for the column of lines that are no objects
            _find_broken_line(files)
        if kinds == {"json": "JSON"}:
            raise DataError(f"{files.paths[0]}: empty; expected one JSON object a line")
        columns = ", ".join(
            f"{literal(name)}: {literal(_json_type(kind))}" for name, kind in kinds.items()
        )
        select = f"SELECT * FROM {source}, columns = {{{columns}}})"
        table = session.define(select, materialise=True)
    except duckdb.Error as error:
        if refuses_writing(error):
            raise
        _find_broken_line(files)
        reason = str(error).splitlines()[0].split("Error: ", 1)[-1].rstrip(". ")
        raise DataError(f"{files.paths[0]}: {reason}; expected one JSON object a line") from None
    return _typed(session, table, {name for name, kind in kinds.items() if kind == "DOUBLE"})


def _json_type(kind: str) -> str:
    # text that DuckDB would parse stays text, and so do mixed numbers: a float may not fit them all
    spelled = ("DATE", "TIME", "TIMESTAMP", "TIMESTAMP WITH TIME ZONE", "UUID", "JSON", "DOUBLE")
    return "VARCHAR" if kind in spelled else kind


def _find_broken_line(files: Files) -> None:
    """Raise DataError for the first line that is no JSON object."""
    for path in files.paths:
        if files.remote:
            continue
        try:
            with open_binary(path) as stream:
                for number, raw in enumerate(stream, start=1):
                    _require_object(path, number, raw)
        except _BROKEN_GZIP as error:
            raise DataError(f"{path}: not readable as gzip: {error}; compress it again") from None


def _require_object(path: str, number: int, raw: bytes) -> None:
    try:
        text = raw.decode("utf-8")
        if not text.strip() or isinstance(json.loads(text), dict):
            return
        fault = 'expected a JSON object such as {"user_id": 1}'
    except UnicodeDecodeError:
        fault = "not UTF-8; save the file as UTF-8"
    except json.JSONDecodeError as error:
        fault = f"not valid JSON: {error.msg} at column {error.colno}; expected one object a line"
    raise DataError(f"{path}, line {number}: {fault} (given: {raw[:80].strip()!r})")


def _typed(session: DuckDBSession, table: ir.Table, only: set[str] | None = None) -> ir.Table:
    """Give each text column (or each of ``only``) the narrowest type that all its values have."""
    name = table.get_name()
    spelled = [column for column in table.columns if only is None or column in only]
    if not spelled:
        return table
    counts = ", ".join(_count_shapes(column) for column in spelled)
    row = session.connection.execute(f"SELECT {counts} FROM {name}").fetchone() or ()
    typed = {
        column: _select_as(column, *row[5 * index : 5 * index + 5])
        for index, column in enumerate(spelled)
    }
    chosen = [typed.get(column, quoted(column)) for column in table.columns]
    return session.define(f"SELECT {', '.join(chosen)} FROM {name}")


def _count_shapes(column: str) -> str:
    name = quoted(column)
    digits = f"regexp_matches({name}, {literal(_DIGITS)})"
    integer = (
        f"regexp_matches({name}, {literal(INTEGER)}) AND TRY_CAST({name} AS BIGINT) IS NOT NULL"
    )
    exact = f"abs(TRY_CAST({name} AS DOUBLE)) < {_EXACT}"
    real = f"regexp_matches({name}, {literal(_REAL)}) AND (NOT {digits} OR ({integer} AND {exact}))"
    parsed = f"TRY_CAST({name} AS TIMESTAMPTZ)"
    time = f"regexp_matches({name}, {literal(_TIME)}) AND {parsed} IS NOT NULL"
    return (
        f"count({name}), count_if({integer}), count_if({real}), "
        f"count_if(regexp_matches({name}, {literal(_FLAG)})), count_if({time})"
    )


def _select_as(column: str, present: int, integer: int, real: int, flag: int, time: int) -> str:
    name = quoted(column)
    for count, kind in (
        (integer, "BIGINT"),
        (real, "DOUBLE"),
        (flag, "BOOLEAN"),
        (time, "TIMESTAMPTZ"),
    ):
        if present and count == present:
            return f"CAST({name} AS {kind}) AS {name}"
    return name
