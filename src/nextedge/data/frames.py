"""Frames of other libraries as Arrow tables, by the Arrow PyCapsule interface."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from nextedge.errors import DataError


def to_arrow_table(frame: Any, name: str) -> pa.Table:
    """Take a pandas, Polars, Arrow or DuckDB frame as an Arrow table.

    A pandas column of objects of several types (numbers and strings as ids, for example)
    becomes a column of strings.

    Raises:
        DataError: the frame does not offer Arrow data, or a column cannot be represented.

    >>> to_arrow_table(pa.table({"user_id": [1, 2]}), "users").num_rows
    2
    """
    if isinstance(frame, pa.Table):
        return frame
    if not hasattr(frame, "__arrow_c_stream__"):
        raise DataError(
            f"{name}: a {type(frame).__name__} is not a table; expected a pandas, Polars, Arrow or "
            f"DuckDB frame (anything with the Arrow PyCapsule interface)"
        )
    try:
        table = pa.table(frame)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        table = _from_mixed(frame, name, error)
    kept = [column for column in table.column_names if not column.startswith("__index_level_")]
    return table.select(kept).replace_schema_metadata(None)


def _from_mixed(frame: Any, name: str, error: Exception) -> pa.Table:
    """Second try for pandas: columns of mixed objects as strings, missing values kept."""
    if type(frame).__module__.split(".")[0] != "pandas":
        raise DataError(f"{name}: cannot be taken as an Arrow table: {error}") from None
    fixed = frame.copy(deep=False)
    for column in fixed.columns[[kind.kind == "O" for kind in fixed.dtypes]]:
        values = fixed[column]
        try:
            pa.array(values, from_pandas=True)
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            fixed[column] = values.map(str).where(values.notna(), None)
    return pa.Table.from_pandas(fixed, preserve_index=False)
