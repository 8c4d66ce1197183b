"""Features of either side's neighbours, against loops that say the same in plain words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nextedge import Recommender
from nextedge.features.feature import FeatureInput
from nextedge.features.neighbor_features import neighbor_amounts, neighbor_values
from nextedge.graph.attributes import Category
from nextedge.ranking.pipeline import RankingPipeline
from nextedge.types import MICROSECONDS_PER_DAY, Requests


def asked(line: RankingPipeline) -> FeatureInput:
    queries = np.array([2, -1, 40, 77], np.int32)
    requests = Requests(queries, line.scope.snapshot.as_of, 20)
    return FeatureInput(line.scope, requests, line.retrieve(requests))


@pytest.fixture(scope="module", params=["people", "items"])
def line(request: pytest.FixtureRequest, tenant: Path) -> RankingPipeline:
    return Recommender(tenant).release.surface(request.param).line


def test_values_around_the_query(line: RankingPipeline) -> None:
    given = asked(line)
    scope, graph = line.scope, line.scope.graph
    name = "company" if scope.relation.self_typed else "category"
    column = scope.candidate_attributes.columns[name]
    assert isinstance(column, Category)
    found = neighbor_values(given)
    latest, idle = found[f"{name}_latest_affinity"], found[f"{name}_idle_days"]
    for row in range(0, len(given.candidates), 37):
        query, code = int(given.query[row]), int(column.codes[given.candidate[row]])
        own = graph.row(query) if query >= 0 else np.zeros(0, np.int32)
        if code < 0 or not len(own):
            assert np.isnan(found[f"{name}_affinity"][row])
            continue
        same = column.codes[own] == code
        assert found[f"{name}_affinity"][row] == pytest.approx(same.mean())
        when = graph.last[graph.indptr[query] : graph.indptr[query + 1]]
        newest = np.lexsort((own, -when))[:5]
        assert latest[row] == pytest.approx(same[newest].mean())
        if same.any():
            days = (scope.snapshot.as_of - when[same].max()) / MICROSECONDS_PER_DAY
            assert idle[row] == pytest.approx(days, rel=1e-5)
        else:
            assert np.isnan(idle[row])


def test_values_around_the_candidate(line: RankingPipeline) -> None:
    given = asked(line)
    scope, reverse = line.scope, line.scope.reverse_graph
    column = scope.query_attributes.columns["company"]
    assert isinstance(column, Category)
    known = (scope.graph.degree > 0) & (column.codes >= 0)
    base = np.bincount(column.codes[known], minlength=len(column.values)) + 1.0
    base /= base.sum()
    found = neighbor_values(given)["company_reverse_affinity"]
    checked = 0
    for row in range(0, len(given.candidates), 11):
        query, candidate = int(given.query[row]), int(given.candidate[row])
        if query < 0 or column.codes[query] < 0:
            assert np.isnan(found[row])
            continue
        own = column.codes[query]
        others = column.codes[reverse.row(candidate)]
        others = others[:: max(1, -(-len(others) // 32))]
        others = others[others >= 0]
        smooth = ((others == own).sum() + 5 * base[own]) / (len(others) + 5)
        assert found[row] == pytest.approx(np.log(smooth / base[own]), abs=1e-4)
        checked += 1
    assert checked > 20


def test_amounts_are_distances_from_what_the_query_has(line: RankingPipeline) -> None:
    given = asked(line)
    scope, graph = line.scope, line.scope.graph
    found = neighbor_amounts(given)
    popularity = np.log1p(scope.candidate_degree)
    for row in range(0, len(given.candidates), 37):
        query = int(given.query[row])
        if query < 0 or not graph.degree[query]:
            assert np.isnan(found["popularity_distance"][row])
            continue
        own = graph.row(query)
        own = own[:: max(1, -(-len(own) // 32))]
        expected = popularity[given.candidate[row]] - popularity[own].mean()
        assert found["popularity_distance"][row] == pytest.approx(expected, abs=1e-4)
    if not scope.relation.self_typed:
        prices = scope.candidate_attributes.columns["price"].values  # type: ignore[union-attr]
        row = int(np.flatnonzero(given.query == 2)[0])
        gap = abs(prices[given.candidate[row]] - np.nanmean(prices[graph.row(2)]))
        assert found["price_distance"][row] == pytest.approx(gap, rel=1e-4)
