"""The fingerprint of frames changes with every value, name and type."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from nextedge.build.cache.fingerprint import fingerprint
from nextedge.config import Config

ROWS = pa.table({"src": list(range(20)), "dst": [str(i) for i in range(20)]})


@pytest.mark.parametrize(
    "other",
    [
        ROWS.slice(0, 10),
        ROWS.slice(10),
        ROWS.rename_columns(["source", "dst"]),
        ROWS.cast(pa.schema([("src", pa.uint64()), ("dst", pa.string())])),
        ROWS.select(["dst", "src"]),
        ROWS.take([1, 0, *range(2, 20)]),
    ],
    ids=["head", "tail", "names", "types", "order of columns", "order of rows"],
)
def test_another_frame_has_another_fingerprint(other: pa.Table, tmp_path: Path) -> None:
    config = Config(base=tmp_path)
    first = fingerprint(config, {"connections": ROWS})
    assert fingerprint(config, {"connections": pa.table(ROWS.to_pydict())}) == first
    assert fingerprint(config, {"connections": other}) != first
