"""How much memory a build may take: the configured bound, or a share of the machine's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

SHARE = 0.75
"""Of the machine's memory that a build may take where the configuration says nothing."""
_GROUP = Path("/sys/fs/cgroup/memory.max")
_given: ContextVar[int | None] = ContextVar("nextedge_memory_bytes", default=None)


def machine_bytes() -> int:
    """Memory of the machine, or of the control group that the process is in where that has less."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        group = _GROUP.read_text().strip()
    except OSError:
        return physical
    return min(physical, int(group)) if group.isdigit() else physical


def bound_bytes() -> int:
    """Anonymous memory that a build may take; pages of mapped files are not in it."""
    given = _given.get()
    return int(machine_bytes() * SHARE) if given is None else given


@contextmanager
def bounded_by(gib: float | None) -> Iterator[None]:
    """Let ``bound_bytes`` be so many GiB in the body; None is a share of the machine's."""
    token = _given.set(None if gib is None else int(gib * 2**30))
    try:
        yield
    finally:
        _given.reset(token)
