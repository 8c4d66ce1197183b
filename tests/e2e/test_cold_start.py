"""Users without an edge: their own ranker, k recommendations, better than what is popular."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from nextedge import Recommender
from nextedge.data.synthetic import SyntheticConfig, generate_tenant
from nextedge.serving.messages import RecommendationRequest
from nextedge.types import Requests


@pytest.fixture(scope="module")
def hidden(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recommender, dict[str, set[str]]]:
    """A tenant in which a tenth of the users lost all edges, and who they were joined to."""
    folder = tmp_path_factory.mktemp("cold")
    generate_tenant(folder, SyntheticConfig(users=800, items=100, seed=5))
    edges = pq.read_table(folder / "connections.parquet")
    ids = sorted(set(edges.column("src").to_pylist()))
    cold = set(np.random.default_rng(0).permutation(ids)[: len(ids) // 10].tolist())
    asked = pa.array(sorted(cold))
    out, into = (pc.is_in(edges.column(side), value_set=asked) for side in ("src", "dst"))
    lost: dict[str, set[str]] = {}
    for a, b in zip(*(edges.column(side).to_pylist() for side in ("src", "dst")), strict=True):
        for one, other in ((a, b), (b, a)):
            if one in cold and other not in cold:
                lost.setdefault(one, set()).add(other)
    pq.write_table(edges.filter(pc.invert(pc.or_(out, into))), folder / "connections.parquet")
    for table in ("interactions", "impressions", "items", "blocks"):
        (folder / f"{table}.parquet").unlink(missing_ok=True)
    (folder / "nextedge.toml").write_text(
        "[surfaces.people.ranker]\nmax_rows = 20000\ntop_negatives = 40\n"
    )
    recommender = Recommender(folder)
    recommender.build(["people"])
    return recommender, lost


def gain(found: list[str], wanted: set[str]) -> float:
    discount = 1.0 / np.log2(np.arange(20) + 2.0)
    hit = np.array([one in wanted for one in found[:20]], float)
    return float((hit * discount[: len(hit)]).sum() / discount[: min(len(wanted), 20)].sum())


def test_cold_users_get_k_better_than_the_popular(
    hidden: tuple[Recommender, dict[str, set[str]]],
) -> None:
    recommender, lost = hidden
    training = recommender.release.release.path / "surfaces" / "people" / "training.json"
    assert json.loads(training.read_text())["cold_start"]["positives"] >= 30
    line = recommender.release.surface("people").line
    assert line.cold_start_ranker is not None
    answers = recommender.recommend_many(sorted(lost), RecommendationRequest("people", 20))
    assert all(len(answer.recommendations) == 20 for answer in answers)
    order = np.argsort(-line.scope.candidate_degree, kind="stable")[:20]
    popular = recommender.release.entities.users.identifiers(order.tolist()).to_pylist()
    ours, theirs = (
        np.mean([gain(lists[place], lost[user]) for place, user in enumerate(sorted(lost))])
        for lists in (
            [[each.id for each in answer.recommendations] for answer in answers],
            [popular] * len(answers),
        )
    )
    assert ours > 1.1 * theirs, f"{ours:.3f} against {theirs:.3f} of the most popular"


def test_an_unknown_user_is_ranked_as_a_cold_start(
    hidden: tuple[Recommender, dict[str, set[str]]],
) -> None:
    recommender, _ = hidden
    answer = recommender.recommend("nobody has this id", "people")
    assert not answer.known_user
    assert len(answer.recommendations) == 20


def test_contributions_come_from_the_ranker_that_ranked(
    hidden: tuple[Recommender, dict[str, set[str]]],
) -> None:
    recommender, lost = hidden
    answer = recommender.recommend(sorted(lost)[0], "people", 5, explain=True)
    assert all(each.contributions for each in answer.recommendations)
    line = recommender.release.surface("people").line
    assert line.ranker is not None
    assert line.cold_start_ranker is not None
    users = recommender.release.entities.users
    warm = np.flatnonzero(line.scope.graph.degree)[:2]
    query = np.concatenate((users.positions(sorted(lost)[:2]), warm)).astype(np.int32)
    requests = Requests(query, 0, 5)
    candidates = line.retrieve(requests)
    matrix, parts = line.matrix(requests, candidates), line.contributions(requests, candidates)
    assert parts is not None
    cold = candidates.row_query < 2
    for ranker, rows in ((line.cold_start_ranker, cold), (line.ranker, ~cold)):
        np.testing.assert_allclose(parts[rows].sum(axis=1), ranker.raw(matrix[rows]), atol=1e-3)
