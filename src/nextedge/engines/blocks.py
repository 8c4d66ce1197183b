"""Results of blocks of work, as files of Arrow streams.

A reader maps a result, which takes no memory; a restarted run reuses it.
"""

from __future__ import annotations

import itertools
import os
import socket
import threading
import time
from collections.abc import Callable, Hashable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import pyarrow as pa

from nextedge.engines.base import BlockFunction, RunBlocks
from nextedge.errors import StorageError
from nextedge.storage.files import writing

SEEN_WITHIN_SECONDS = 60.0  # network file systems cache the absence of a file of another machine
_LOOK_AGAIN_SECONDS = 0.2


def packed(table: pa.Table) -> bytes:
    """A table as an Arrow stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def unpacked(rows: bytes) -> pa.Table:
    """The table of ``packed``."""
    return pa.ipc.open_stream(rows).read_all()


def write_result(path: Path, result: pa.Table) -> None:
    """Write a result in one step, even if two machines write the same result."""
    partial = path.with_suffix(f".{socket.gethostname()}-{os.getpid()}.part")
    with writing(path):
        try:
            with pa.OSFile(str(partial), "wb") as sink:
                with pa.ipc.new_stream(sink, result.schema) as writer:
                    writer.write_table(result)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)


def read_result(path: Path) -> pa.Table:
    """A written result, mapped."""
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_stream(source).read_all()


def wait_for_result(path: Path) -> pa.Table:
    """Read a result of another process, perhaps on another machine.

    Raises:
        StorageError: this machine does not see it.
    """
    until = time.monotonic() + SEEN_WITHIN_SECONDS
    while not path.exists():
        if time.monotonic() > until:
            raise StorageError(
                f"{path}: was written by an executor and is not seen here; all machines must see "
                "the state folder under the same path (docs/spark.md)"
            )
        time.sleep(_LOOK_AGAIN_SECONDS)
    return read_result(path)


Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class OpenedFiles(Generic[Key, Value]):
    """Open files of a block function in this process, for its next block; at most ``size``.

    A class variable of the block function: a process receives a new instance for each block, but
    the class stays.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._values: dict[Key, Value] = {}
        self._lock = threading.Lock()

    def get(self, key: Key, open_files: Callable[[], Value]) -> Value:
        """The value of a key, opened at first use; evicts the least recently used value."""
        with self._lock:
            # reinserted, since a dict in order of insertion has the least recently used first
            value = self._values.pop(key) if key in self._values else open_files()
            self._values[key] = value
            for old in list(self._values)[: -self.size]:
                del self._values[old]
            return value

    def clear(self) -> None:
        """Drop all values, with their memory and mapped files."""
        with self._lock:
            self._values.clear()


@dataclass
class CachedBlock:
    """A block, and its result of an earlier run if there is one."""

    block: pa.Table
    path: Path | None
    result: pa.Table | None

    def write(self, result: pa.Table) -> pa.Table:
        """Write a result for the next run."""
        if self.path is not None:
            write_result(self.path, result)
        return result


def cached_blocks(blocks: Iterable[pa.Table], folder: Path | None) -> Iterator[CachedBlock]:
    """The blocks in order, with the results of a stopped run in ``folder``."""
    if folder is not None:
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
    for number, block in enumerate(blocks):
        path = None if folder is None else folder / f"{number:06}.arrow"
        result = None if path is None or not path.exists() else read_result(path)
        yield CachedBlock(block, path, result)


def run_here(
    function: BlockFunction,
    blocks: Iterable[pa.Table],
    keep: Path | None = None,
    *,
    threads: int = 1,
) -> Iterator[pa.Table]:
    """Results of blocks in order, computed in this process, ``threads`` at once."""
    waiting = cached_blocks(blocks, keep)
    with ThreadPoolExecutor(threads, thread_name_prefix="nextedge-blocks") as pool:
        while wave := list(itertools.islice(waiting, threads)):
            missing = [cached.block for cached in wave if cached.result is None]
            # a single block runs in this thread, where kernels may use all cores
            results = map(function, missing) if len(missing) == 1 else pool.map(function, missing)
            for cached in wave:
                yield cached.result if cached.result is not None else cached.write(next(results))


def run_where_worth(
    run: RunBlocks, function: BlockFunction, blocks: Iterable[pa.Table]
) -> Iterator[pa.Table]:
    """Results of blocks by an engine's ``run``; a single block runs in this process."""
    # work is cut by size: one block takes less time than the start of an engine
    waiting = iter(blocks)
    first = list(itertools.islice(waiting, 2))
    if len(first) < 2:
        return run_here(function, first)
    return run(function, itertools.chain(first, waiting))
