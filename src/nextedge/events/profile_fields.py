"""Attributes of users in ``profile_update`` events: all of their further fields."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from nextedge.errors import EventError

_MOST_FIELDS = 50
_MOST_VALUES = 100
_LONGEST = 256


def stated_attributes(fields: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Check and convert values by attribute; null or an empty list removes an attribute.

    >>> stated_attributes({"school": "MIT", "skills": ["go", "sql"], "city": None})
    {'school': ('MIT',), 'skills': ('go', 'sql'), 'city': ()}

    Raises:
        EventError: no attribute, too many, or a value that is no text, number or list of those.
    """
    if not 0 < len(fields) <= _MOST_FIELDS:
        raise EventError(
            f"an event of type 'profile_update' with {len(fields)} attributes: expected 1 to "
            f"{_MOST_FIELDS}, as school = 'MIT'"
        )
    for name, value in fields.items():
        _check(name, _listed(value))
    return stated_values(fields)


def _check(name: str, values: list[Any]) -> None:
    fits = all(
        isinstance(value, str | int | float) and len(str(value)) <= _LONGEST for value in values
    )
    if not fits or len(values) > _MOST_VALUES:
        raise EventError(
            f"{name}: expected text of at most {_LONGEST} characters, a number, or a list of at "
            f"most {_MOST_VALUES} of those"
        )


def stated_values(fields: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Values by attribute of valid fields."""
    return {name: tuple(map(str, _listed(value))) for name, value in fields.items()}


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [] if value is None else [value]


def refuse_identifiers(fields: Iterable[Mapping[str, Any] | None], columns: Iterable[str]) -> None:
    """Raise EventError for a field of an identifier column, which may be stored as a hash only."""
    hashed = set(columns)
    for further in fields if hashed else ():
        named = sorted(hashed & (further or {}).keys())
        if named:
            raise EventError(
                f"{named[0]}: onboarding.identifier_columns are not kept in events; send it to "
                f"PUT /v1/users/{{id}}/contacts, as own"
            )
