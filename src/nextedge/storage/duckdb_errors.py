"""Tell DuckDB's errors of writing from those of reading."""

from __future__ import annotations

_REFUSED_WORDS = (
    "no space left",
    "file too large",
    "disk quota",
    "could not write",
    "max_temp_directory_size",
    "failed to offload",
    "permission denied",
    "read-only file system",
)


def refuses_writing(error: Exception) -> bool:
    """Whether an error of DuckDB comes from writing to a disk, not from reading the data."""
    return any(word in str(error).lower() for word in _REFUSED_WORDS)
