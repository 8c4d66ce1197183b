"""Reasons say what is true of the pair, with the evidence that the viewer may see."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from nextedge import Recommender
from nextedge.graph.attributes import Category, Tags
from nextedge.policy.reasons import Reasons
from nextedge.retrieval.popular import Segment


@pytest.fixture(scope="module")
def recommender(tenant: Path) -> Recommender:
    return Recommender(tenant)


def test_shared_tags_are_named_rarest_first(recommender: Recommender) -> None:
    surface = recommender.release.surface("people")
    scope = surface.line.scope
    column = scope.query_attributes.columns["skills"]
    assert isinstance(column, Tags)

    def own(user: int) -> set[int]:
        rows = column.rows
        return set(rows.indices[rows.indptr[user] : rows.indptr[user + 1]].tolist())

    count = Counter(column.rows.indices.tolist())
    told = 0
    for query in range(0, 60, 3):
        for candidate in range(100, 140):
            both = own(query) & own(candidate)
            reason = surface.reasons._shared_tags(scope, query, candidate)
            if not both:
                assert reason is None
                continue
            assert reason is not None
            assert reason.code == "shared_skills"
            assert reason.evidence["count"] == len(both)
            rarest = min(count[code] for code in both)
            first = reason.evidence["values"][0]  # type: ignore[index]
            assert count[column.values.to_pylist().index(first)] == rarest
            assert str(first) in reason.text
            told += 1
    assert told > 20
    assert surface.reasons._shared_tags(scope, -1, 5) is None


def test_a_segment_says_which_value_it_is_popular_with(recommender: Recommender) -> None:
    surface = recommender.release.surface("items")
    segment = surface.line.sources["segment"]
    assert isinstance(segment, Segment)
    attributes, graph = surface.line.scope.query_attributes, surface.line.scope.graph
    told = 0
    for query in range(40):
        for candidate in np.flatnonzero(surface.line.scope.candidate_degree > 5)[:20].tolist():
            found = segment.evidence(query, candidate)
            if found is None:
                continue
            text, evidence = found
            column = attributes.columns[str(evidence["column"])]
            assert isinstance(column, Category)
            assert column.values[int(column.codes[query])].as_py() == evidence["value"]
            members = np.flatnonzero(column.codes == column.codes[query]).astype(np.int32)
            assert graph.contains(members, np.full(len(members), candidate, np.int32)).any()
            assert str(evidence["value"]) in text
            told += 1
    assert told > 50
    assert segment.evidence(-1, 3) is None


def test_every_answer_has_a_reason_in_words(recommender: Recommender) -> None:
    users = recommender.release.entities.users.identifiers(range(0, 200, 10)).to_pylist()
    codes: Counter[str] = Counter()
    for name in ("people", "items"):
        for user in [*users, "a stranger"]:
            for each in recommender.recommend(user, name, 20).recommendations:
                assert each.reason.text
                codes[each.reason.code] += 1
    assert {"mutual_connections", "because_you_liked"} <= set(codes)
    assert isinstance(recommender.release.surface("people").reasons, Reasons)
