"""How much memory a build may take: the configured bound, or a share of the machine's."""

from __future__ import annotations

import contextlib
import ctypes
import os
from pathlib import Path

SHARE = 0.75
"""Of the machine's memory that a build may take where the configuration says nothing."""
_GROUP = Path("/sys/fs/cgroup/memory.max")


def machine_bytes() -> int:
    """Memory of the machine, or of the control group that the process is in where that has less."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        group = _GROUP.read_text().strip()
    except OSError:
        return physical
    return min(physical, int(group)) if group.isdigit() else physical


def give_back() -> None:
    """Return to the system what allocators keep for later: the next step may need it otherwise."""
    import pyarrow

    pyarrow.default_memory_pool().release_unused()
    with contextlib.suppress(OSError, AttributeError):  # where the C library is another
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def bound_bytes(gib: float | None) -> int:
    """Anonymous memory that a build may take; None is a share of the machine's.

    Pages of mapped files are not in it: the system takes them back at need.
    """
    return int(machine_bytes() * SHARE if gib is None else gib * 2**30)
