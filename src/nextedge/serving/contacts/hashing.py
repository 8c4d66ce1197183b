"""Normal forms of e-mail addresses and phone numbers, and keyed hashes of them.

The hash of an identifier is the first 128 bits of ``HMAC-SHA256(pepper, kind + ":" + normal form)``.
Nothing stores the identifier itself.
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
_PEPPER_BYTES = 32  # a hash without a secret hides nothing: all phone numbers are tried in hours
_MAX_CHARACTERS = 320
_ADDRESS = re.compile(r"[^@\s]+@[^@\s]+")
_PHONE_DIGITS = range(7, 16)
_BETWEEN_DIGITS = frozenset(" -.()/\u2010\u2011\u2012\u2013\u2212")


def normal_email(text: str) -> str:
    """An e-mail address in NFKC and lower case, without blanks around it.

    >>> normal_email("  Ada@Example.COM ")
    'ada@example.com'

    Raises:
        InputError: the text is no e-mail address; the message does not repeat it.
    """
    # dots and tags stay: only some providers ignore them
    text = unicodedata.normalize("NFKC", text).strip().lower()
    text = unicodedata.normalize("NFKC", text)  # lower case may leave the normal form
    if len(text) > _MAX_CHARACTERS or not _ADDRESS.fullmatch(text):
        raise InputError("no e-mail address: expected one name@domain without blanks")
    return text


def normal_phone(text: str) -> str:
    """A phone number in E.164: a plus and 7 to 15 digits that begin with the country code.

    >>> normal_phone("0049 (170) 123-4567")
    '+491701234567'

    Raises:
        InputError: the text does not begin with + or 00 and a country code, has a (0), or a
            character that is no digit; the message does not repeat it.
    """
    text = unicodedata.normalize("NFKC", text).strip()
    if re.search(r"\(\s*0\s*\)", text):
        raise InputError(
            "a phone number with (0) is ambiguous: write it as it is dialled from abroad"
        )
    plain = (character for character in text.removeprefix("+") if character not in _BETWEEN_DIGITS)
    digits = "".join(map(_digit, plain))
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

    A lost secret loses matches and nothing else: old hashes equal no new ones.

    Raises:
        ConfigError: the secret is too short, or the file damaged.
        StorageError: the file cannot be written.
    """
    secret = os.environ.get(VARIABLE)
    if secret:
        if len(secret) < _PEPPER_BYTES:
            raise ConfigError(
                f"{VARIABLE}: {len(secret)} characters; expected at least {_PEPPER_BYTES}, random"
            )
        # tenants that share the variable must not share hashes
        return hmac.digest(secret.encode(), tenant.encode(), hashlib.sha256)
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
    # the link is atomic, and keeps the file of another process that makes one at the same time
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{FILE}.{secrets.token_hex(8)}")
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(secrets.token_bytes(_PEPPER_BYTES))
                file.flush()
                # a crash must not leave an empty file as the secret
                os.fsync(file.fileno())
            with contextlib.suppress(FileExistsError):
                os.link(partial, path)
        finally:
            partial.unlink()


def hashed(identifier: str, pepper: bytes) -> bytes:
    """The 16 bytes of the hash of an e-mail address or, without an @, a phone number.

    Raises:
        InputError: the text is neither; the message does not repeat it.
    """
    text = unicodedata.normalize("NFKC", identifier)
    normal = f"email:{normal_email(text)}" if "@" in text else f"phone:{normal_phone(text)}"
    return hmac.digest(pepper, normal.encode(), hashlib.sha256)[:HASH_BYTES]
