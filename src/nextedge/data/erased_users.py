"""The erased users of a tenant, as salted hashes: the list contains no ids."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from nextedge import schema
from nextedge.data.report import Finding
from nextedge.schema import ColumnKind
from nextedge.storage.files import writing

if TYPE_CHECKING:
    from ibis.expr.types import Table

    from nextedge.engines.base import Engine
    from nextedge.types import Identifier

FILE = "forgotten.json"


class ErasedUsers:
    """The erased users of one state folder; reads the file again when it changes."""

    def __init__(self, state: Path) -> None:
        self.path = state / FILE
        self._stamp: tuple[int, int] | None = None
        self._salt = b""
        self._hashes: frozenset[str] = frozenset()

    def __len__(self) -> int:
        self._reload()
        return len(self._hashes)

    def __contains__(self, identifier: Identifier | None) -> bool:
        self._reload()
        return bool(self.among([identifier]))

    def among(self, identifiers: Iterable[Identifier | None]) -> list[Identifier]:
        """The erased ids among some ids."""
        self._reload()
        candidates = identifiers if self._hashes else ()
        return [i for i in candidates if i is not None and self._hash(i) in self._hashes]

    def add(self, identifier: Identifier) -> None:
        """Add an id; adding it again changes nothing."""
        self._reload()
        # Earlier hashes are made with the salt: it stays.
        salt = self._salt or secrets.token_bytes(32)
        self._salt = salt
        hashes = sorted(self._hashes | {self._hash(identifier)})
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            partial = self.path.with_suffix(".partial")
            # For its owner alone: a reader can test ids against the file, as every build does.
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w") as file:
                json.dump({"salt": salt.hex(), "hashes": hashes}, file, indent=1)
                file.flush()
                # On disk before the rename: a crash must not leave an empty list.
                os.fsync(file.fileno())
            os.replace(partial, self.path)

    def fingerprint(self) -> str:
        """A value that changes when a user is added."""
        self._reload()
        return hashlib.sha256("".join(sorted(self._hashes)).encode()).hexdigest()[:16]

    def _hash(self, identifier: Identifier) -> str:
        # As text, so that 7 and "7" are one user.
        return hmac.new(self._salt, str(identifier).encode(), hashlib.sha256).hexdigest()

    def _reload(self) -> None:
        try:
            stat = self.path.stat()
        except FileNotFoundError:
            self._stamp, self._salt, self._hashes = None, b"", frozenset()
            return
        stamp = stat.st_mtime_ns, stat.st_ino  # a quick second write may have the same time
        if stamp != self._stamp:
            content = json.loads(self.path.read_text())
            self._salt, self._hashes = bytes.fromhex(content["salt"]), frozenset(content["hashes"])
            self._stamp = stamp


def without_erased_users(
    engine: Engine, name: str, table: Table, forgotten: ErasedUsers
) -> tuple[Table, tuple[Finding, ...]]:
    """A table without the rows of erased users, and the finding that counts them."""
    if not len(forgotten):
        return table, ()
    erased = None
    for column in schema.TABLES[name].columns:
        refers_to = name if column.name == schema.USER_ID else None
        of_users = schema.USERS in (column.refers_to, refers_to)
        is_id = column.kind is ColumnKind.IDENTIFIER and column.name in table.columns
        if not (is_id and of_users):
            continue
        ids = engine.to_arrow(table.select(id=table[column.name]).distinct())["id"].to_pylist()
        if hits := forgotten.among(ids):
            # A missing id makes no row one of an erased user.
            named = table[column.name].isin(hits).fill_null(False)
            erased = named if erased is None else erased | named
    if erased is None:
        return table, ()
    rows = engine.to_arrow(table.aggregate(rows=erased.sum()))["rows"][0].as_py()
    text = "the person is forgotten (nextedge forget)"
    return table.filter(~erased), (Finding("forgotten", text, int(rows or 0), "dropped"),)
