"""Layers by ranges of rows: the same by an engine as in this process, and each block once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from nextedge.engines.duckdb.engine import LocalEngine
from nextedge.errors import StorageError, TrainingError
from nextedge.graph.aggregate import Neighbors
from nextedge.models.inference import ByEngine, InProcess, Layer
from nextedge.models.neural.node_inputs import NeighborVectors
from nextedge.models.neural.sage_layers import Expanded
from nextedge.storage.arrays import mapped
from nextedge.testing.models import planted
from nextedge.types import CONNECTS, FloatArray

asked: list[tuple[int, int]] = []


@dataclass(frozen=True, eq=False)
class Scaled(Layer):
    """Rows times a number, and who asked for them; those from ``broken`` on end in an error."""

    x: FloatArray
    by: float
    more: dict[str, tuple[FloatArray, ...]] = field(default_factory=dict)
    broken: int = 1 << 40

    def __len__(self) -> int:
        return len(self.x)

    def rows(self, start: int, stop: int) -> FloatArray:
        asked.append((start, stop))
        if start >= self.broken:
            raise TrainingError("stopped")
        others = sum(part[start:stop] for parts in self.more.values() for part in parts)
        return (self.x[start:stop] * self.by + others).astype(np.float32)


@pytest.fixture(scope="module")
def engine() -> Iterator[LocalEngine]:
    with LocalEngine(threads=1) as opened:
        yield opened


@pytest.fixture
def x() -> FloatArray:
    asked.clear()
    return np.random.default_rng(0).standard_normal((10, 3)).astype(np.float32)


def test_ranges_cover_all_rows_once(x: FloatArray) -> None:
    np.testing.assert_array_equal(InProcess(4).run("twice", Scaled(x, 2)), x * 2)
    assert asked == [(0, 4), (4, 8), (8, 10)]
    assert InProcess(4).run("none", Scaled(x[:0], 2)).shape == (0, 3)


def test_an_engine_gives_what_this_process_gives(
    x: FloatArray, engine: LocalEngine, tmp_path: Path
) -> None:
    np.save(tmp_path / "given.npy", x)
    given = mapped(tmp_path / "given.npy")
    layer = Scaled(given, 3, {"parts": (x, x * 2)})
    by_engine = ByEngine(engine, tmp_path / "layers", at_once=4)
    found = by_engine.run("sum", layer)
    np.testing.assert_array_equal(found, InProcess(4).run("sum", layer))
    # what was mapped is read where it lies, what was not is written
    assert {path.name for path in (tmp_path / "layers").iterdir()} == {
        "sum.npy",
        "sum.2.npy",
        "sum.3.npy",
    }
    by_engine.run("twice", Scaled(found, 2, {"more": (layer.more["parts"][0],)}))
    assert {path.name for path in (tmp_path / "layers").glob("twice*")} == {"twice.npy"}
    assert by_engine.run("none", Scaled(x[:0], 2)).shape == (0, 3)


def test_a_stopped_run_goes_on_with_the_block_that_it_lacks(
    x: FloatArray, engine: LocalEngine, tmp_path: Path
) -> None:
    for broken in (8, 4):  # what was made before the first stop is not lost by the second
        with pytest.raises(TrainingError, match="stopped"):
            ByEngine(engine, tmp_path, at_once=4).run("twice", Scaled(x, 2, broken=broken))
    assert asked == [(0, 4), (4, 8), (8, 10), (8, 10)]
    found = ByEngine(engine, tmp_path, at_once=4).run("twice", Scaled(x, 2))
    np.testing.assert_array_equal(found, x * 2)
    assert asked[4:] == [(8, 10)]
    again = ByEngine(engine, tmp_path, at_once=4).run("twice", Scaled(x, 2))
    np.testing.assert_array_equal(again, x * 2)
    assert len(asked) == 5
    assert not list(tmp_path.glob("*-blocks"))


def test_a_folder_that_cannot_be_written_is_said(
    x: FloatArray, engine: LocalEngine, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot be written"):
        ByEngine(engine, tmp_path / "file").run("twice", Scaled(x, 2))


def test_query_expansion_is_its_formula() -> None:
    graph = planted(CONNECTS)[0].graph
    x = np.random.default_rng(0).standard_normal((len(graph), 5)).astype(np.float32)
    x[7] = 0
    found = InProcess(50).run("expanded", Expanded(NeighborVectors(Neighbors.of(graph), x), 1.5))
    for node in range(len(graph)):
        mixed = x[node] + 1.5 * x[graph.row(node)].mean(axis=0)
        np.testing.assert_allclose(found[node], mixed / np.linalg.norm(mixed), atol=1e-6)
