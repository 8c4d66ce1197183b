"""Frames of other libraries to Arrow tables, by the Arrow PyCapsule interface."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from nextedge.errors import DataError


def to_arrow_table(frame: Any) -> pa.Table:
    """An Arrow table of a pandas, Polars, Arrow or DuckDB frame.

    Raises:
        DataError: the object does not speak the Arrow PyCapsule stream interface.

    >>> to_arrow_table(pa.table({"src": [1], "dst": [2]})).num_rows
    1
    """
    if isinstance(frame, pa.Table):
        return frame
    if hasattr(frame, "__arrow_c_stream__"):
        return pa.table(frame)
    if hasattr(frame, "to_arrow_table"):  # DuckDB relations
        table = frame.to_arrow_table()
        if isinstance(table, pa.Table):
            return table
    raise DataError(
        f"a table of type {type(frame).__name__}: expected a pandas, Polars, Arrow or DuckDB frame"
    )
