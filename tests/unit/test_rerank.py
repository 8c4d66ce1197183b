"""The re-ranker: learns what its neighbourhoods tell, keeps the ranker's scores, changes no bit by batch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from shared_builds import quick_builds

from nextedge import Recommender
from nextedge.config import RerankerConfig
from nextedge.models.rankers.cross_attention import (
    RELATION,
    TOKEN,
    CrossAttention,
    HeadList,
    Neighborhoods,
    _forward,
    _initial,
    _Torch,
    head_numbers,
)
from nextedge.ranking.neighborhoods import neighborhood_vectors, neighborhoods
from nextedge.ranking.pipeline import SCORE, RankingPipeline
from nextedge.ranking.reranker import Reranker
from nextedge.types import Requests

SETTINGS = RerankerConfig(epochs=12, dimensions=16, neighbors=4, depth=10, learning_rate=5e-3)


def heads(count: int, seed: int) -> list[HeadList]:
    """Lists whose edge is the candidate that shares a neighbour with the query."""
    random = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        edge = int(random.integers(0, 10))
        relation = random.random((10, 4, 4, RELATION)).astype(np.float32) * 0.2
        relation[edge, 1, 2, 1:] = 1.0
        tokens = random.random((2, 10, 4, TOKEN)).astype(np.float32)
        masks = np.ones((2, 10, 4), bool)
        masks[:, ::3, 3] = False
        label = (np.arange(10) == edge).astype(np.float32)
        probability = np.sort(random.random(10)).astype(np.float32)[::-1]
        near = Neighborhoods(*tokens, *masks, relation)
        found.append(HeadList(near, head_numbers(probability), label))
    return found


@pytest.fixture(scope="module")
def fitted() -> tuple[CrossAttention, list[float]]:
    pytest.importorskip("torch")
    return CrossAttention.fit(heads(600, 0), heads(150, 1), SETTINGS)


def test_it_learns_what_the_ranker_cannot_see(fitted: tuple[CrossAttention, list[float]]) -> None:
    model, curve = fitted
    unseen = heads(200, 2)
    before = CrossAttention(SETTINGS, _initial(16, np.random.default_rng(0))).qualities(unseen)
    assert curve[0] < 0.6
    assert model.qualities(unseen).mean() > before.mean() + 0.3


def test_before_training_the_rankers_order_stands() -> None:
    model = CrossAttention(SETTINGS, _initial(16, np.random.default_rng(0)))
    for each in heads(5, 3):
        score = model.scores(each.neighborhoods, each.head)
        assert (np.diff(score) <= 0).all()


def test_it_is_kept_without_pickle(
    fitted: tuple[CrossAttention, list[float]], tmp_path: Path
) -> None:
    fitted[0].save(tmp_path)
    loaded = CrossAttention.load(tmp_path)
    for each in heads(3, 4):
        one, two = (m.scores(each.neighborhoods, each.head) for m in (fitted[0], loaded))
        np.testing.assert_array_equal(one, two)


def test_both_libraries_compute_the_same(fitted: tuple[CrossAttention, list[float]]) -> None:
    import torch

    arrays = {name: torch.from_numpy(value) for name, value in fitted[0].arrays.items()}
    for each in heads(3, 5):
        found = _forward(_Torch(torch), arrays, each.neighborhoods, each.head)
        served = fitted[0].scores(each.neighborhoods, each.head)
        np.testing.assert_allclose(found.numpy(), served, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["people", "items"])
def test_neighbourhoods_say_what_the_graph_says(tenant: Path, name: str) -> None:
    line = Recommender(tenant).release.surface(name).line
    scope, graph = line.scope, line.scope.graph
    query = int(np.argmax(graph.degree[:100]))
    candidates = np.flatnonzero(scope.candidate_degree > 3)[:20].astype(np.int32)
    near = neighborhoods(scope, query, candidates, scope.snapshot.as_of, 8)
    assert near.query_mask[0].sum() == min(8, graph.degree[query])
    behind = graph if scope.relation.symmetric else graph.reverse
    row = graph.row(query)
    for place, candidate in enumerate(candidates):
        own = behind.row(int(candidate))
        assert near.candidate_mask[place].sum() == min(8, len(own))
        if len(row) <= 8 and len(own) <= 8:
            for i, left in enumerate(row):
                for j, right in enumerate(own):
                    edge = bool(graph.contains(np.int32([right]), np.int32([left]))[0])
                    assert near.relation[place, i, j, 1] == edge
                    assert near.relation[place, i, j, 2] == (name == "people" and left == right)
    assert np.abs(near.relation).max() <= 1.0 + 1e-5
    unknown = neighborhoods(scope, -1, candidates, scope.snapshot.as_of, 8)
    assert not unknown.query_mask.any()
    assert np.isfinite(unknown.candidate_tokens).all()


def reranked(line: RankingPipeline) -> RankingPipeline:
    arrays = _initial(16, np.random.default_rng(1))
    arrays["last"] += np.random.default_rng(2).standard_normal((16, 1)).astype(np.float32)
    settings = RerankerConfig(dimensions=16, neighbors=8, depth=30)
    return replace(line, reranker=Reranker(line.scope, CrossAttention(settings, arrays)))


@pytest.mark.parametrize("name", ["people", "items"])
def test_the_head_changes_places_and_nothing_else(tenant: Path, name: str) -> None:
    line = Recommender(tenant).release.surface(name).line
    queries = np.array([3, 50, 51, -1, 120], np.int32)
    requests = Requests(queries, line.scope.snapshot.as_of + 1, 20)
    plain, found = line.run(requests), reranked(line).run(requests)
    moved = 0
    for rows in plain.rows():
        head = slice(rows.start, min(rows.start + 30, rows.stop))
        assert set(plain.candidate[head]) == set(found.candidate[head])
        moved += int((plain.candidate[head] != found.candidate[head]).sum())
        np.testing.assert_array_equal(
            plain.candidate[head.stop : rows.stop], found.candidate[head.stop : rows.stop]
        )
    assert moved > 20
    np.testing.assert_array_equal(plain.columns[SCORE], found.columns[SCORE])
    for row, rows in enumerate(found.rows()):  # alone as in the batch
        alone = reranked(line).run(Requests(queries[row : row + 1], requests.now, 20))
        np.testing.assert_array_equal(alone.candidate, found.candidate[rows])


def test_a_kept_reranker_serves_the_vectors_it_was_kept_with(tenant: Path, tmp_path: Path) -> None:
    first = Recommender(tenant).release.surface("people").line
    kept = reranked(first).reranker
    assert kept is not None
    kept.save(tmp_path / "kept", first.scope)
    second = Recommender(tenant).release.surface("people").line
    loaded = Reranker.load(tmp_path / "kept", second.scope, served=True)
    assert loaded is not None
    np.testing.assert_array_equal(
        neighborhood_vectors(second.scope).query, neighborhood_vectors(first.scope).query
    )
    assert Reranker.load(tmp_path / "nothing", second.scope, served=True) is None


@pytest.mark.slow
def test_a_build_trains_one_and_says_what_it_is_worth(tenant: Path, tmp_path: Path) -> None:
    """Long: a build that trains a network."""
    import json
    import shutil

    pytest.importorskip("torch")
    folder = quick_builds(Path(shutil.copytree(tenant, tmp_path / "tenant")))
    with (folder / "nextedge.toml").open("a") as file:
        file.write("[surfaces.items.reranker]\nenabled = true\nepochs = 2\nqueries = 200\n")
    recommender = Recommender(folder)
    recommender.build(["items"])
    path = recommender.release.release.path / "surfaces" / "items" / "training.json"
    about = json.loads(path.read_text())["reranker"]
    assert about["served"] == (recommender.release.surface("items").line.reranker is not None)
    if "ratio" in about:
        assert about["ratio"][1] <= about["ratio"][0] <= about["ratio"][2]
        assert about["served"] == (about["ratio"][1] > 1)
        assert about["milliseconds"] > 0
    else:
        assert "too few" in about["reason"]
