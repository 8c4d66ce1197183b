"""Convert frames of other libraries to Arrow tables, by the Arrow PyCapsule interface."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from nextedge.errors import DataError


def to_arrow_table(frame: Any, name: str) -> pa.Table:
    """A pandas, Polars, Arrow or DuckDB frame as an Arrow table.

    A pandas column of objects of several types (numbers and strings as ids, for example)
    becomes a column of strings.

    Raises:
        DataError: the frame has no Arrow data, two columns have one name, or a column has no Arrow
            type.

    >>> to_arrow_table(pa.table({"user_id": [1, 2]}), "users").num_rows
    2
    """
    if not hasattr(frame, "__arrow_c_stream__") or _is_pandas(frame, "Series"):
        raise DataError(
            f"{name}: a {type(frame).__name__} is not a table; expected a pandas, Polars, Arrow or "
            f"DuckDB frame (anything with the Arrow PyCapsule interface)"
        )
    if _is_pandas(frame, "DataFrame"):
        frame = frame.set_axis([str(column) for column in frame.columns], axis="columns")
        _require_names(list(frame.columns), name)
    try:
        table = frame if isinstance(frame, pa.Table) else pa.table(frame)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        table = _from_mixed(frame, name, error)
    columns = [column for column in table.column_names if not column.startswith("__index_level_")]
    _require_names(columns, name)
    return _portable(table.select(columns).replace_schema_metadata(None), name)


def _is_pandas(frame: Any, kind: str) -> bool:
    cls = type(frame)
    return cls.__module__.split(".")[0] == "pandas" and cls.__name__ == kind


def _require_names(columns: list[str], name: str) -> None:
    """Check that names differ in more than case, which SQL ignores."""
    if not columns:
        raise DataError(f"{name}: the frame has no column")
    first: dict[str, str] = {}
    for column in columns:
        if column.casefold() in first:
            raise DataError(
                f"{name}: two columns are named {first[column.casefold()]!r} and {column!r}; "
                f"rename one of them"
            )
        first[column.casefold()] = column


def _portable(table: pa.Table, name: str) -> pa.Table:
    """The same rows in types that every engine supports."""
    for position, column in enumerate(table.schema):
        wanted = column.type
        if pa.types.is_float16(wanted):
            wanted = pa.float32()
        elif pa.types.is_timestamp(wanted) and wanted.unit != "us":
            wanted = pa.timestamp("us", wanted.tz)
        if wanted == column.type:
            continue
        try:
            # nanoseconds are cut to microseconds; no other cast may change a value
            lossless = pa.types.is_float16(column.type) or column.type.unit != "ns"
            values = table.column(position).cast(wanted, safe=lossless)
        except pa.ArrowInvalid as error:
            raise DataError(f"{name}: column {column.name!r} cannot be used: {error}") from None
        table = table.set_column(position, column.name, values)
    return table


def _from_mixed(frame: Any, name: str, error: Exception) -> pa.Table:
    """A pandas frame, with columns of mixed objects as strings; missing values stay missing."""
    if not _is_pandas(frame, "DataFrame"):
        raise DataError(f"{name}: cannot be taken as an Arrow table: {error}") from None
    copy = frame.copy(deep=False)
    for column in copy.columns[[kind.kind == "O" for kind in copy.dtypes]]:
        values = copy[column]
        try:
            pa.array(values, from_pandas=True)
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            copy[column] = values.map(str).where(values.notna(), None)
    return pa.Table.from_pandas(copy, preserve_index=False)
