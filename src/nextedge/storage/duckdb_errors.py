"""Tell DuckDB's errors of the disk it writes to from errors of what it reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


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
    """Whether an error of DuckDB's is about the disk it writes to, not about what it reads."""
    return any(word in str(error).lower() for word in _REFUSED_WORDS)
