"""Number of cores that this process may use."""

from __future__ import annotations

import os

THREADS_VARIABLE = "NEXTEDGE_THREADS"


def thread_count() -> int:
    """Number of cores that this process may use; NEXTEDGE_THREADS overrides it."""
    setting = os.environ.get(THREADS_VARIABLE, "")
    # the affinity, as a container or scheduler may allow fewer cores than the machine has
    return max(1, int(setting)) if setting.isdigit() else len(os.sched_getaffinity(0))
