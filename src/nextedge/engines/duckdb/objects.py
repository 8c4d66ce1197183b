"""Find the objects of a location in an object store, and let DuckDB read them."""

from __future__ import annotations

import glob
import re
from typing import TYPE_CHECKING, Any

from nextedge.errors import BucketError, DataError, MissingDependencyError
from nextedge.storage.bucket import Bucket, Entry
from nextedge.storage.faults import fault
from nextedge.storage.locations import public_url
from nextedge.storage.opening import PATIENT_SECONDS, SCHEMES, client_options, retry_config

if TYPE_CHECKING:
    import duckdb

VALID = "valid: a path, a glob, duckdb://, sqlite://, postgresql://, s3://, gs://, az://"


def find_objects(location: str) -> list[tuple[str, Entry]]:
    """The objects of a URL or a pattern as (URL, entry), sorted by name.

    Raises:
        DataError: there is no object, or the store refuses.
        BucketError: the store is not reached or fails temporarily.
    """
    scheme, _, rest = location.partition("://")
    name, _, pattern = rest.partition("/")
    whole = Bucket(f"{scheme}://{name}")
    try:
        if glob.has_magic(pattern):
            from fsspec.utils import glob_translate

            folder = re.split(r"[*?\[]", pattern, maxsplit=1)[0].rpartition("/")[0]
            matches = re.compile(glob_translate(pattern)).match
            entries = [entry for entry in whole.entries(folder) if matches(entry.name)]
        else:
            entry = whole.entry(pattern)
            entries = [] if entry is None else [entry]
    except BucketError as error:
        raise _as_fault(error) from None
    if not entries:
        raise DataError(f"{public_url(location)}: no such object; check the setting in [data]")
    return [(f"{whole.url}/{entry.name}", entry) for entry in entries]


def file_system(scheme: str) -> Any:
    """The fsspec file system of a scheme, by obstore for buckets.

    Raises:
        DataError: no library knows the scheme.
        MissingDependencyError: the library is not installed.
    """
    if scheme in SCHEMES:
        try:
            from obstore import fsspec as obstore_fsspec
        except ImportError:
            raise MissingDependencyError("obstore", "s3", f"Reading {scheme}:// tables") from None
        store: Any = obstore_fsspec.FsspecStore
        return store(
            scheme,
            client_options=client_options(),
            retry_config=retry_config(PATIENT_SECONDS),
            skip_instance_cache=True,
        )
    try:
        import fsspec

        return fsspec.filesystem(scheme)
    except (ImportError, ValueError):
        raise DataError(f"{scheme}://: no such kind of location; {VALID}") from None


def register(connection: duckdb.DuckDBPyConnection, scheme: str) -> Any:
    """Let DuckDB read ``scheme://`` through fsspec, which needs no DuckDB extension."""
    store = file_system(scheme)
    if not connection.filesystem_is_registered(scheme):
        connection.register_filesystem(store)
    return store


def store_fault(location: str, error: Exception) -> BucketError | DataError | None:
    """The fault of the store behind an error of DuckDB; None for another cause."""
    if "Error performing" not in str(error) and "obstore" not in str(error):
        return None
    return _as_fault(fault(public_url(location), "read", error))


def _as_fault(error: BucketError) -> BucketError | DataError:
    # a temporary fault keeps its type, whose exit code schedulers retry
    return error if error.passing else DataError(str(error))
