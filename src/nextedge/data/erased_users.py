"""Whom a tenant has forgotten: salted hashes, so that the list itself names nobody.

The hash keeps the list from being read, not from being tested: whoever has the file and an id
can tell whether it was forgotten, as every build has to.
"""

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
    """The forgotten people of one state folder; read again when the file changes."""

    def __init__(self, state: Path) -> None:
        self.path = state / FILE
        self._stamp: tuple[int, int] | None = None
        self._salt = b""
        self._hashes: frozenset[str] = frozenset()

    def __len__(self) -> int:
        self._look()
        return len(self._hashes)

    def __contains__(self, identifier: Identifier | None) -> bool:
        self._look()
        return (
            bool(self._hashes) and identifier is not None and self._hash(identifier) in self._hashes
        )

    def among(self, identifiers: Iterable[Identifier | None]) -> list[Identifier]:
        """Those of the ids that are forgotten."""
        self._look()
        given = identifiers if self._hashes else ()
        return [i for i in given if i is not None and self._hash(i) in self._hashes]

    def add(self, identifier: Identifier) -> None:
        """Forget an id from now on; the same id twice is once."""
        self._look()
        salt = self._salt or secrets.token_bytes(32)
        self._salt = salt
        hashes = sorted(self._hashes | {self._hash(identifier)})
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            partial = self.path.with_suffix(".partial")
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w") as file:
                json.dump({"salt": salt.hex(), "hashes": hashes}, file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, self.path)

    def fingerprint(self) -> str:
        """Differs whenever somebody was forgotten since."""
        self._look()
        return hashlib.sha256("".join(sorted(self._hashes)).encode()).hexdigest()[:16]

    def _hash(self, identifier: Identifier) -> str:
        return hmac.new(self._salt, str(identifier).encode(), hashlib.sha256).hexdigest()

    def _look(self) -> None:
        try:
            found = self.path.stat()
        except FileNotFoundError:
            self._stamp, self._salt, self._hashes = None, b"", frozenset()
            return
        stamp = found.st_mtime_ns, found.st_ino
        if stamp != self._stamp:
            kept = json.loads(self.path.read_text())
            self._salt, self._hashes = bytes.fromhex(kept["salt"]), frozenset(kept["hashes"])
            self._stamp = stamp


def without_erased_users(
    engine: Engine, name: str, table: Table, forgotten: ErasedUsers
) -> tuple[Table, tuple[Finding, ...]]:
    """A table without the rows of forgotten people, and how many those were."""
    if not len(forgotten):
        return table, ()
    gone = None
    for column in schema.TABLES[name].columns:
        about = schema.USERS in (column.refers_to, name if column.name == schema.USER_ID else None)
        if (
            column.kind is not ColumnKind.IDENTIFIER
            or column.name not in table.columns
            or not about
        ):
            continue
        ids = engine.to_arrow(table.select(id=table[column.name]).distinct())["id"].to_pylist()
        if found := forgotten.among(ids):
            named = table[column.name].isin(found).fill_null(False)
            gone = named if gone is None else gone | named
    if gone is None:
        return table, ()
    rows = engine.to_arrow(table.aggregate(rows=gone.sum()))["rows"][0].as_py()
    text = "the person is forgotten (nextedge forget)"
    return table.filter(~gone), (Finding("forgotten", text, int(rows or 0), "dropped"),)
