"""Who has whom in their address book, kept as keyed hashes; see docs/onboarding.md.

``own`` holds the hashes of members' own identifiers, ``books`` those of their address books. Both
are read by hash only: nothing here can say what stands behind one.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from nextedge.config import OnboardingConfig
from nextedge.errors import ContactBudgetError, InputError, StorageError
from nextedge.serving.contacts.hashing import hashed, load_pepper
from nextedge.storage.files import writing
from nextedge.storage.write_ahead import use_write_ahead
from nextedge.types import MICROSECONDS_PER_DAY, Identifier

if TYPE_CHECKING:
    from collections.abc import Iterator

FILE = "contacts.sqlite"
_MOST_OWN = 20
_MOST_MATCHES = 5000
_MOST_OWNERS = 5
"""An identifier of more members than this (an office's number) tells nobody apart."""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS own (
    hash BLOB NOT NULL, user_id TEXT NOT NULL, origin TEXT NOT NULL,
    PRIMARY KEY (hash, user_id, origin)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS own_by_user ON own (user_id);
CREATE TABLE IF NOT EXISTS books (
    user_id TEXT NOT NULL, hash BLOB NOT NULL, PRIMARY KEY (user_id, hash)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS books_by_hash ON books (hash);
CREATE TABLE IF NOT EXISTS members (
    user_id TEXT PRIMARY KEY, discoverable INTEGER, uploaded INTEGER
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS budgets (
    user_id TEXT NOT NULL, day INTEGER NOT NULL, uploads INTEGER NOT NULL, entries INTEGER NOT NULL,
    PRIMARY KEY (user_id, day)
) WITHOUT ROWID;
"""
_OWNERS = """
    (SELECT count(*) FROM (SELECT DISTINCT user_id FROM own x WHERE x.hash = o.hash LIMIT :owners + 1))
    <= :owners
"""
_FORWARD = f"""
SELECT DISTINCT o.user_id FROM books b JOIN own o ON o.hash = b.hash
WHERE b.user_id = :user AND o.user_id <> :user AND {_OWNERS}
ORDER BY o.user_id LIMIT :most
"""
_BACKWARD = f"""
SELECT DISTINCT b.user_id FROM own o JOIN books b ON b.hash = o.hash
WHERE o.user_id = :user AND b.user_id <> :user AND {_OWNERS}
ORDER BY b.user_id LIMIT :most
"""


@dataclass(frozen=True)
class Upload:
    """What became of an upload; says nothing of who is a member.

    Attributes:
        stored: distinct entries of the address book that are kept.
        refused: place and fault of each entry that is no e-mail address or phone number.
        left_today: entries that the user may still upload until midnight UTC.
    """

    stored: int
    refused: tuple[tuple[int, str], ...]
    left_today: int


@dataclass(frozen=True)
class Match:
    """A member who is in the user's address book, has the user in theirs, or both."""

    user_id: str
    in_book: bool
    has_user: bool

    @property
    def mutual(self) -> bool:
        """Whether each has the other."""
        return self.in_book and self.has_user


class Contacts:
    """The address books of one tenant; safe for several threads and processes."""

    def __init__(self, state: Path, settings: OnboardingConfig, tenant: str) -> None:
        self.path = state / FILE
        self.settings = settings
        self._tenant = tenant
        self._threads = threading.local()

    @cached_property
    def _pepper(self) -> bytes:
        return load_pepper(self.path.parent, self._tenant)

    def put(
        self,
        user_id: Identifier,
        *,
        own: Sequence[str] | None = None,
        contacts: Sequence[str] | None = None,
        discoverable: bool | None = None,
        consent: bool = False,
        now: float | None = None,
    ) -> Upload:
        """Replace a user's identifiers, address book or choice to be found; None leaves it.

        Args:
            own: identifiers that the user has proven to have.
            discoverable: whether those who have the user in their book may be shown the user.
            consent: that the user agreed to the matching; without it nothing is stored.
            now: seconds since 1970 UTC, default the clock's.

        Raises:
            InputError: no consent, an own identifier that cannot be read, too many entries, or
                none that can be read.
            ContactBudgetError: the user has uploaded as much as a day allows.
        """
        if (own is not None or contacts is not None) and not consent:
            raise InputError("consent: expected true; contacts are matched only of those who agree")
        now = time.time() if now is None else now
        mine = self._hashed_own(own)
        book, refused = self._hashed_book(contacts)
        with self._transaction() as connection:
            left = self._spend(connection, str(user_id), contacts, int(now // 86400))
            connection.execute(
                "INSERT INTO members VALUES (:user, :found, :now) ON CONFLICT (user_id) DO UPDATE SET "
                "discoverable = coalesce(:found, discoverable), uploaded = coalesce(:now, uploaded)",
                {
                    "user": str(user_id),
                    "found": discoverable,
                    "now": None if contacts is None else int(now * 1e6),
                },
            )
            if own is not None:
                connection.execute(
                    "DELETE FROM own WHERE user_id = ? AND origin = 'given'", (str(user_id),)
                )
                connection.executemany(
                    "INSERT INTO own VALUES (?, ?, 'given')", [(h, str(user_id)) for h in mine]
                )
            if contacts is not None:
                connection.execute("DELETE FROM books WHERE user_id = ?", (str(user_id),))
                connection.executemany(
                    "INSERT INTO books VALUES (?, ?)", [(str(user_id), h) for h in book]
                )
            self._expire(connection, now)
        return Upload(len(book), refused, left)

    @property
    def used(self) -> bool:
        """Whether anything was ever kept here."""
        return self.path.exists()

    def matches(self, user_id: Identifier) -> list[Match]:
        """Members whom contacts join to a user, of those who allow it; by user id.

        Whether a candidate may be shown at all (opted out, blocked) is decided by who asks.
        """
        if not self.path.exists():
            return []
        values = {"user": str(user_id), "owners": _MOST_OWNERS, "most": _MOST_MATCHES}
        connection = self._connection()
        in_book = {row[0] for row in connection.execute(_FORWARD, values)}
        has_user = {row[0] for row in connection.execute(_BACKWARD, values)}
        found = [
            Match(each, each in in_book, each in has_user) for each in sorted(in_book | has_user)
        ]
        return [match for match in found if match.mutual or self._discoverable(match.user_id)]

    def replace_table(self, rows: Iterable[tuple[Identifier, bytes]]) -> int:
        """Put the hashed identifiers of the users table in the place of its former ones."""
        with self._transaction() as connection:
            connection.execute("DELETE FROM own WHERE origin = 'table'")
            connection.executemany(
                "INSERT OR IGNORE INTO own VALUES (?, ?, 'table')",
                ((digest, str(user_id)) for user_id, digest in rows),
            )
            row = connection.execute("SELECT count(*) FROM own WHERE origin = 'table'").fetchone()
        return int(row[0])

    def hash_of(self, identifier: str) -> bytes:
        """What stands for an identifier here; raises InputError where it is none."""
        return hashed(identifier, self._pepper)

    def remove(self, user_id: Identifier) -> None:
        """Withdraw: the user's address book and given identifiers go; what was spent today stays."""
        if not self.path.exists():
            return
        with self._transaction() as connection:
            for table in ("books", "members"):
                connection.execute(f"DELETE FROM {table} WHERE user_id = ?", (str(user_id),))
            connection.execute(
                "DELETE FROM own WHERE user_id = ? AND origin = 'given'", (str(user_id),)
            )
        self._overwrite()

    def forget(self, user_id: Identifier) -> int:
        """Purge a user: all of theirs, and what others' books hold of nobody else; rows deleted.

        A users table that still has the user's identifiers brings them back with the next build.
        """
        if not self.path.exists():
            return 0
        user = str(user_id)
        with self._transaction() as connection:
            before = connection.total_changes
            connection.execute(
                "DELETE FROM books WHERE hash IN (SELECT hash FROM own WHERE user_id = ?) AND "
                "NOT EXISTS (SELECT 1 FROM own o WHERE o.hash = books.hash AND o.user_id <> ?)",
                (user, user),
            )
            for table in ("own", "books", "members", "budgets"):
                connection.execute(f"DELETE FROM {table} WHERE user_id = ?", (user,))
            deleted = connection.total_changes - before
        self._overwrite()
        return deleted

    def close(self) -> None:
        """Close this thread's connection."""
        kept = getattr(self._threads, "connection", None)
        if kept is not None:
            kept.close()
            self._threads.connection = None

    def _hashed_own(self, own: Sequence[str] | None) -> set[bytes]:
        if own is not None and len(own) > _MOST_OWN:
            raise InputError(f"own: {len(own):,} identifiers; expected at most {_MOST_OWN}")
        mine = set()
        for place, each in enumerate(own or ()):
            try:
                mine.add(self.hash_of(each))
            except InputError as error:
                raise InputError(f"own.{place}: {error}") from None
        return mine

    def _hashed_book(
        self, contacts: Sequence[str] | None
    ) -> tuple[set[bytes], tuple[tuple[int, str], ...]]:
        most = self.settings.max_contacts
        if contacts is not None and len(contacts) > most:
            raise InputError(
                f"contacts: {len(contacts):,} entries; expected at most {most:,} an upload "
                f"(onboarding.max_contacts)"
            )
        book, refused = set(), []
        for place, each in enumerate(contacts or ()):
            try:
                book.add(self.hash_of(each))
            except InputError as error:
                refused.append((place, str(error)))
        if refused and not book:
            raise InputError(f"contacts: no entry can be read; {refused[0][0]}: {refused[0][1]}")
        return book, tuple(refused)

    def _spend(
        self, connection: sqlite3.Connection, user: str, contacts: Sequence[str] | None, day: int
    ) -> int:
        """Take an upload from the user's budget of the day; returns the entries that are left."""
        connection.execute("DELETE FROM budgets WHERE day < ?", (day,))
        row = connection.execute(
            "SELECT uploads, entries FROM budgets WHERE user_id = ? AND day = ?", (user, day)
        ).fetchone()
        uploads, entries = row or (0, 0)
        if not contacts:
            return int(self.settings.contacts_per_day - entries)
        uploads, entries = uploads + 1, entries + len(contacts)
        for given, most, setting in (
            (uploads, self.settings.uploads_per_day, "uploads_per_day"),
            (entries, self.settings.contacts_per_day, "contacts_per_day"),
        ):
            if given > most:
                raise ContactBudgetError(
                    f"user {user!r}: a day allows {most:,} (onboarding.{setting}); try again "
                    f"after midnight UTC"
                )
        connection.execute(
            "INSERT OR REPLACE INTO budgets VALUES (?, ?, ?, ?)", (user, day, uploads, entries)
        )
        return int(self.settings.contacts_per_day - entries)

    def _expire(self, connection: sqlite3.Connection, now: float) -> None:
        """Let go of books that nobody has renewed in ``keep_days``."""
        before = int(now * 1e6 - self.settings.keep_days * MICROSECONDS_PER_DAY)
        connection.execute(
            "DELETE FROM books WHERE user_id IN (SELECT user_id FROM members WHERE uploaded < ?)",
            (before,),
        )

    def _discoverable(self, user: str) -> bool:
        row = (
            self._connection()
            .execute("SELECT discoverable FROM members WHERE user_id = ?", (user,))
            .fetchone()
        )
        chosen = None if row is None else row[0]
        return self.settings.discoverable_by_contacts if chosen is None else bool(chosen)

    def _connection(self) -> sqlite3.Connection:
        kept: sqlite3.Connection | None = getattr(self._threads, "connection", None)
        if kept is None:
            with writing(self.path):
                self.path.parent.mkdir(parents=True, exist_ok=True)
                os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
            kept = sqlite3.connect(self.path, timeout=30)
            use_write_ahead(kept)
            kept.execute("PRAGMA secure_delete = ON")
            kept.executescript(_SCHEMA)
            self._threads.connection = kept
        return kept

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing, one writer at a time: budgets are read before they are spent."""
        try:
            connection = self._connection()
            with connection:
                connection.execute("BEGIN IMMEDIATE")
                yield connection
        except sqlite3.OperationalError as error:
            raise StorageError(f"{self.path}: contacts were not stored: {error}") from None

    def _overwrite(self) -> None:
        """Leave nothing of what was deleted in the write-ahead log."""
        self._connection().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
