"""Parse timestamps of any form to UTC microseconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import ibis

# (bound of the largest value, microseconds in one unit, name of the unit)
_UNITS = (
    (10**11, 1_000_000, "seconds"),
    (10**14, 1_000, "milliseconds"),
    (10**17, 1, "microseconds"),
)
# microseconds of the first and the last instant of the years 1 to 9999
_FIRST, _LAST = -62_135_596_800_000_000, 253_402_300_799_999_999
_ENDS = ("0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z")
_NANOSECONDS = 9.2e18  # largest number of nanoseconds that 64 bits hold, with room for rounding
_ISO = r"^\s*[0-9]{4}-[0-9]{2}-[0-9]{2}"
_ZONE = r"(Z|UTC|[+-][0-9]{2}(:?[0-9]{2})?|[A-Z][A-Za-z]+/[A-Za-z_]+)\s*$"
_WHOLE = r"^\s*[+-]?[0-9]{1,19}\s*$"
ORDER_ONLY_BEFORE = 365 * 86_400_000_000  # times in 1970 are positions in an order, no dates


@dataclass(frozen=True)
class ParsedTime:
    """A column as UTC timestamps, null if unreadable, and the assumption on units or zones."""

    value: ibis.Column
    note: str | None = None


def usable_time_type(kind: Any) -> bool:
    """Whether a column of an Ibis type can have times."""
    return bool(
        kind.is_timestamp()
        or kind.is_date()
        or kind.is_string()
        or kind.is_integer()
        or kind.is_floating()
        or kind.is_decimal()
        or kind.is_null()
    )


def time_facts(column: ibis.Column) -> dict[str, ibis.Value]:
    """Aggregates for ``parse_time``, which the caller computes in one pass with others."""
    import ibis

    kind = column.type()
    if kind.is_string():
        whole = column.re_search(_WHOLE)
        return {
            "whole": whole.sum(),
            "iso": column.re_search(_ISO).sum(),
            "zoned": (column.re_search(_ISO) & column.re_search(_ZONE)).sum(),
            "largest": ibis.ifelse(whole, column, None).try_cast("float64").abs().max(),
        }
    if kind.is_numeric():
        finite = column.cast("float64")
        return {"largest": ibis.ifelse(finite.isinf() | finite.isnan(), None, finite).abs().max()}
    return {}


def parse_time(column: ibis.Column, facts: dict[str, Any]) -> ParsedTime:
    """Read a column as times in UTC.

    Zoned times are converted; naive ones and dates are taken as UTC; text is read as ISO 8601.
    Times outside the years 1 to 9999 cannot be read.
    Numbers, and text that is a whole number, count seconds, milliseconds, microseconds
    or nanoseconds since 1970 by the magnitude of the largest (below 1e11, 1e14, 1e17, above),
    so that small numbers keep their order as seconds.
    """
    kind = column.type()
    utc = "timestamp('UTC', 6)"
    if kind.is_timestamp():
        note = None if kind.timezone else "times without a zone are taken as UTC"
        value = column if kind.timezone else column.try_cast("timestamp")
        return ParsedTime(_in_reach(value.cast(utc)), note)
    if kind.is_date():
        value = _in_reach(column.try_cast("timestamp").cast(utc))
        return ParsedTime(value, "dates are taken as midnight in UTC")
    if kind.is_null():
        return ParsedTime(column.cast(utc))
    if kind.is_numeric():
        return _from_numbers(column, facts)
    return _from_text(column, facts)


def _in_reach(time: ibis.Column) -> ibis.Column:
    import ibis

    # Python has no time outside these years.
    first, last = (ibis.literal(end).cast("timestamp('UTC', 6)") for end in _ENDS)
    return ibis.ifelse(time.between(first, last), time, None)


def _from_text(column: ibis.Column, facts: dict[str, Any]) -> ParsedTime:
    import ibis

    text = ibis.ifelse(column.re_search(_ISO), column.strip(), None)
    iso = _in_reach(text.try_cast("timestamp('UTC', 6)"))
    naive = (facts.get("iso") or 0) > (facts.get("zoned") or 0)
    note = "times without a zone are taken as UTC" if naive else None
    if not facts.get("whole"):
        return ParsedTime(iso, note)
    numbers = _from_numbers(column.try_cast("int64"), facts)
    return ParsedTime(ibis.coalesce(iso, numbers.value), note or numbers.note)


def _from_numbers(column: ibis.Column, facts: dict[str, Any]) -> ParsedTime:
    import ibis

    largest = facts.get("largest") or 0
    scale, unit = next(((s, u) for bound, s, u in _UNITS if largest < bound), (0, "nanoseconds"))
    first, last = (_FIRST / scale, _LAST / scale) if scale else (-_NANOSECONDS, _NANOSECONDS)
    readable = column.cast("float64").between(first, last)  # neither NaN nor infinite
    number = ibis.ifelse(readable, column, None)
    order_only = largest * (scale or 0.001) < ORDER_ONLY_BEFORE
    if order_only:  # an order that begins at 0 is moved up: 0 stands for no time
        number = number + 1
    if column.type().is_floating() or column.type().is_decimal():
        number = number.cast("float64")
        whole = (number * scale if scale else number / 1000).round().cast("int64")
    else:
        number = number.cast("int64")
        whole = number * scale if scale else _nanoseconds(number)
    milliseconds = (whole // 1000).cast("int64")
    rest = whole - milliseconds * 1000
    # Ibis counts milliseconds at the finest, so the rest is added as an interval
    value = (milliseconds.as_timestamp("ms") + rest.as_interval("us")).cast("timestamp('UTC', 6)")
    if order_only:
        return ParsedTime(value, "numbers this small are no dates: they give the order only")
    return ParsedTime(value, f"numbers are taken as {unit} since 1970")


def _nanoseconds(number: Any) -> Any:
    """Microseconds of nanoseconds, exactly: engines divide whole numbers as 53-bit floats."""
    seconds = number // 1_000_000_000  # may be one off after rounding; the rest makes up for it
    return seconds * 1_000_000 + (number - seconds * 1_000_000_000) // 1000
