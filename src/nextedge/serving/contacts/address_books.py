"""Address books as keyed hashes, and the members that they match; see docs/onboarding.md.

The table ``own`` has the hashes of members' own identifiers, ``books`` those of their address books.
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
_MAX_OWN, _MAX_MATCHES = 20, 5000
_MAX_OWNERS = 5  # more members share only an office's number, which identifies none of them
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
    """The result of an upload; it is the same for members and others.

    Attributes:
        stored: distinct entries of the stored address book.
        refused: position and fault of each entry that is no e-mail address or phone number.
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
        """Whether each of the two has the other."""
        return self.in_book and self.has_user


class Contacts:
    """The address books of one tenant; safe for several threads and processes."""

    def __init__(self, state: Path, settings: OnboardingConfig, tenant: str) -> None:
        self.path = state / FILE
        self.settings = settings
        self._tenant = tenant
        # sqlite3 refuses a connection in another thread
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
        """Replace a user's identifiers, address book or discoverability; None leaves it unchanged.

        Args:
            own: identifiers that the user has proven to have.
            discoverable: whether to recommend the user to owners of books with the user in them.
            consent: the user agreed to the matching; without it nothing is stored.
            now: seconds since 1970 UTC, default the clock's.

        Raises:
            InputError: no consent, an invalid own identifier, too many entries, or no valid one.
            ContactBudgetError: the upload exceeds the user's budget of the day.
        """
        if (own is not None or contacts is not None) and not consent:
            raise InputError("consent: expected true; contacts are matched only of those who agree")
        user, now = str(user_id), time.time() if now is None else now
        # before the hashes, whose time a huge upload would take
        self._check_sizes(own, contacts)
        identifiers, faults = self._hashes(own)
        for position, fault in faults[:1]:
            raise InputError(f"own.{position}: {fault}")
        book, refused = self._hashes(contacts)
        if refused and not book:
            raise InputError(f"contacts: no entry can be read; {refused[0][0]}: {refused[0][1]}")
        with self._transaction() as connection:
            left = self._spend(connection, user, contacts, int(now // 86400))
            uploaded = None if contacts is None else int(now * 1e6)
            connection.execute(
                "INSERT INTO members VALUES (?1, ?2, ?3) ON CONFLICT (user_id) DO UPDATE SET "
                "discoverable = coalesce(?2, discoverable), uploaded = coalesce(?3, uploaded)",
                (user, discoverable, uploaded),
            )
            if own is not None:
                _delete_given(connection, user)
                rows = [(digest, user) for digest in identifiers]
                connection.executemany("INSERT INTO own VALUES (?, ?, 'given')", rows)
            if contacts is not None:
                connection.execute("DELETE FROM books WHERE user_id = ?", (user,))
                rows = [(digest, user) for digest in book]
                connection.executemany("INSERT INTO books (hash, user_id) VALUES (?, ?)", rows)
            self._expire(connection, now)
        return Upload(len(book), tuple(refused), left)

    @property
    def used(self) -> bool:
        """Whether any address book or identifier was ever stored."""
        return self.path.exists()

    def matches(self, user_id: Identifier) -> list[Match]:
        """Members whom address books match with a user, of those who allow it; by user id.

        The caller leaves out members who opted out or blocked the user.
        """
        if not self.path.exists():  # opening would create it, and ``used`` be true from then on
            return []
        values = {"user": str(user_id), "owners": _MAX_OWNERS, "most": _MAX_MATCHES}
        connection = self._connection()
        in_book = {row[0] for row in connection.execute(_FORWARD, values)}
        has_user = {row[0] for row in connection.execute(_BACKWARD, values)}
        matches = [
            Match(member, member in in_book, member in has_user)
            for member in sorted(in_book | has_user)
        ]
        # a member who is not discoverable is shown only to people in the member's own book
        return [match for match in matches if match.mutual or self._discoverable(match.user_id)]

    def replace_table(self, rows: Iterable[tuple[Identifier, bytes]]) -> int:
        """Replace the hashed identifiers of the users table; returns the number of rows."""
        with self._transaction() as connection:
            connection.execute("DELETE FROM own WHERE origin = 'table'")
            connection.executemany(
                "INSERT OR IGNORE INTO own VALUES (?, ?, 'table')",
                ((digest, str(user_id)) for user_id, digest in rows),
            )
            row = connection.execute("SELECT count(*) FROM own WHERE origin = 'table'").fetchone()
        return int(row[0])

    def hash_of(self, identifier: str) -> bytes:
        """The stored hash of an identifier; raises InputError for another text."""
        return hashed(identifier, self._pepper)

    def remove(self, user_id: Identifier) -> None:
        """Withdraw consent: delete the user's address book and the identifiers that the user gave."""
        if not self.path.exists():
            return
        with self._transaction() as connection:
            # the day's budget stays: else a withdrawal would renew it
            for table in ("books", "members"):
                connection.execute(f"DELETE FROM {table} WHERE user_id = ?", (str(user_id),))
            _delete_given(connection, str(user_id))
        self._overwrite()

    def forget(self, user_id: Identifier) -> int:
        """Erase a user's rows, and the user's identifiers in all address books; returns rows deleted.

        A users table that still has the user's identifiers restores them at the next build.
        """
        if not self.path.exists():
            return 0
        user = str(user_id)
        with self._transaction() as connection:
            before = connection.total_changes
            # an identifier that another member has too stays in the books
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
        connection = getattr(self._threads, "connection", None)
        if connection is not None:
            connection.close()
            self._threads.connection = None

    def _hashes(self, entries: Sequence[str] | None) -> tuple[set[bytes], list[tuple[int, str]]]:
        """The hashes of the valid entries, and the position and fault of each other one."""
        hashes, faults = set(), []
        for position, entry in enumerate(entries or ()):
            try:
                hashes.add(self.hash_of(entry))
            except InputError as error:
                faults.append((position, str(error)))
        return hashes, faults

    def _check_sizes(self, own: Sequence[str] | None, contacts: Sequence[str] | None) -> None:
        if own is not None and len(own) > _MAX_OWN:
            raise InputError(f"own: {len(own):,} identifiers; expected at most {_MAX_OWN}")
        most = self.settings.max_contacts
        if contacts is not None and len(contacts) > most:
            raise InputError(
                f"contacts: {len(contacts):,} entries; expected at most {most:,} an upload "
                f"(onboarding.max_contacts)"
            )

    def _spend(
        self, connection: sqlite3.Connection, user: str, contacts: Sequence[str] | None, day: int
    ) -> int:
        """Charge an upload to the user's budget of the day; returns the entries that are left."""
        connection.execute("DELETE FROM budgets WHERE day < ?", (day,))
        row = connection.execute(
            "SELECT uploads, entries FROM budgets WHERE user_id = ? AND day = ?", (user, day)
        ).fetchone()
        uploads, entries = row or (0, 0)
        if not contacts:
            return int(self.settings.contacts_per_day - entries)
        uploads, entries = uploads + 1, entries + len(contacts)
        for spent, most, setting in (
            (uploads, self.settings.uploads_per_day, "uploads_per_day"),
            (entries, self.settings.contacts_per_day, "contacts_per_day"),
        ):
            if spent > most:
                raise ContactBudgetError(
                    f"user {user!r}: a day allows {most:,} (onboarding.{setting}); try again "
                    f"after midnight UTC"
                )
        connection.execute(
            "INSERT OR REPLACE INTO budgets VALUES (?, ?, ?, ?)", (user, day, uploads, entries)
        )
        return int(self.settings.contacts_per_day - entries)

    def _expire(self, connection: sqlite3.Connection, now: float) -> None:
        """Delete the address books that were not uploaded again within ``keep_days``."""
        before = int(now * 1e6 - self.settings.keep_days * MICROSECONDS_PER_DAY)
        connection.execute(
            "DELETE FROM books WHERE user_id IN (SELECT user_id FROM members WHERE uploaded < ?)",
            (before,),
        )

    def _discoverable(self, user: str) -> bool:
        query = "SELECT discoverable FROM members WHERE user_id = ?"
        row = self._connection().execute(query, (user,)).fetchone()
        choice = None if row is None else row[0]
        return self.settings.discoverable_by_contacts if choice is None else bool(choice)

    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._threads, "connection", None)
        if connection is None:
            with writing(self.path):
                self.path.parent.mkdir(parents=True, exist_ok=True)
                # SQLite would create a file that other users of the machine can read
                os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
            connection = sqlite3.connect(self.path, timeout=30)
            use_write_ahead(connection)
            connection.execute("PRAGMA secure_delete = ON")  # erased rows are overwritten
            connection.executescript(_SCHEMA)
            self._threads.connection = connection
        return connection

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            connection = self._connection()
            with connection:
                # one writer at a time: two uploads could read the same budget and both spend it
                connection.execute("BEGIN IMMEDIATE")
                yield connection
        except sqlite3.OperationalError as error:
            raise StorageError(f"{self.path}: cannot store contacts: {error}") from None

    def _overwrite(self) -> None:
        # deleted rows would stay in the write-ahead log
        self._connection().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def _delete_given(connection: sqlite3.Connection, user: str) -> None:
    connection.execute("DELETE FROM own WHERE user_id = ? AND origin = 'given'", (user,))
