"""Locations of tables: their forms, parsed once.

===========================================  =================================================
``users.parquet``, ``/data/users.csv.gz``    a file, relative to the configuration's folder
``parts/users-*.parquet``                    a glob: the rows of all files
``users/``                                   a folder: all its files of a format known here
``duckdb:///app.duckdb#users``               a table of a DuckDB file (``#schema.users`` too)
``sqlite:///app.sqlite#users``               a table of an SQLite file
``postgresql://name:password@host/db#t``     a table of a PostgreSQL server (``#schema.t`` too)
``s3://bucket/users/*.parquet``              objects, also gs:// and az://; needs
                                             ``pip install 'nextedge[s3]'``
===========================================  =================================================

``?table=users`` may stand for ``#users``. After ``duckdb://`` and ``sqlite://``, three slashes
are followed by a path relative to the configuration's folder and four by an absolute one.
"""

from __future__ import annotations

import glob
import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, parse_qs, quote, unquote, urlsplit, urlunsplit

from nextedge.errors import DataError, nearest

FILE_SUFFIXES = {
    ".parquet": "parquet",
    ".csv": "csv",
    ".csv.gz": "csv",
    ".jsonl": "jsonl",
    ".jsonl.gz": "jsonl",
    ".ndjson": "jsonl",
    ".ndjson.gz": "jsonl",
}
_SECRET = re.compile(r"([?&](?:password|sslpassword|passfile)=)[^&#]*")
_DATABASES = ("duckdb", "sqlite", "postgresql", "postgres")


@dataclass(frozen=True, slots=True)
class Files:
    """Files of one format; ``remote`` is the scheme of an object store, or empty."""

    paths: tuple[str, ...]
    format: str
    remote: str = ""


@dataclass(frozen=True, slots=True)
class DatabaseTable:
    """A table of a database; ``url`` is a file path, or a server's URL with its password."""

    kind: str
    url: str
    table: str
    public_url: str


Location = Files | DatabaseTable


def parse_location(location: str, base: Path) -> Location:
    """Parse a location and find its files.

    Raises:
        DataError: there is no file, its format is unknown, or a URL names no table.
    """
    scheme = location.split("://", 1)[0] if "://" in location else ""
    if scheme in _DATABASES:
        return _parse_database(location, base)
    if scheme and scheme != "file":
        return Files((location,), format_of(location), remote=scheme)
    return _find_files(location.removeprefix("file://"), base)


def public_url(location: str) -> str:
    """The location for messages: a URL without its password."""
    if "://" not in location:
        return location
    parts = urlsplit(_SECRET.sub(r"\1***", location))
    if parts.password is None:
        return urlunsplit(parts) if parts.query else location
    host = parts.netloc.rsplit("@", 1)[1]
    return urlunsplit(parts._replace(netloc=f"{parts.username}:***@{host}"))


def format_of(path: str) -> str:
    """Format of a file by its name: parquet, csv or jsonl."""
    for suffix, name in FILE_SUFFIXES.items():
        if path.lower().endswith(suffix):
            return name
    raise DataError(
        f"{public_url(path)}: format not known by its name; expected one of {', '.join(FILE_SUFFIXES)}, "
        f"or a URL of {', '.join(_DATABASES[:3])}, s3, gs or az"
    )


def _find_files(location: str, base: Path) -> Files:
    path = base / location
    if path.is_dir():
        # Sorted, as file systems list in any order, and of two rows of an id the last one counts.
        paths = sorted(
            str(entry)
            for entry in path.iterdir()
            if entry.is_file() and entry.name.lower().endswith(tuple(FILE_SUFFIXES))
        )
        if not paths:
            known = ", ".join(FILE_SUFFIXES)
            raise DataError(f"{path}: the folder holds no table; expected files of {known}")
    elif glob.has_magic(location) and not path.exists():
        paths = sorted(name for name in glob.glob(str(path)) if Path(name).is_file())
        if not paths:
            raise DataError(f"{path}: no file matches this pattern; check the setting in [data]")
    elif path.is_file():
        paths = [str(path)]
    else:
        raise DataError(f"{path}: no such file; {_neighbours(path)}")
    formats = {format_of(name) for name in paths}
    if len(formats) > 1:
        raise DataError(
            f"{path}: matches files of several formats ({', '.join(sorted(formats))}); "
            f"name those of one format"
        )
    return Files(tuple(paths), formats.pop())


def _neighbours(path: Path) -> str:
    if not path.parent.is_dir():
        return f"nor is there a folder {path.parent}"
    names = [entry.name for entry in path.parent.iterdir() if not entry.name.startswith(".")]
    return nearest(path.name, sorted(names)[:50])


def _parse_database(location: str, base: Path) -> DatabaseTable:
    parts = urlsplit(location)
    query = parse_qs(parts.query)
    table = unquote(parts.fragment) or (query.pop("table", [""])[0])
    if not table:
        raise DataError(
            f"{public_url(location)}: names no table; write it after a #, for example "
            f"{public_url(location)}#users"
        )
    if parts.scheme in ("duckdb", "sqlite"):
        file = base / unquote(parts.netloc + parts.path[1:] if not parts.netloc else parts.path)
        if not file.is_file():
            raise DataError(f"{file}: no such file; {_neighbours(file)}")
        return DatabaseTable(parts.scheme, str(file), table, public_url(location))
    rest = "&".join(
        f"{key}={quote(value, safe='/')}" for key, values in query.items() for value in values
    )
    url = urlunsplit(("postgresql", _quoted_login(parts), parts.path, rest, ""))
    return DatabaseTable("postgresql", url, table, public_url(location))


def _quoted_login(parts: SplitResult) -> str:
    """The login and host with the password encoded, so that an @ in it does not end it."""
    if parts.username is None:
        return parts.netloc
    host = parts.netloc.rsplit("@", 1)[1]
    password = "" if parts.password is None else ":" + quote(unquote(parts.password), safe="")
    return f"{quote(unquote(parts.username), safe='')}{password}@{host}"


def is_loopback(host: str) -> bool:
    """Whether a host is this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
