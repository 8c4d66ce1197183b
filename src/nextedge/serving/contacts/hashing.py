"""E-mail addresses and phone numbers in one normal form, and as keyed hashes of it.

An identifier in clear lives for the length of a call: what is kept is
``HMAC-SHA256(pepper, kind + ":" + normal form)``, the first 128 bits. Phone numbers can all be
tried in hours, so a hash without the tenant's pepper would hide nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import re
import secrets
import unicodedata
from pathlib import Path

from nextedge.errors import ConfigError, InputError
from nextedge.storage.files import writing

FILE = "pepper"
VARIABLE = "NEXTEDGE_PEPPER"
HASH_BYTES = 16
_PEPPER_BYTES = 32
_LONGEST = 320
_ADDRESS = re.compile(r"[^@\s]+@[^@\s]+")
_PHONE_DIGITS = range(7, 16)
_BETWEEN_DIGITS = frozenset(" -.()/\u2010\u2011\u2012\u2013\u2212")


def normal_email(given: str) -> str:
    """NFKC, without blanks around it, lower case; what a provider ignores is kept (dots, tags).

    >>> normal_email("  Ada@Example.COM ")
    'ada@example.com'

    Raises:
        InputError: it is no e-mail address. The message does not repeat it.
    """
    text = unicodedata.normalize("NFKC", given).strip().lower()
    text = unicodedata.normalize("NFKC", text)
    if len(text) > _LONGEST or not _ADDRESS.fullmatch(text):
        raise InputError("no e-mail address: expected one name@domain without blanks")
    return text


def normal_phone(given: str) -> str:
    """E.164: a plus and 7 to 15 digits that begin with the country code.

    >>> normal_phone("0049 (170) 123-4567")
    '+491701234567'

    Raises:
        InputError: it does not begin with + or 00 and a country code, holds a (0) that may or
            may not be dialled, or anything but digits. The message does not repeat it.
    """
    text = unicodedata.normalize("NFKC", given).strip()
    if re.search(r"\(\s*0\s*\)", text):
        raise InputError(
            "a phone number with (0) is ambiguous: write it as it is dialled from abroad"
        )
    digits = "".join(_digit(each) for each in text.removeprefix("+") if each not in _BETWEEN_DIGITS)
    if not text.startswith("+"):
        if not digits.startswith("00"):
            raise InputError("a phone number needs its country code: expected +49 170 1234567")
        digits = digits[2:]
    if len(digits) not in _PHONE_DIGITS or digits.startswith("0"):
        raise InputError("no phone number: expected + and 7 to 15 digits, the country code first")
    return f"+{digits}"


def _digit(character: str) -> str:
    value = unicodedata.decimal(character, None)
    if value is None:
        raise InputError("no phone number: expected digits with + and the country code before them")
    return str(value)


def load_pepper(state: Path, tenant: str) -> bytes:
    """The tenant's secret: of ``NEXTEDGE_PEPPER``, else of ``<state>/pepper``, made at first use.

    Losing it loses matches, nothing else: old hashes meet no new ones.

    Raises:
        ConfigError: what is there is too short to be a secret.
        StorageError: the file cannot be written.
    """
    given = os.environ.get(VARIABLE)
    if given:
        if len(given) < _PEPPER_BYTES:
            raise ConfigError(
                f"{VARIABLE}: {len(given)} characters; expected at least {_PEPPER_BYTES}, random"
            )
        # tenants that share the variable must not share hashes
        return hmac.digest(given.encode(), tenant.encode(), hashlib.sha256)
    path = state / FILE
    if not path.exists():
        _make(path)
    pepper = path.read_bytes()
    if len(pepper) != _PEPPER_BYTES:
        raise ConfigError(
            f"{path}: {len(pepper)} bytes; expected {_PEPPER_BYTES}: put the right file back, or "
            f"remove it to begin anew (contacts that were stored match no more)"
        )
    return pepper


def _make(path: Path) -> None:
    """Write the file whole and only once, whoever else is about to."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{FILE}.{secrets.token_hex(8)}")
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(secrets.token_bytes(_PEPPER_BYTES))
                file.flush()
                os.fsync(file.fileno())
            with contextlib.suppress(FileExistsError):
                os.link(partial, path)
        finally:
            partial.unlink()


def hashed(given: str, pepper: bytes) -> bytes:
    """16 bytes that stand for an e-mail address or, where there is no @, a phone number.

    Raises:
        InputError: it is neither; the message does not repeat it.
    """
    text = unicodedata.normalize("NFKC", given)
    normal = f"email:{normal_email(text)}" if "@" in text else f"phone:{normal_phone(text)}"
    return hmac.digest(pepper, normal.encode(), hashlib.sha256)[:HASH_BYTES]
