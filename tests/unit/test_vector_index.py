"""Indexes against brute force."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nextedge.errors import IndexRecallError, ReleaseError
from nextedge.index.vector_index import KINDS, Kind, VectorIndex, exact_search, recall_at


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    random = np.random.default_rng(0)
    centers = random.standard_normal((30, 32))
    drawn = centers[random.integers(0, 30, 4000)] + 0.7 * random.standard_normal((4000, 32))
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_reaches_its_recall_saved_and_loaded(
    kind: Kind, vectors: np.ndarray, tmp_path: Path
) -> None:
    target = 0.6 if kind == "ivf_pq" else 0.95
    index = VectorIndex.build(vectors, vectors[:300], k=20, kind=kind, target_recall=target)
    index.save(tmp_path)
    loaded = VectorIndex.load(tmp_path, vectors)
    truth = exact_search(vectors, vectors[:300], 20)
    found, score = loaded.search(vectors[:300], 20)
    assert recall_at(found, truth) >= target - 0.01
    assert loaded.report == index.report
    assert (np.diff(score, axis=1) <= 1e-6).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.5, 0.01])
def test_filtered_search_finds_only_what_is_allowed_and_little_less_than_all_of_it(
    kind: Kind, share: float, vectors: np.ndarray
) -> None:
    index = VectorIndex.build(vectors, vectors[:200], k=20, kind=kind, target_recall=0.6)
    allowed = np.random.default_rng(1).random(len(vectors)) < share
    found, _ = index.search(vectors[:200], 10, allowed)
    assert allowed[found[found >= 0]].all()
    places = np.flatnonzero(allowed)
    truth = places[exact_search(vectors[places], vectors[:200], 10)]
    least = 1.0 if share == 0.01 or kind == "flat" else 0.5
    assert recall_at(found, truth.astype(np.int32)) >= least - 1e-9


def test_short_recall_is_refused(vectors: np.ndarray) -> None:
    with pytest.raises(IndexRecallError, match="recall@20"):
        VectorIndex.build(vectors, vectors[:200], k=20, kind="ivf_pq", target_recall=0.9999)


def test_an_index_of_other_vectors_is_refused(vectors: np.ndarray, tmp_path: Path) -> None:
    VectorIndex.build(vectors, vectors[:10], k=5, kind="flat").save(tmp_path)
    with pytest.raises(ReleaseError, match="4000"):
        VectorIndex.load(tmp_path, vectors[:100])
    (tmp_path / "index.json").write_text("{}")
    with pytest.raises(ReleaseError, match="not an index"):
        VectorIndex.load(tmp_path, vectors)
