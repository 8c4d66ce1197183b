"""How many cores this process may use."""

from __future__ import annotations

import os

THREADS_VARIABLE = "NEXTEDGE_THREADS"


def thread_count() -> int:
    """Cores that this process may use; NEXTEDGE_THREADS sets another number."""
    given = os.environ.get(THREADS_VARIABLE, "")
    return max(1, int(given)) if given.isdigit() else len(os.sched_getaffinity(0))
