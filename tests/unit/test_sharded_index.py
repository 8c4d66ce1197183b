"""An index in shards against one index, and against a plain merge."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nextedge.errors import IndexRecallError, ReleaseError
from nextedge.index.sharded import ShardedIndex, load_index, merged, saved_bounds
from nextedge.index.vector_index import VectorIndex, exact_search, recall_at


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    random = np.random.default_rng(0)
    drawn = random.standard_normal((20, 16))[random.integers(0, 20, 2000)]
    drawn = drawn + 0.7 * random.standard_normal((2000, 16))
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("share", [1.0, 0.5, 0.01, 0.0])
def test_shards_together_equal_one_index(vectors: np.ndarray, share: float, tmp_path: Path) -> None:
    allowed = np.random.default_rng(1).random(len(vectors)) < share if share < 1 else None
    ShardedIndex.build(vectors, vectors[:10], 3, kind="flat").save(tmp_path)
    found, score = load_index(tmp_path, vectors).search(vectors[:50], 15, allowed)
    one = VectorIndex.build(vectors, vectors[:10], kind="flat")
    whole, expected = one.search(vectors[:50], 15, allowed)
    assert found.tolist() == whole.tolist()
    np.testing.assert_allclose(score, expected, rtol=1e-5)


def test_some_of_the_shards_know_where_they_stand_among_all(
    vectors: np.ndarray, tmp_path: Path
) -> None:
    ShardedIndex.build(vectors, vectors[:10], 5, kind="flat").save(tmp_path)
    bounds = saved_bounds(tmp_path)
    allowed = np.random.default_rng(2).random(len(vectors)) < 0.3
    parts = []
    for low, high in ((0, 1), (1, 4), (4, 5), (5, 5)):
        index = ShardedIndex.load(tmp_path, vectors, low, high)
        here = slice(bounds[low], bounds[high])
        found, score = index.search(vectors[:20], 10, allowed[here])
        assert ((found < 0) | ((found >= bounds[low]) & (found < bounds[high]))).all()
        parts.append((found, score))
    whole = VectorIndex.build(vectors, vectors[:10], kind="flat").search(vectors[:20], 10, allowed)
    assert merged(parts, 20, 10)[0].tolist() == whole[0].tolist()


def test_merging_equals_sorting_everything() -> None:
    random = np.random.default_rng(3)
    parts = []
    for place in range(4):
        score = np.sort(random.integers(0, 6, (5, 7)).astype(np.float32), axis=1)[:, ::-1]
        position = np.tile(np.arange(7, dtype=np.int32) * 4 + place, (5, 1))
        parts.append((position, score))
    position, score = merged(parts, 5, 9)
    for row in range(5):
        everything = [
            (-float(s), int(p))
            for positions, scores in parts
            for p, s in zip(positions[row], scores[row], strict=True)
        ]
        best = sorted(everything)[:9]
        assert [(-float(s), int(p)) for p, s in zip(position[row], score[row], strict=True)] == best
    assert merged([], 3, 5)[0].shape == (3, 0)


def test_recall_is_that_of_all_shards_together(vectors: np.ndarray) -> None:
    built = ShardedIndex.build(
        vectors, vectors[:300], 3, k=20, kind="ivf_flat", target_recall=0.9, seed=1
    )
    truth = exact_search(vectors, vectors[:300], 20)
    assert built.report is not None
    assert built.report.size == len(vectors)
    assert built.report.queries == 300
    assert built.report.recall == pytest.approx(
        recall_at(built.search(vectors[:300], 20)[0], truth)
    )
    assert built.report.recall >= 0.9
    with pytest.raises(IndexRecallError, match="recall@20"):
        ShardedIndex.build(vectors, vectors[:300], 2, k=20, kind="ivf_pq", target_recall=0.9999)


def test_shards_of_other_vectors_are_refused(vectors: np.ndarray, tmp_path: Path) -> None:
    ShardedIndex.build(vectors, vectors[:10], 2, kind="flat").save(tmp_path)
    with pytest.raises(ReleaseError, match="shards of 2000 vectors, expected 100"):
        ShardedIndex.load(tmp_path, vectors[:100])
    for wrong in ("{}", '{"bounds": [0, 5, 3]}', "no JSON"):
        (tmp_path / "shards.json").write_text(wrong)
        with pytest.raises(ReleaseError, match="not an index in shards"):
            load_index(tmp_path, vectors)
