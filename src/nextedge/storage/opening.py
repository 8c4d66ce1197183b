"""URLs of buckets, and stores opened with the environment's settings."""

from __future__ import annotations

import os
import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from nextedge.errors import BucketError, ConfigError
from nextedge.storage.faults import CREDENTIALS, first_line

if TYPE_CHECKING:
    from obstore.store import ObjectStore

SCHEMES = ("s3", "gs", "az")
PATIENT_SECONDS = 60.0  # builds and downloads repeat a failing request for so long
BRIEF_SECONDS = 3.0  # the same for periodic requests: polls for promotions, renewals of a lease
_URL = re.compile(r"(s3|gs|az)://([A-Za-z0-9][A-Za-z0-9._-]*)(/.*)?")
_ENDPOINTS = (
    *("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT"),
    *("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
)
_used_by: set[int] = set()


def is_bucket(location: str) -> bool:
    """Whether a location is a URL of an object store."""
    return "://" in location and location.partition("://")[0] in SCHEMES


def is_misspelt(location: str) -> bool:
    """Whether a location is a misspelt URL of a bucket, which would otherwise pass as a path.

    >>> is_misspelt("s3:/models/x"), is_misspelt("S3:models"), is_misspelt("./s3")
    (True, True, False)
    """
    scheme, colon, rest = location.partition(":")
    return bool(colon) and scheme.lower() in SCHEMES and not rest.startswith("//")


def checked_url(url: str) -> str:
    """Check the URL of a bucket, or of a prefix in one; returns it without a slash at its end.

    Raises:
        ConfigError: the URL is invalid; the message repeats no login.
    """
    if "@" in url:
        raise ConfigError(
            f"{url.partition('://')[0]}://…: a URL of a bucket holds no credentials; they come "
            f"from the environment (docs/storage.md)"
        )
    if not _URL.fullmatch(url) or "?" in url or "#" in url:
        raise ConfigError(f"{url}: expected s3://bucket/prefix, gs://… or az://container/prefix")
    plain = url.rstrip("/")
    parts = plain.partition("://")[2].split("/")
    if "%" in url or any(part in ("", ".", "..") for part in parts):
        raise ConfigError(
            f"{url}: expected names between the slashes of a prefix, none of them empty, '.' or "
            f"'..', and no '%'; write it as the store lists it"
        )
    return plain


def open_store(url: str, seconds: float) -> ObjectStore:
    """Open the store of a URL, with the settings of the environment.

    Raises:
        ConfigError: the library refuses the settings of the environment.
    """
    from obstore.exceptions import BaseError
    from obstore.store import from_url

    for name in _ENDPOINTS:  # the library aborts the process at one that is no URL
        if not re.match(r"https?://[^/]", os.environ.get(name, "http://host")):
            raise ConfigError(f"{name} = {os.environ[name]!r}: expected http://… or https://…")
    try:
        return from_url(url, client_options=client_options(), retry_config=retry_config(seconds))
    except BaseError as error:
        scheme = url.partition("://")[0]
        raise ConfigError(
            f"{url}: cannot be opened: {first_line(error)}; check {CREDENTIALS.get(scheme)}"
        ) from None


def client_options() -> Any:
    """Time limits of a request: to connect, and between parts of an answer."""
    # with options set, the library ignores the variables that allow plain HTTP
    plain = (os.environ.get(f"{name}_ALLOW_HTTP", "") for name in ("AWS", "GOOGLE", "AZURE"))
    return {
        "allow_http": any(value.lower() in ("true", "1", "yes") for value in plain),
        "connect_timeout": timedelta(seconds=5),
        "read_timeout": timedelta(seconds=30),
        "timeout": timedelta(hours=6),  # of a whole request, which may carry a large file
    }


def retry_config(seconds: float) -> Any:
    """Number and pauses of repeats after a 5xx answer or a broken connection."""
    backoff = {
        "init_backoff": timedelta(milliseconds=100),
        "max_backoff": timedelta(seconds=5),
        "base": 2,
    }
    retries = 2 if seconds <= BRIEF_SECONDS else 12
    return {"max_retries": retries, "retry_timeout": timedelta(seconds=seconds), "backoff": backoff}


def check_fork(url: str) -> None:
    """Raise BucketError in a fork of a process that has used the library."""
    # there a request would wait for ever
    _used_by.add(os.getpid())
    if len(_used_by) > 1:
        raise BucketError(
            f"{url}: cannot be used in a process that was forked from one that had used it; make "
            f"the Recommender after the fork"
        )
