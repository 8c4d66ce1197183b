"""The types of events, each declared once.

Validation (``event.py``), the handlers of ``state/folded_state.py``, the JSON schema that ``nextedge
events schema`` prints and the table in ``docs/events.md`` all read these declarations.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    WithJsonSchema,
    create_model,
)

from nextedge import schema
from nextedge.schema import ColumnKind

IDS = (schema.USER_ID, schema.CANDIDATE_ID, schema.ITEM_ID)
_LARGEST = 2**63


def _identifier(given: Any) -> Any:
    """An id as it is stored: an int64, or text that is not empty."""
    if isinstance(given, bool) or not isinstance(given, int | float | str):
        raise ValueError(f"{given!r} is no id; expected an integer or a string")
    if given == "":
        raise ValueError("an id must not be empty")
    if isinstance(given, float) and not given.is_integer():
        raise ValueError(f"{given!r} is no id; expected an integer or a string")
    if not isinstance(given, str) and not -_LARGEST <= given < _LARGEST:
        raise ValueError(f"{given} does not fit 64 bits; send it as a string")
    return _encodable(given) if isinstance(given, str) else given


def _encodable(given: str) -> str:
    try:
        given.encode()
    except UnicodeEncodeError:
        raise ValueError("expected text that UTF-8 can hold, without half of a pair") from None
    return given


Id = Annotated[
    int | str,
    BeforeValidator(_identifier),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": -_LARGEST, "maximum": _LARGEST - 1},
                {"type": "string", "minLength": 1},
            ]
        }
    ),
]
Unicode = Annotated[str, AfterValidator(_encodable)]
EventId = Annotated[Unicode, Field(min_length=1, max_length=128)]
Name = Annotated[str, Field(max_length=256)]
Text = Annotated[str, Field(max_length=20_000)]
Weight = Annotated[FiniteFloat, Field(ge=0)]
Category = Name | int

# fields of the recommendation that led to an event
_WHENCE: Mapping[str, Any] = {
    "recommendation_id": Name,
    "position": Annotated[int, Field(ge=0)],
    "propensity": Annotated[FiniteFloat, Field(gt=0, le=1)],
}
_OF_KIND: dict[ColumnKind, Any] = {
    ColumnKind.CATEGORY: Category,
    ColumnKind.NUMBER: FiniteFloat,
    ColumnKind.TEXT: Text,
    ColumnKind.TAGS: Annotated[list[Category], Field(max_length=100)],
    ColumnKind.FLAG: bool,
    ColumnKind.TIMESTAMP: datetime,
}
_ITEM: Mapping[str, Any] = {
    column.name: _OF_KIND[column.kind]
    for column in schema.TABLES[schema.ITEMS].columns
    if column.kind is not ColumnKind.IDENTIFIER
}


@dataclass(frozen=True)
class EventSchema:
    """One type of event.

    Attributes:
        says: a description in a few words.
        needs: the ids that it must have.
        either: it needs exactly one of ``candidate_id`` and ``item_id``.
        fields: types of optional fields by name; other fields stay as they are.
        states: every further field is an attribute that a user states of themselves.
        narrows: a user, item or pair must not be recommended, or named in a reason, from now on.
        widens: it may bring a user back into lists of others.
        version: the newest schema version that this version of NextEdge reads.
    """

    name: str
    says: str
    needs: tuple[str, ...]
    either: bool = False
    fields: Mapping[str, Any] = field(default_factory=dict)
    states: bool = False
    narrows: bool = False
    widens: bool = False
    version: int = 1

    @cached_property
    def model(self) -> type[BaseModel]:
        """Validates the optional fields; keeps all others."""
        typed: dict[str, Any] = {name: (kind | None, None) for name, kind in self.fields.items()}
        config = ConfigDict(extra="allow")
        model: type[BaseModel] = create_model(f"{self.name}_fields", __config__=config, **typed)
        return model


_USER, _PAIR, _ENGAGED = ("user_id",), ("user_id", "candidate_id"), ("user_id", "item_id")

EVENTS: dict[str, EventSchema] = {
    each.name: each
    for each in (
        EventSchema(
            "connect",
            "two people are connected from now on",
            _PAIR,
            fields={**_WHENCE, "weight": Weight},
        ),
        EventSchema(
            "disconnect",
            "their connection has ended; neither is recommended to the other",
            _PAIR,
            narrows=True,
        ),
        EventSchema(
            "request",
            "the user asks the candidate to connect; not yet answered",
            _PAIR,
            fields=_WHENCE,
        ),
        EventSchema(
            "accept",
            "the user takes the candidate's request, or both are connected",
            _PAIR,
            fields={**_WHENCE, "weight": Weight},
        ),
        EventSchema("decline", "the user refuses the candidate's request: as a dismissal", _PAIR),
        EventSchema("withdraw", "the user takes back the request to the candidate", _PAIR),
        EventSchema(
            "dismiss",
            "the user does not want to be shown this again, ever",
            _USER,
            either=True,
            fields=_WHENCE,
        ),
        EventSchema("block", "neither of the two is shown the other", _PAIR, narrows=True),
        EventSchema("unblock", "the user takes back their own block", _PAIR, widens=True),
        EventSchema("opt_out", "the user is shown to nobody", _USER, narrows=True),
        EventSchema("opt_in", "the user may be shown again", _USER, widens=True),
        EventSchema("leave", "the user is gone, for ever", _USER, narrows=True),
        EventSchema("hide_connection", "the connection takes part in nothing", _PAIR, narrows=True),
        EventSchema(
            "unhide_connection", "the user takes back that it is hidden", _PAIR, widens=True
        ),
        EventSchema(
            "profile_update",
            "what a user states: every further field is an attribute",
            _USER,
            states=True,
        ),
        EventSchema(
            "interact",
            "the user did something with an item",
            _ENGAGED,
            fields={**_WHENCE, "event": Literal[schema.ACTIONS], "weight": Weight},
        ),
        EventSchema("impression", "the user was shown this", _USER, either=True, fields=_WHENCE),
        EventSchema("click", "the user opened this", _USER, either=True, fields=_WHENCE),
        EventSchema(
            "purchase",
            "the user bought an item",
            _ENGAGED,
            fields={**_WHENCE, "price": Weight, "quantity": Weight, "weight": Weight},
        ),
        EventSchema(
            "item_upsert",
            "an item is new, or has other attributes: columns of the table",
            ("item_id",),
            fields=_ITEM,
            narrows=True,
        ),
        EventSchema("item_available", "the item may be shown again", ("item_id",)),
        EventSchema("item_unavailable", "the item is shown to nobody", ("item_id",), narrows=True),
    )
}


class _Envelope(BaseModel):
    """Fields of every event, for the JSON schema."""

    model_config = ConfigDict(extra="allow")

    user_id: Id | None = None
    candidate_id: Id | None = None
    item_id: Id | None = None
    surface: str | None = None
    timestamp: datetime | None = None
    event_id: EventId | None = None
    schema_version: Annotated[int, Field(ge=1)] = 1


def json_schema() -> dict[str, Any]:
    """JSON schema (2020-12) of one event."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "NextEdge event",
        "type": "object",
        "required": ["type"],
        "properties": {"type": {"enum": list(EVENTS)}},
        "oneOf": [_json_schema(each) for each in EVENTS.values()],
    }


def _json_schema(of: EventSchema) -> dict[str, Any]:
    fields: dict[str, Any] = {name: (kind | None, None) for name, kind in of.fields.items()}
    fields |= dict.fromkeys(of.needs, (Id, ...))
    fields["type"] = (Literal[of.name], ...)
    fields["schema_version"] = (Annotated[int, Field(ge=1, le=of.version)], 1)
    model: type[BaseModel] = create_model(of.name, __base__=_Envelope, **fields)
    rendered: dict[str, Any] = model.model_json_schema()
    rendered["description"] = of.says
    if of.either:
        given = {
            name: {"required": [name], "properties": {name: {"not": {"type": "null"}}}}
            for name in ("candidate_id", "item_id")
        }
        rendered["oneOf"] = [*given.values()]
    if of.states:
        rendered["minProperties"] = len(of.needs) + 2
    return rendered


def markdown() -> list[str]:
    """The table of events in ``docs/events.md``."""
    lines = [
        "| type | version | needs | optional fields | narrows what others see | |",
        "| --- | ---: | --- | --- | --- | --- |",
    ]
    for each in EVENTS.values():
        needs = [f"`{name}`" for name in each.needs]
        needs += ["`candidate_id` or `item_id`"] if each.either else []
        fields = [f"`{name}`" for name in each.fields] + (["any"] if each.states else [])
        lines.append(
            f"| `{each.name}` | {each.version} | {', '.join(needs)} | {', '.join(fields)} "
            f"| {'yes' if each.narrows else ''} | {each.says} |"
        )
    return lines


def documented(page: str) -> str:
    """``docs/events.md`` with a new table."""
    table = "\n".join(markdown())
    return re.sub(
        r"(<!-- events -->\n).*?(<!-- /events -->)",
        lambda found: f"{found[1]}{table}\n{found[2]}",
        page,
        flags=re.DOTALL,
    )
