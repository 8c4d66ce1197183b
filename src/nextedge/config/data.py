"""Settings of the tables, of the feature columns and of the time split."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field, field_validator

from nextedge import schema
from nextedge.config.settings import Settings
from nextedge.errors import nearest

SplitMethod = Literal["auto", "time", "last", "random"]


class DataConfig(Settings):
    """Where each table is: a path (relative to the config file), a glob, or a database URL."""

    users: str | None = None
    """Users."""
    connections: str | None = None
    """Connections between users."""
    items: str | None = None
    """Items."""
    interactions: str | None = None
    """Interactions of users with items."""
    impressions: str | None = None
    """Impressions of recommendations, and the actions on them."""
    blocks: str | None = None
    """Blocks between users."""
    directed: bool = False
    """A connection from a to b is none from b to a."""
    dangling: Literal["drop", "keep"] = "drop"
    """Rows that name a user or item missing from its table: drop them, or keep the id."""
    columns: dict[str, dict[str, str]] = Field(default_factory=dict)
    """Per table, our column name = your column name, where they differ."""

    @field_validator("columns")
    @classmethod
    def _known_tables(cls, value: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
        for table in value:
            if table not in schema.TABLES:
                raise ValueError(f"no table {table!r}; {nearest(table, schema.TABLES)}")
        return value

    def sources(self) -> Iterator[tuple[str, str]]:
        """Yield every configured table: (table name, path or URL)."""
        for table in schema.TABLES:
            location = getattr(self, table)
            if location is not None:
                yield table, location


class EntityFeatures(Settings):
    """Columns of users or items that are features, by kind; None = types decide."""

    categorical: tuple[str, ...] | None = None
    """Columns with one value of few, such as a city."""
    numeric: tuple[str, ...] | None = None
    """Columns of numbers."""
    text: tuple[str, ...] | None = None
    """Columns of free text."""
    tags: tuple[str, ...] | None = None
    """Columns with a list of values, such as skills."""
    ignore: tuple[str, ...] = ()
    """Columns that are no features."""


class FeaturesConfig(Settings):
    """Feature columns of users and items, and features that the ranker does without."""

    users: EntityFeatures = EntityFeatures()
    """Columns of users."""
    items: EntityFeatures = EntityFeatures()
    """Columns of items."""
    exclude: tuple[str, ...] = (
        "query_interactions_week",
        "recent_similarity",
        "recent_category_taste",
        "query_new_connections_day",
        "query_new_connections_week",
    )
    """Features that the ranker does not read; by default the real-time ones that did not help."""
    text_model: str | None = None
    """Folder of a sentence-transformers model that encodes text columns (relative to the config
    file); None = hashed TF-IDF."""


class SplitConfig(Settings):
    """The split of the history into graph, label windows and evaluation window.

    ``time`` splits at instants, ``last`` takes each query's latest edges out, ``random`` a seeded
    share; ``auto`` is ``time`` where edges have timestamps, else ``random``.
    """

    method: SplitMethod = "auto"
    """Way to split: ``auto``, ``time``, ``last`` or ``random``."""
    label_share: float = Field(0.1, gt=0, lt=0.5)
    """Share of the edges in each label window."""
    evaluation_share: float = Field(0.1, gt=0, lt=0.5)
    """Share of the edges in the evaluation window."""
    seed: int = 0
    """Seed of ``random``."""
