"""The types of events, each declared once.

Validation, the overlay, the JSON schema of ``nextedge events schema`` and the table in
``docs/events.md`` read these declarations.
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


def _identifier(value: Any) -> Any:
    if isinstance(value, str):
        if not value:
            raise ValueError("an id must not be empty")
        return _encodable(value)
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if not whole or isinstance(value, bool):  # bool is an int to Python
        raise ValueError(f"{value!r} is no id; expected an integer or a string")
    if not -_LARGEST <= value < _LARGEST:
        raise ValueError(f"{value} does not fit 64 bits; send it as a string")
    return value


def _encodable(text: str) -> str:
    try:
        text.encode()  # half of a surrogate pair can be read from JSON, but not stored
    except UnicodeEncodeError:
        raise ValueError("expected text that UTF-8 can hold, without half of a pair") from None
    return text


_INTEGER = {"type": "integer", "minimum": -_LARGEST, "maximum": _LARGEST - 1}
_JSON_ID = WithJsonSchema({"anyOf": [_INTEGER, {"type": "string", "minLength": 1}]})
Id = Annotated[int | str, BeforeValidator(_identifier), _JSON_ID]
Unicode = Annotated[str, AfterValidator(_encodable)]
EventId = Annotated[Unicode, Field(min_length=1, max_length=128)]
Name = Annotated[str, Field(max_length=256)]
Text = Annotated[str, Field(max_length=20_000)]
Weight = Annotated[FiniteFloat, Field(ge=0)]
Category = Name | int

# fields of the recommendation that led to an event
_ORIGIN: Mapping[str, Any] = {
    "recommendation_id": Name,
    "position": Annotated[int, Field(ge=0)],
    "propensity": Annotated[FiniteFloat, Field(gt=0, le=1)],
}
_WEIGHTED: Mapping[str, Any] = {**_ORIGIN, "weight": Weight}
_INTERACTION = {**_ORIGIN, "event": Literal[schema.ACTIONS], "weight": Weight}
_PURCHASE = {**_ORIGIN, "price": Weight, "quantity": Weight, "weight": Weight}
_OF_KIND: dict[ColumnKind, Any] = {
    ColumnKind.CATEGORY: Category,
    ColumnKind.NUMBER: FiniteFloat,
    ColumnKind.TEXT: Text,
    ColumnKind.TAGS: Annotated[list[Category], Field(max_length=100)],
    ColumnKind.FLAG: bool,
    ColumnKind.TIMESTAMP: datetime,
}
_ATTRIBUTES: Mapping[str, Any] = {
    column.name: _OF_KIND[column.kind]
    for column in schema.TABLES[schema.ITEMS].columns
    if column.kind is not ColumnKind.IDENTIFIER
}


@dataclass(frozen=True)
class EventSchema:
    """One type of event.

    Attributes:
        needs: required ids.
        says: description in a few words.
        fields: types of optional fields by name; other fields stay as they are.
        either: requires exactly one of ``candidate_id`` and ``item_id``.
        states: every further field is an attribute of the user.
        narrows: from now on a user, item or pair must be in no recommendation and no reason.
        widens: may bring a user back into lists of others.
        version: the newest schema version that this version of NextEdge reads.
    """

    name: str
    needs: tuple[str, ...]
    says: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    either: bool = False
    states: bool = False
    narrows: bool = False
    widens: bool = False
    version: int = 1

    @cached_property
    def model(self) -> type[BaseModel]:
        """A model that validates the optional fields and keeps all others."""
        typed: dict[str, Any] = {name: (kind | None, None) for name, kind in self.fields.items()}
        config = ConfigDict(extra="allow")
        model: type[BaseModel] = create_model(f"{self.name}_fields", __config__=config, **typed)
        return model


_USER, _PAIR = ("user_id",), ("user_id", "candidate_id")
_ITEM, _ENGAGED = ("item_id",), ("user_id", "item_id")

_DECLARED = (
    EventSchema("connect", _PAIR, "two people are connected from now on", _WEIGHTED),
    EventSchema(
        "disconnect",
        _PAIR,
        "their connection has ended; neither is recommended to the other",
        narrows=True,
    ),
    EventSchema(
        "request", _PAIR, "the user asks the candidate to connect; not yet answered", _ORIGIN
    ),
    EventSchema(
        "accept", _PAIR, "the user takes the candidate's request, or both are connected", _WEIGHTED
    ),
    EventSchema("decline", _PAIR, "the user refuses the candidate's request: as a dismissal"),
    EventSchema("withdraw", _PAIR, "the user takes back the request to the candidate"),
    EventSchema(
        "dismiss",
        _USER,
        "the user does not want to be shown this again, ever",
        _ORIGIN,
        either=True,
    ),
    EventSchema("block", _PAIR, "neither of the two is shown the other", narrows=True),
    EventSchema("unblock", _PAIR, "the user takes back their own block", widens=True),
    EventSchema("opt_out", _USER, "the user is shown to nobody", narrows=True),
    EventSchema("opt_in", _USER, "the user may be shown again", widens=True),
    EventSchema("leave", _USER, "the user is gone, for ever", narrows=True),
    EventSchema("hide_connection", _PAIR, "the connection takes part in nothing", narrows=True),
    EventSchema("unhide_connection", _PAIR, "the user takes back that it is hidden", widens=True),
    EventSchema(
        "profile_update",
        _USER,
        "what a user states: every further field is an attribute",
        states=True,
    ),
    EventSchema("interact", _ENGAGED, "the user did something with an item", _INTERACTION),
    EventSchema("impression", _USER, "the user was shown this", _ORIGIN, either=True),
    EventSchema("click", _USER, "the user opened this", _ORIGIN, either=True),
    EventSchema("purchase", _ENGAGED, "the user bought an item", _PURCHASE),
    EventSchema(
        "item_upsert",
        _ITEM,
        "an item is new, or has other attributes: columns of the table",
        _ATTRIBUTES,
        narrows=True,
    ),
    EventSchema("item_available", _ITEM, "the item may be shown again"),
    EventSchema("item_unavailable", _ITEM, "the item is shown to nobody", narrows=True),
)
EVENTS = {declared.name: declared for declared in _DECLARED}


class _Envelope(BaseModel):
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
        "oneOf": [_json_schema(declared) for declared in _DECLARED],
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
        rendered["oneOf"] = [
            {"required": [name], "properties": {name: {"not": {"type": "null"}}}}
            for name in ("candidate_id", "item_id")
        ]
    if of.states:
        rendered["minProperties"] = len(of.needs) + 2
    return rendered


def markdown() -> list[str]:
    """The table of events in ``docs/events.md``."""
    lines = [
        "| type | version | needs | optional fields | narrows what others see | |",
        "| --- | ---: | --- | --- | --- | --- |",
    ]
    for event in _DECLARED:
        needs = [f"`{name}`" for name in event.needs]
        needs += ["`candidate_id` or `item_id`"] if event.either else []
        fields = [f"`{name}`" for name in event.fields] + (["any"] if event.states else [])
        lines.append(
            f"| `{event.name}` | {event.version} | {', '.join(needs)} | {', '.join(fields)} "
            f"| {'yes' if event.narrows else ''} | {event.says} |"
        )
    return lines


def documented(page: str) -> str:
    """``docs/events.md`` with a new table."""
    table = "\n".join(markdown())
    return re.sub(
        r"(<!-- events -->\n).*?(<!-- /events -->)",
        lambda match: f"{match[1]}{table}\n{match[2]}",
        page,
        flags=re.DOTALL,
    )
