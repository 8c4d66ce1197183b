"""Blocks of work as bytes, and the results of those that are done already, kept on disk."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from nextedge.storage import writing


def packed(table: pa.Table) -> bytes:
    """A table as an Arrow stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    found: bytes = sink.getvalue().to_pybytes()
    return found


def unpacked(rows: bytes) -> pa.Table:
    """What ``packed`` made."""
    return pa.ipc.open_stream(rows).read_all()


@dataclass
class KeptBlock:
    """A block, and its result where an earlier run kept it."""

    block: pa.Table
    path: Path | None
    result: pa.Table | None

    def keep(self, result: pa.Table) -> pa.Table:
        """Keep a result for the next run, whole or not at all."""
        if self.path is not None:
            partial = self.path.with_suffix(f".{os.getpid()}.part")
            with writing(self.path):
                partial.write_bytes(packed(result))
                os.replace(partial, self.path)
        return result


def kept_blocks(blocks: Iterable[pa.Table], folder: Path | None) -> Iterator[KeptBlock]:
    """The blocks in order, with what a stopped run left of them in ``folder``."""
    if folder is not None:
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
    for number, block in enumerate(blocks):
        path = None if folder is None else folder / f"{number:06}.arrow"
        done = path is not None and path.exists()
        yield KeptBlock(block, path, unpacked(path.read_bytes()) if path and done else None)
