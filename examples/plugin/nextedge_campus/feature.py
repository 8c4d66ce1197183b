"""A feature: how far the degrees of the query and the candidate are apart."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from nextedge.features.feature import Columns, Feature, FeatureInput, feature_group
from nextedge.graph.scope import Scope


def _declare(_: Scope) -> Iterator[Feature]:
    yield Feature("degree_gap", "|ln(1 + query's edges) − ln(1 + candidate's)|", "edges")


@feature_group("degree_gap", _declare)
def degree_gap(given: FeatureInput) -> Columns:
    """The same function computes the column in training and in requests."""
    of_query = np.log1p(given.scope.graph.degree[np.maximum(given.query, 0)])
    gap = np.abs(of_query - np.log1p(given.scope.candidate_degree[given.candidate]))
    return {"degree_gap": np.where(given.query >= 0, gap, np.nan).astype(np.float32)}
