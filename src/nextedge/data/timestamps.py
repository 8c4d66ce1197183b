"""Timestamps of any form to UTC microseconds."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ibis

_UNITS = ((1e11, 1_000_000), (1e14, 1_000), (1e17, 1))  # largest value → microseconds each
ORDER_ONLY_BEFORE = 365 * 86_400_000_000
"""Times in 1970 are no wall-clock times but places in an order."""


def to_utc(column: ibis.Column) -> ibis.Column:
    """An expression of type timestamp(UTC), null where a value cannot be read.

    Zoned times are converted, naive ones taken as UTC, text read as ISO 8601; whole numbers
    count seconds, milliseconds, microseconds or nanoseconds since 1970, by the magnitude of
    the largest, so that small numbers keep their order as seconds.
    """
    kind = column.type()
    if kind.is_timestamp():
        return column.cast("timestamp('UTC')")
    if kind.is_date():
        return column.cast("timestamp").cast("timestamp('UTC')")
    if kind.is_string():
        return column.try_cast("timestamp('UTC')")
    largest = column.abs().max().to_pyarrow().as_py() or 0
    scale = next((unit for bound, unit in _UNITS if largest < bound), None)
    micros = column.cast("float64") / 1000 if scale is None else column.cast("float64") * scale
    whole = micros.round().cast("int64")
    rest = (whole % 1000).as_interval("us")  # Ibis counts milliseconds at the finest
    return ((whole // 1000).as_timestamp("ms") + rest).cast("timestamp('UTC')")
