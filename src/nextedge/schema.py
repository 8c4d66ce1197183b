"""Names and kinds of the columns of the input tables, defined once for the whole project.

Every reader, validator, feature and document takes the table and column names from here.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

USERS = "users"
CONNECTIONS = "connections"
ITEMS = "items"
INTERACTIONS = "interactions"
IMPRESSIONS = "impressions"
BLOCKS = "blocks"
HIDDEN_CONNECTIONS = "hidden_connections"
"""A table that a build derives: pairs, ids as text, that are not recommended to each other. A user
who hides all of their connections is a pair with themselves."""

USER_ID = "user_id"
ITEM_ID = "item_id"
CANDIDATE_ID = "candidate_id"
OTHER_ID = "other_id"
SRC = "src"
DST = "dst"
TIMESTAMP = "timestamp"
WEIGHT = "weight"
ARRIVED_AT = "arrived_at"
"""Time at which a row became known, if later than its timestamp."""
HIDDEN = "hidden"
"""A hidden connection: its only effect is that its ends are not recommended to each other."""
CONNECTIONS_HIDDEN = "connections_hidden"
"""A user who hides all connections."""
ACTIONS = ("click", "view", "accept", "like", "purchase", "connect", "dismiss", "block", "request")
"""Actions on impressions, and values of the ``event`` of interactions."""
FAVOURS = {
    "people": ("accept", "connect"),
    "items": ("click", "accept", "like", "purchase", "connect"),
}
"""Actions in favour of an impression, by kind of its candidate."""
POLICY_FLAGS = frozenset({"discoverable", "available", "unsafe", "promoted"})
"""Flags for the policy, which are no features: they say nothing about relevance."""


class ColumnKind(Enum):
    """Meaning of a column, regardless of its storage type."""

    IDENTIFIER = "identifier"  # int64 or string, unchanged
    CATEGORY = "category"
    NUMBER = "number"
    TEXT = "text"
    TAGS = "tags"  # a list of categories
    TIMESTAMP = "timestamp"
    FLAG = "flag"
    LATITUDE = "latitude"
    LONGITUDE = "longitude"


@dataclass(frozen=True, slots=True)
class Column:
    """One column that NextEdge knows by name; ``refers_to`` names the table of its ids."""

    name: str
    kind: ColumnKind
    required: bool = False
    refers_to: str | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """One input table: its known columns, and the key that must be unique (if any).

    Other columns stay, and may be features.
    """

    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...] = ()

    @property
    def required(self) -> tuple[str, ...]:
        """Names of the columns without which the table cannot be used."""
        return tuple(column.name for column in self.columns if column.required)

    def kind_of(self, name: str) -> ColumnKind | None:
        """Kind of a known column, or None for a column of the user's own."""
        return next((column.kind for column in self.columns if column.name == name), None)


_ID, _CATEGORY, _NUMBER = ColumnKind.IDENTIFIER, ColumnKind.CATEGORY, ColumnKind.NUMBER
_TEXT, _TAGS, _TIME, _FLAG = (
    ColumnKind.TEXT,
    ColumnKind.TAGS,
    ColumnKind.TIMESTAMP,
    ColumnKind.FLAG,
)

TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        Table(
            USERS,
            (
                Column(USER_ID, _ID, required=True),
                Column("name", _TEXT),
                Column("company", _CATEGORY),
                Column("school", _CATEGORY),
                Column("industry", _CATEGORY),
                Column("title", _TEXT),
                Column("city", _CATEGORY),
                Column("latitude", ColumnKind.LATITUDE),
                Column("longitude", ColumnKind.LONGITUDE),
                Column("skills", _TAGS),
                Column("bio", _TEXT),
                Column("created_at", _TIME),
                Column("discoverable", _FLAG),
                Column(CONNECTIONS_HIDDEN, _FLAG),
            ),
            key=(USER_ID,),
        ),
        Table(
            CONNECTIONS,
            (
                Column(SRC, _ID, required=True, refers_to=USERS),
                Column(DST, _ID, required=True, refers_to=USERS),
                Column(TIMESTAMP, _TIME),
                Column(WEIGHT, _NUMBER),
                Column(ARRIVED_AT, _TIME),
                Column(HIDDEN, _FLAG),
            ),
        ),
        Table(
            ITEMS,
            (
                Column(ITEM_ID, _ID, required=True),
                Column("category", _CATEGORY),
                Column("title", _TEXT),
                Column("description", _TEXT),
                Column("price", _NUMBER),
                Column("created_at", _TIME),
                Column("available", _FLAG),
                Column("regions", _TAGS),
                Column("unsafe", _FLAG),
            ),
            key=(ITEM_ID,),
        ),
        Table(
            INTERACTIONS,
            (
                Column(USER_ID, _ID, required=True, refers_to=USERS),
                Column(ITEM_ID, _ID, required=True, refers_to=ITEMS),
                Column("event", _CATEGORY),
                Column(WEIGHT, _NUMBER),
                Column(TIMESTAMP, _TIME),
                Column(ARRIVED_AT, _TIME),
            ),
        ),
        Table(
            IMPRESSIONS,
            (
                Column(USER_ID, _ID, required=True, refers_to=USERS),
                # one of the two is required: a row shows a person or an item
                Column(CANDIDATE_ID, _ID, refers_to=USERS),
                Column(ITEM_ID, _ID, refers_to=ITEMS),
                Column(TIMESTAMP, _TIME, required=True),
                Column("recommendation_id", _CATEGORY),
                Column("position", _NUMBER),
                Column("action", _CATEGORY),
                Column("action_timestamp", _TIME),
                Column("propensity", _NUMBER),
                Column(ARRIVED_AT, _TIME),
            ),
        ),
        Table(
            BLOCKS,
            (
                Column(USER_ID, _ID, required=True, refers_to=USERS),
                Column(OTHER_ID, _ID, required=True, refers_to=USERS),
            ),
        ),
    )
}


def is_identifier(name: str) -> bool:
    """Whether a column of this name holds ids, in whatever table."""
    return any(
        column.name == name and column.kind is ColumnKind.IDENTIFIER
        for table in TABLES.values()
        for column in table.columns
    )
