"""API keys: made once, shown once, kept as hashes, with scopes, revoked by id.

A key is 32 random bytes, so a plain SHA-256 of it cannot be reversed by guessing. The file is
read again when it changes: a revoked key is refused by every worker at once.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from nextedge.errors import InputError, nearest
from nextedge.storage.files import writing

FILE = "keys.json"
Scope = Literal["read", "write", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
Stamp = tuple[int, int] | None
_PREFIX = "ne_"
_SCHEME = b"bearer "
CALLER = "nextedge.caller"
"""Where the scope of a request carries who calls, None for nobody who is known."""


@dataclass(frozen=True)
class ApiKey:
    """One key as it is kept: its hash, what it may do, and when it was made."""

    id: str
    sha256: str
    scopes: tuple[str, ...]
    created: str


class ApiKeys:
    """The keys of one tenant's state folder."""

    def __init__(self, state: Path, given: str | None = None) -> None:
        """``given``: one more key, of every scope, that is kept nowhere."""
        self.path = state / FILE
        self._given = None if given is None else digest_of(given)
        self._read: tuple[Stamp, dict[str, ApiKey]] = (None, {})

    def create(self, scopes: tuple[str, ...]) -> tuple[ApiKey, str]:
        """Make a key; returns what is kept and the key itself, which cannot be shown again.

        Raises:
            InputError: there is no such scope.
        """
        for scope in scopes:
            if scope not in SCOPES:
                raise InputError(f"no scope {scope!r}; {nearest(scope, SCOPES)}")
        token = _PREFIX + secrets.token_urlsafe(32)
        key = ApiKey(
            secrets.token_hex(4),
            digest_of(token),
            tuple(scopes),
            datetime.now(UTC).isoformat(timespec="seconds"),
        )
        with self._alone():
            self._write([*self.all(), key])
        return key, token

    def revoke(self, key_id: str) -> None:
        """Refuse a key from now on.

        Raises:
            InputError: there is none of that id.
        """
        with self._alone():
            keys = self.all()
            if key_id not in {key.id for key in keys}:
                raise InputError(f"no key {key_id!r}; {nearest(key_id, [key.id for key in keys])}")
            self._write([key for key in keys if key.id != key_id])

    def all(self) -> list[ApiKey]:
        """Every key, oldest first."""
        if not self.path.exists():
            return []
        rows = json.loads(self.path.read_text())
        return [ApiKey(**{**row, "scopes": tuple(row["scopes"])}) for row in rows]

    @property
    def required(self) -> bool:
        """Whether callers must send a key: once one was made, also when all are revoked."""
        return self._given is not None or self.version() is not None

    def scopes(self, digest: str) -> tuple[str, ...]:
        """What the key of a digest may do, nothing where it is none; ``admin`` may do all."""
        if self._given is not None and hmac.compare_digest(digest, self._given):
            return SCOPES
        key = self._current().get(digest)
        if key is None:
            return ()
        return SCOPES if "admin" in key.scopes else key.scopes

    def version(self) -> Stamp:
        """Differs whenever keys were made or revoked."""
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return None
        return found.st_mtime_ns, found.st_ino

    def _current(self) -> dict[str, ApiKey]:
        stamp, keys = self._read
        now = self.version()
        if now != stamp:
            keys = {key.sha256: key for key in self.all()}
            self._read = now, keys
        return keys

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the lock of the file, so that of two who change it neither loses a key."""
        import fcntl

        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            lock = self.path.with_suffix(".lock").open("a")
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _write(self, keys: list[ApiKey]) -> None:
        with writing(self.path):
            partial = self.path.with_suffix(".partial")
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w") as file:
                json.dump([asdict(key) for key in keys], file, indent=1)
            os.replace(partial, self.path)


def digest_of(token: str) -> str:
    """What of a key is kept."""
    return hashlib.sha256(token.encode()).hexdigest()


def token_of(authorization: bytes) -> str | None:
    """What stands after ``Bearer`` in a header."""
    if authorization[: len(_SCHEME)].lower() != _SCHEME:
        return None
    return bytes(authorization[len(_SCHEME) :]).strip().decode("latin-1")


def header(scope: Any, name: bytes) -> bytes:
    """A header of a request, empty where it has none."""
    return next((bytes(value) for given, value in scope["headers"] if given == name), b"")
