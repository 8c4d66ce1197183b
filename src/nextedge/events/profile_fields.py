"""What users state of themselves: the further fields of a ``profile_update`` event."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from nextedge.errors import EventError

_MOST_FIELDS = 50
_MOST_VALUES = 100
_LONGEST = 256


def stated_attributes(fields: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Values by attribute; nothing (null, an empty list) takes back what was stated.

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
    for name, given in fields.items():
        _check(name, _listed(given))
    return stated_values(fields)


def _check(name: str, values: list[Any]) -> None:
    fits = all(
        isinstance(each, str | int | float) and len(str(each)) <= _LONGEST for each in values
    )
    if not fits or len(values) > _MOST_VALUES:
        raise EventError(
            f"{name}: expected text of at most {_LONGEST} characters, a number, or a list of at "
            f"most {_MOST_VALUES} of those"
        )


def stated_values(fields: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Values by attribute, of fields that were checked before."""
    return {name: tuple(str(each) for each in _listed(given)) for name, given in fields.items()}


def _listed(given: Any) -> list[Any]:
    return list(given) if isinstance(given, list | tuple) else [] if given is None else [given]


def refuse_identifiers(fields: Iterable[Mapping[str, Any] | None], columns: Iterable[str]) -> None:
    """Events are kept in clear, so none may carry what is only ever kept as a hash.

    Raises:
        EventError: a field has the name of an identifier column.
    """
    kept_as_hash = set(columns)
    for each in fields if kept_as_hash else ():
        named = sorted(kept_as_hash & (each or {}).keys())
        if named:
            raise EventError(
                f"{named[0]}: onboarding.identifier_columns are not kept in events; send it to "
                f"PUT /v1/users/{{id}}/contacts, as own"
            )
