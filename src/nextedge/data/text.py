"""CSV and JSON lines: read as text, then typed by what every row holds.

A type is given to a column only if all its values have it, and only if no value would lose
its spelling: ``007`` or ``+5`` anywhere keeps the whole column a string.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

import duckdb

from nextedge.data.locations import Files
from nextedge.errors import DataError

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from nextedge.engines.local import LocalEngine

DELIMITERS = ",\t;|"
INTEGER = r"^(0|-?[1-9][0-9]{0,18})$"
_DIGITS = r"^[+-]?[0-9]+$"
_REAL = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$|^[+-]?(nan|NaN|inf|Inf|Infinity)$"
_FLAG = r"^(true|false|True|False|TRUE|FALSE)$"
_TIME = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9:.]+ ?(Z|UTC|[+-][0-9:]+)?)?$"


def read_csv(engine: LocalEngine, files: Files) -> ir.Table:
    """Read CSV files with a header row; commas, tabs, semicolons or bars between values.

    Raises:
        DataError: a row is broken or not UTF-8, or the header names a column twice; the
            message names file and line.
    """
    parts = [_csv_select(engine, path, remote=bool(files.remote)) for path in files.paths]
    try:
        table = engine.define(" UNION ALL BY NAME ".join(parts), materialise=True)
    except duckdb.InvalidInputException as error:
        raise DataError(_csv_fault(files, error)) from None
    return _typed(engine, table)


def _csv_select(engine: LocalEngine, path: str, *, remote: bool) -> str:
    """A SELECT over one file, every column as text, its dialect taken from the header."""
    header = _header_line(path, remote=remote)
    delimiter = max(DELIMITERS, key=header.count) if header else ","
    names = next(csv.reader(io.StringIO(header), delimiter=delimiter), [])
    if not names:
        raise DataError(f"{path}: empty; expected a header line that names the columns")
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise DataError(
            f"{path}: line 1 names column {sorted(twice)[0]!r} more than once; rename one of them"
        )
    columns = ", ".join(f"{_text(name)}: 'VARCHAR'" for name in names)
    return (
        f"SELECT * FROM read_csv({_text(path)}, auto_detect = false, header = true, "
        f"delim = {_text(delimiter)}, quote = '\"', escape = '\"', columns = {{{columns}}})"
    )


def _header_line(path: str, *, remote: bool) -> str:
    if remote:
        import fsspec

        stream: Any = fsspec.open(path, "rb", compression="infer").open()
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
    except (gzip.BadGzipFile, EOFError) as error:
        raise DataError(f"{path}: not readable as gzip: {error}; compress it again") from None


def open_binary(path: str) -> IO[bytes]:
    """Open a local file, unpacked if its name ends with .gz."""
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
    else:
        fault = text.splitlines()[0]
    where = named[1].strip() if named else files.paths[0]
    row = f", line {line[1]}" if line else ""
    given = f" (given: {original[1][:80]!r})" if original else ""
    return f"{where}{row}: {fault}{given}"


def read_jsonl(engine: LocalEngine, files: Files) -> ir.Table:
    """Read JSON lines: one object a line, columns by name, absent ones null.

    Raises:
        DataError: a line is not a JSON object or not UTF-8; the message names file and line.
    """
    listed = ", ".join(_text(path) for path in files.paths)
    options = "format = 'newline_delimited', union_by_name = true, sample_size = -1"
    source = f"read_json([{listed}], {options}"
    try:
        described = engine.connection.execute(f"DESCRIBE SELECT * FROM {source})").fetchall()
        names = [name for name, *_ in described]
        if names == ["json"]:  # what DuckDB calls a line that is no object
            _find_broken_line(files)
            raise DataError(f"{files.paths[0]}: empty; expected one JSON object a line")
        columns = ", ".join(
            f"{_text(name)}: {_text(_json_type(kind))}" for name, kind, *_ in described
        )
        select = f"SELECT * FROM {source}, columns = {{{columns}}})"
        return engine.define(select, materialise=True)
    except duckdb.Error as error:
        _find_broken_line(files)
        raise DataError(f"{files.paths[0]}: {str(error).splitlines()[0]}") from None


def _json_type(kind: str) -> str:
    """Keep what DuckDB would recognise in a string as the string that was given."""
    spelled = ("DATE", "TIME", "TIMESTAMP", "TIMESTAMP WITH TIME ZONE", "UUID", "JSON")
    return "VARCHAR" if kind in spelled else kind


def _find_broken_line(files: Files) -> None:
    """Raise with the first line that is not a JSON object; only after DuckDB refused the file."""
    for path in files.paths:
        if files.remote:
            continue
        with open_binary(path) as stream:
            for number, raw in enumerate(stream, start=1):
                _require_object(path, number, raw)


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


def _typed(engine: LocalEngine, table: ir.Table) -> ir.Table:
    """Give each text column the narrowest type that all of its values have."""
    name = table.get_name()
    counts = ", ".join(_count_shapes(column) for column in table.columns)
    row = engine.connection.execute(f"SELECT {counts} FROM {name}").fetchone() or ()
    chosen = [
        _select_as(column, *row[5 * index : 5 * index + 5])
        for index, column in enumerate(table.columns)
    ]
    return engine.define(f"SELECT {', '.join(chosen)} FROM {name}")


def _count_shapes(column: str) -> str:
    quoted = _name(column)
    digits = f"regexp_matches({quoted}, {_text(_DIGITS)})"
    integer = (
        f"regexp_matches({quoted}, {_text(INTEGER)}) AND TRY_CAST({quoted} AS BIGINT) IS NOT NULL"
    )
    real = f"regexp_matches({quoted}, {_text(_REAL)}) AND (NOT {digits} OR {integer})"
    parsed = f"TRY_CAST({quoted} AS TIMESTAMPTZ)"
    time = f"regexp_matches({quoted}, {_text(_TIME)}) AND {parsed} IS NOT NULL"
    return (
        f"count({quoted}), count_if({integer}), count_if({real}), "
        f"count_if(regexp_matches({quoted}, {_text(_FLAG)})), count_if({time})"
    )


def _select_as(column: str, present: int, integer: int, real: int, flag: int, time: int) -> str:
    quoted = _name(column)
    for count, kind in (
        (integer, "BIGINT"),
        (real, "DOUBLE"),
        (flag, "BOOLEAN"),
        (time, "TIMESTAMPTZ"),
    ):
        if present and count == present:
            return f"CAST({quoted} AS {kind}) AS {quoted}"
    return quoted


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _name(value: str) -> str:
    return '"' + value.replace('"', '""') + '"'
