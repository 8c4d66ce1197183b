"""Parquet files that appear whole or not at all, with row groups of a fixed size."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from nextedge.errors import StorageError
from nextedge.types import BoolArray

ROW_GROUP_ROWS = 262_144
TIMESTAMP = pa.timestamp("us", tz="UTC")


def timestamps(microseconds: npt.NDArray[np.int64], mask: BoolArray | None = None) -> pa.Array:
    """timestamp[us, UTC] of a copy of a buffer."""
    # Arrow would refer to the buffer, which the next round overwrites.
    return pa.array(microseconds.copy(), mask=mask).cast(TIMESTAMP)


class TableWriter:
    """Writes one table under a temporary name and renames it once it is complete."""

    def __init__(self, directory: Path, name: str, schema: pa.Schema) -> None:
        self.rows = 0
        self._target = directory / f"{name}.parquet"
        self._partial = directory / f".{name}.parquet.partial"
        self._pending: list[pa.Table] = []
        self._waiting = 0
        self._schema = schema
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._writer = pq.ParquetWriter(self._partial, schema, compression="zstd")
        except OSError as error:
            raise _refused(self._target, error) from error

    def write(self, table: pa.Table) -> None:
        """Add rows.

        Raises:
            StorageError: the disk is full or refuses to be written.
        """
        self._pending.append(table)
        self._waiting += table.num_rows
        self.rows += table.num_rows
        # Whole row groups: the bytes of a file do not depend on the chunks of its rows.
        if self._waiting >= ROW_GROUP_ROWS:
            self._flush(self._waiting // ROW_GROUP_ROWS * ROW_GROUP_ROWS)

    def _flush(self, rows: int) -> None:
        pending = pa.concat_tables(self._pending).combine_chunks()
        try:
            self._writer.write_table(pending.slice(0, rows), row_group_size=ROW_GROUP_ROWS)
        except OSError as error:
            raise _refused(self._target, error) from error
        rest = pending.slice(rows)
        # A slice would keep all rows of its parent in memory: copy the few that are left.
        self._pending = [rest.take(np.arange(rest.num_rows))] if rest.num_rows else []
        self._waiting = rest.num_rows

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                if self._waiting:
                    self._flush(self._waiting)
                self._writer.close()
                self._partial.replace(self._target)
            else:
                self._abandon()
        except OSError as refused:
            raise _refused(self._target, refused) from refused
        finally:
            self._partial.unlink(missing_ok=True)

    def _abandon(self) -> None:
        try:
            self._writer.close()
        except OSError:
            return  # the caller raises the first error; this file is deleted anyway


def _refused(target: Path, error: OSError) -> StorageError:
    return StorageError(
        f"{target}: cannot be written: {error.strerror or error}; expected a writable folder "
        f"with room: free some space or choose another folder"
    )
