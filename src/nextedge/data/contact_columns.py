"""Hash e-mail addresses and phone numbers of the users table while reading them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nextedge import schema
from nextedge.config import Config
from nextedge.engines.base import Engine
from nextedge.errors import DataError, InputError, nearest
from nextedge.types import Identifier

if TYPE_CHECKING:
    from ibis.expr.types import Table


def identifier_columns(users: Table, config: Config) -> tuple[str, ...]:
    """``onboarding.identifier_columns``; raises DataError if the users lack one."""
    for name in config.onboarding.identifier_columns:
        if name not in users.columns:
            raise DataError(
                f"users: onboarding.identifier_columns names the column {name!r}, which is not "
                f"there; {nearest(name, users.columns)}"
            )
    return config.onboarding.identifier_columns


@dataclass
class UsersIdentifiers:
    """Streams hashes of the users' identifiers; ``refused`` counts unreadable identifiers.

    Args:
        hash_of: raises InputError for a text that is no identifier.
    """

    config: Config
    engine: Engine
    frames: Mapping[str, Any]
    hash_of: Callable[[str], bytes]
    refused: int = 0

    def rows(self) -> Iterator[tuple[Identifier, bytes]]:
        """(user id, hash) of every identifier of every user."""
        for row in self._rows():
            user = row[schema.USER_ID]
            if isinstance(user, float):  # a CSV with a missing id has its whole numbers as floats
                if not user.is_integer():
                    continue
                user = int(user)
            for name in self.config.onboarding.identifier_columns:
                values = row[name] if isinstance(row[name], list) else [row[name]]
                for value in values:
                    if value is None or not str(value).strip():
                        continue
                    try:
                        yield user, self.hash_of(str(value))
                    except InputError:
                        self.refused += 1

    def _rows(self) -> Iterator[dict[str, Any]]:
        from nextedge.data.clean import renamed

        name, data = schema.USERS, self.config.data
        if name in self.frames:
            table = self.engine.register(name, self.frames[name])
        elif data.users is not None:
            table = self.engine.read(name, data.users, self.config.base)
        else:
            raise DataError("onboarding.identifier_columns needs the table 'users' in [data]")
        table = renamed(table, name, data.users or "memory", self.config)
        columns = identifier_columns(table, self.config)
        if schema.USER_ID not in table.columns:
            return  # the check that follows reports it
        wanted = table.select(schema.USER_ID, *columns)
        for batch in self.engine.to_batches(wanted.filter(wanted[schema.USER_ID].notnull())):
            yield from batch.to_pylist()
