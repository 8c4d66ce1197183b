"""Kernels on all cores: blocks of a batch on threads, each with scratch space of its own.

Kernels release the interpreter's lock and are compiled without Numba's parallel mode, which
takes several times as long to compile and gains nothing where blocks are independent.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from nextedge.cores import thread_count


@lru_cache(maxsize=1)
def _pool(process: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(thread_count(), thread_name_prefix="nextedge-kernel")


class Scratch(NamedTuple):
    """Room that a kernel needs for itself, kept by each thread from call to call.

    A kernel finds ``zeroed`` room all zero and must leave it so: making an array of all users
    or items anew would cost every request more than what it reads of them.
    """

    size: int
    dtype: type[np.generic]
    zeroed: bool = True


def run_blocks(
    kernel: Callable[..., None], queries: int, *arguments: Any, scratch: Sequence[Scratch] = ()
) -> None:
    """Call ``kernel(block, blocks, *arguments, *scratch)`` for every block, on as many threads.

    A block takes the queries ``block, block + blocks, …``; a single query runs right here.
    """
    blocks = min(thread_count(), queries)
    if blocks <= 1:
        _run(kernel, 0, 1, arguments, scratch)
        return
    submit = _pool(os.getpid()).submit
    jobs = [submit(_run, kernel, block, blocks, arguments, scratch) for block in range(blocks)]
    for job in jobs:
        job.result()


_kept = threading.local()


def _run(
    kernel: Callable[..., None],
    block: int,
    blocks: int,
    arguments: tuple[Any, ...],
    scratch: Sequence[Scratch],
) -> None:
    rooms: dict[tuple[int, Scratch], np.ndarray] = _kept.__dict__.setdefault("rooms", {})
    taken = []
    for place, wanted in enumerate(scratch):
        key = place, wanted._replace(size=0)
        room = rooms.pop(key, None)
        if room is None or len(room) < wanted.size:
            room = np.zeros(wanted.size, wanted.dtype)
        taken.append((key, room))
    kernel(block, blocks, *arguments, *(room for _, room in taken))
    rooms.update(taken)  # not after an error: what it left behind is not zero
