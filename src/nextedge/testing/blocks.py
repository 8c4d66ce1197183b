"""Block functions for tests of engines, in a place that every process of an engine can import."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from nextedge.errors import NextEdgeError


@dataclass(frozen=True)
class Twice:
    """Twice the column ``x``, after a while.

    >>> Twice()(pa.table({"x": [1, 2]}))["twice"].to_pylist()
    [2, 4]
    """

    seconds: float = 0.0

    def __call__(self, block: pa.Table) -> pa.Table:
        time.sleep(self.seconds)
        return pa.table({"twice": np.asarray(block["x"]) * 2})


@dataclass(frozen=True)
class Broken:
    """Ends in an error of this package."""

    message: str

    def __call__(self, block: pa.Table) -> pa.Table:
        raise NextEdgeError(self.message)


@dataclass(frozen=True)
class Reads:
    """Reads a file that only some machines may see."""

    path: Path

    def __call__(self, block: pa.Table) -> pa.Table:
        self.path.read_bytes()
        return block
