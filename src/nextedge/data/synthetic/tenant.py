"""All tables of a synthetic tenant."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from nextedge.data.synthetic.catalogue import ITEMS_SCHEMA, item_tables, make_catalogue
from nextedge.data.synthetic.config import SyntheticConfig
from nextedge.data.synthetic.connections import BLOCKS_SCHEMA, CONNECTIONS_SCHEMA, grow_connections
from nextedge.data.synthetic.impressions import IMPRESSIONS_SCHEMA
from nextedge.data.synthetic.interactions import INTERACTIONS_SCHEMA, make_interactions
from nextedge.data.synthetic.people import make_people
from nextedge.data.synthetic.profiles import USERS_SCHEMA, user_ids, user_tables
from nextedge.data.synthetic.writer import TableWriter
from nextedge.schema import BLOCKS, CONNECTIONS, IMPRESSIONS, INTERACTIONS, ITEMS, USERS

Progress = Callable[[str, int, int], None]
"""Called with the name of the table, the rows done and all rows."""


def generate_tenant(
    directory: str | Path, config: SyntheticConfig | None = None, progress: Progress | None = None
) -> dict[str, int]:
    """Write the six tables of an invented social network into a folder, as Parquet.

    The same config gives the same bytes, whatever ``chunk_events`` is and however many threads
    there are. Each file appears whole or not at all, and replaces one of the same name. Memory
    grows with users and connections (about 500 and 35 bytes each), not with the other tables.

    Args:
        directory: made if it is missing.
        config: size, seed and realism; the defaults make 20,000 users.
        progress: called with ``(table, done, total)``.

    Returns:
        The number of rows of each table.

    Raises:
        ConfigError: from ``SyntheticConfig``, for a value out of its range.
        StorageError: the folder cannot be written, or the disk is full.

    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> generate_tenant(folder, SyntheticConfig(users=200))["users"]
    200
    """
    folder, config = Path(directory), config or SyntheticConfig()
    tell = progress or (lambda table, done, total: None)
    people, catalogue = make_people(config), make_catalogue(config)
    rows: dict[str, int] = {}
    with TableWriter(folder, USERS, USERS_SCHEMA) as users:
        for table in user_tables(people, config):
            users.write(table)
            tell(USERS, users.rows, len(people))
    with TableWriter(folder, ITEMS, ITEMS_SCHEMA) as items:
        for table in item_tables(catalogue, config):
            items.write(table)
            tell(ITEMS, items.rows, len(catalogue))
    rows |= {USERS: users.rows, ITEMS: items.rows}
    ids = user_ids(len(people))
    with TableWriter(folder, IMPRESSIONS, IMPRESSIONS_SCHEMA) as impressions:
        with (
            TableWriter(folder, CONNECTIONS, CONNECTIONS_SCHEMA) as connections,
            TableWriter(folder, BLOCKS, BLOCKS_SCHEMA) as blocks,
        ):
            network = grow_connections(
                people=people,
                config=config,
                user_ids=ids,
                connections=connections,
                impressions=impressions,
                blocks=blocks,
                report=lambda done, total: tell(CONNECTIONS, done, total),
            )
        with TableWriter(folder, INTERACTIONS, INTERACTIONS_SCHEMA) as interactions:
            make_interactions(
                people=people,
                network=network,
                catalogue=catalogue,
                config=config,
                user_ids=ids,
                interactions=interactions,
                impressions=impressions,
                report=lambda done, total: tell(INTERACTIONS, done, total),
            )
    return rows | {
        CONNECTIONS: connections.rows,
        INTERACTIONS: interactions.rows,
        IMPRESSIONS: impressions.rows,
        BLOCKS: blocks.rows,
    }
