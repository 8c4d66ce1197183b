"""Memory bound of a build: as configured, or a share of the machine's memory."""

from __future__ import annotations

import contextlib
import ctypes
import os
from pathlib import Path

SHARE = 0.75  # of the machine's memory, without a configured bound
_GROUP = Path("/sys/fs/cgroup/memory.max")


def machine_bytes() -> int:
    """Memory of the machine, or of the process' control group if that is smaller."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        group = _GROUP.read_text().strip()
    except OSError:
        return physical
    return min(physical, int(group)) if group.isdigit() else physical


def give_back() -> None:
    """Return free memory of the allocators to the system, for other allocators of the next step."""
    import pyarrow

    pyarrow.default_memory_pool().release_unused()
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def bound_bytes(gib: float | None) -> int:
    """Bound of a build's anonymous memory; None is ``SHARE`` of the machine's memory."""
    # pages of mapped files are not counted: the system reclaims them when it needs memory
    return int(machine_bytes() * SHARE if gib is None else gib * 2**30)
