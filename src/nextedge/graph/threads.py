"""Kernels on all cores: blocks of a batch on threads, each with its own scratch arrays.

Kernels release the interpreter's lock and are compiled without Numba's parallel mode, which takes
several times as long to compile and gains nothing where blocks are independent.
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
from nextedge.types import FloatArray, IndexArray, IntArray


@lru_cache(maxsize=1)
def _pool(process: int) -> ThreadPoolExecutor:
    # ``process`` is the key: threads do not survive a fork, so a child makes its own pool.
    return ThreadPoolExecutor(thread_count(), thread_name_prefix="nextedge-kernel")


class Scratch(NamedTuple):
    """A scratch array of a kernel, which each thread reuses from call to call.

    A kernel finds a ``zeroed`` array all zero and must leave it so.
    """

    # A new array of all users or items would cost a request more than all that it reads of it.
    size: int
    dtype: type[np.generic]
    zeroed: bool = True


def run_blocks(
    kernel: Callable[..., None], queries: int, *arguments: Any, scratch: Sequence[Scratch] = ()
) -> None:
    """Call ``kernel(block, blocks, *arguments, *scratch)`` for every block, one block a thread.

    A block takes the queries ``block, block + blocks, …``; a single query runs in this thread.
    """
    blocks = min(thread_count(), queries)
    if blocks <= 1:
        _run(kernel, 0, 1, arguments, scratch)
        return
    submit = _pool(os.getpid()).submit
    jobs = [submit(_run, kernel, block, blocks, arguments, scratch) for block in range(blocks)]
    for job in jobs:
        job.result()


def run_lists(
    kernel: Callable[..., None],
    queries: int,
    n: int,
    *arguments: Any,
    scratch: Sequence[Scratch] = (),
) -> tuple[IntArray, IndexArray, FloatArray]:
    """Ragged lists of a kernel: indptr int64[Q + 1], targets int32[R] and scores float32[R].

    The kernel takes one argument after ``arguments``: sizes int64[Q], targets int32[Q, n] and
    scores float32[Q, n] to fill.
    """
    size_Q = np.zeros(queries, np.int64)
    target_QN, score_QN = np.empty((queries, n), np.int32), np.empty((queries, n), np.float32)
    run_blocks(kernel, queries, *arguments, (size_Q, target_QN, score_QN), scratch=scratch)
    filled_QN = np.arange(n)[None, :] < size_Q[:, None]
    indptr = np.concatenate(([0], np.cumsum(size_Q)))
    return indptr, target_QN[filled_QN], score_QN[filled_QN]


_scratch = threading.local()


def _run(
    kernel: Callable[..., None],
    block: int,
    blocks: int,
    arguments: tuple[Any, ...],
    scratch: Sequence[Scratch],
) -> None:
    cached: dict[tuple[int, Scratch], np.ndarray] = _scratch.__dict__.setdefault("arrays", {})
    used = []
    for position, wanted in enumerate(scratch):
        key = position, wanted._replace(size=0)  # a larger array serves a smaller graph, too
        array = cached.pop(key, None)
        if array is None or len(array) < wanted.size:
            array = np.zeros(wanted.size, wanted.dtype)
        used.append((key, array))
    kernel(block, blocks, *arguments, *(array for _, array in used))
    cached.update(used)  # not after an error, which may leave an array that is not zero
