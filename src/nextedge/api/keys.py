"""API keys of one tenant: hashes in a file, with scopes; each key is printed once."""

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
"""Scope entry: the caller of a request; None without a valid key."""


@dataclass(frozen=True)
class ApiKey:
    """One key of the file: its hash, scopes and time of creation."""

    id: str
    sha256: str
    scopes: tuple[str, ...]
    created: str


class ApiKeys:
    """The keys of one tenant's state folder."""

    def __init__(self, state: Path, extra_key: str | None = None) -> None:
        """``extra_key``: one more key, of every scope, that is not in the file."""
        self.path = state / FILE
        self._extra = None if extra_key is None else digest_of(extra_key)
        self._read: tuple[Stamp, dict[str, ApiKey]] = (None, {})

    def create(self, scopes: tuple[str, ...]) -> tuple[ApiKey, str]:
        """Create a key; returns its entry in the file, and the key, which is not stored.

        Raises:
            InputError: a scope does not exist.
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
        with self._locked():
            self._write([*self.all(), key])
        return key, token

    def revoke(self, key_id: str) -> None:
        """Refuse a key from now on.

        Raises:
            InputError: no key has the id.
        """
        with self._locked():
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
        """Whether callers must send a key: from the first key on, even after all are revoked."""
        # the file outlives its last key: a revocation must not open the tenant to all
        return self._extra is not None or self.version() is not None

    def scopes(self, digest: str) -> tuple[str, ...]:
        """The scopes of the key with a digest; ``admin`` implies all, no key has none."""
        # in constant time: the duration must not reveal how much of a digest is right
        if self._extra is not None and hmac.compare_digest(digest, self._extra):
            return SCOPES
        key = self._current().get(digest)
        if key is None:
            return ()
        return SCOPES if "admin" in key.scopes else key.scopes

    def version(self) -> Stamp:
        """A value that changes with each creation and revocation."""
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return None
        # the inode too: two writes within one tick of the clock have the same time
        return status.st_mtime_ns, status.st_ino

    def _current(self) -> dict[str, ApiKey]:
        stamp, keys = self._read
        now = self.version()
        if now != stamp:  # read again, so that all workers refuse a revoked key at once
            keys = {key.sha256: key for key in self.all()}
            self._read = now, keys
        return keys

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Lock the file, so that two processes that change it lose no key."""
        import fcntl

        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # a file of its own: each write replaces the keys' file, and a lock on it
            lock = self.path.with_suffix(".lock").open("a")
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _write(self, keys: list[ApiKey]) -> None:
        with writing(self.path):
            partial = self.path.with_suffix(".partial")
            # other users of the machine must not read the hashes
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w") as file:
                json.dump([asdict(key) for key in keys], file, indent=1)
            # a server that reads meanwhile gets all old keys or all new ones
            os.replace(partial, self.path)


def digest_of(token: str) -> str:
    """The stored digest of a key."""
    # without salt or stretching: nobody guesses 32 random bytes
    return hashlib.sha256(token.encode()).hexdigest()


def token_of(authorization: bytes) -> str | None:
    """The token after ``Bearer`` in a header; None without one."""
    if authorization[: len(_SCHEME)].lower() != _SCHEME:
        return None
    return bytes(authorization[len(_SCHEME) :]).strip().decode("latin-1")


def header(scope: Any, name: bytes) -> bytes:
    """A header of a request; empty without one."""
    return next((bytes(value) for key, value in scope["headers"] if key == name), b"")
