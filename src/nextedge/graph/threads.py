"""Kernels on all cores: blocks of a batch on threads, each with scratch space of its own.

Kernels release the interpreter's lock and are compiled without Numba's parallel mode, which
takes several times as long to compile and gains nothing where blocks are independent.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any


@lru_cache(maxsize=1)
def _pool(process: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(thread_count(), thread_name_prefix="nextedge-kernel")


def thread_count() -> int:
    """Cores that this process may use; NEXTEDGE_THREADS sets another number."""
    given = os.environ.get("NEXTEDGE_THREADS", "")
    return max(1, int(given)) if given.isdigit() else len(os.sched_getaffinity(0))


def run_blocks(kernel: Callable[..., None], queries: int, *arguments: Any) -> None:
    """Call ``kernel(block, blocks, *arguments)`` for every block, on as many threads.

    A block takes the queries ``block, block + blocks, …``; a single query runs right here.
    """
    blocks = min(thread_count(), queries)
    if blocks <= 1:
        kernel(0, 1, *arguments)
        return
    jobs = [_pool(os.getpid()).submit(kernel, block, blocks, *arguments) for block in range(blocks)]
    for job in jobs:
        job.result()
