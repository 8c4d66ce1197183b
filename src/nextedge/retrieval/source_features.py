"""The feature group of the sources: their scores and ranks, and the merged rough score."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from nextedge.features.feature import Columns, Feature, FeatureGroup, FeatureInput
from nextedge.graph.scope import Scope
from nextedge.types import (
    CONNECTS,
    ENGAGES,
    NO_RANK,
    ROUGH,
    rank_column,
    score_column,
    standard_column,
)


def source_features(names: Sequence[str]) -> FeatureGroup:
    """Return the feature group of the named sources."""
    return FeatureGroup("sources", (CONNECTS, ENGAGES), partial(_declare, tuple(names)), _compute)


def _declare(names: Sequence[str], _: Scope) -> Iterator[Feature]:
    for name in names:
        yield Feature(score_column(name), f"score of the source {name}", "candidates")
        yield Feature(rank_column(name), f"ln of the rank in the source {name}", "candidates")
        yield _standard(score_column(name))
    yield Feature(ROUGH, "sum of the worth of the ranks in all sources", "candidates")
    yield _standard(ROUGH)


def _standard(column: str) -> Feature:
    formula = f"{column} in standard deviations over the query's candidates"
    return Feature(standard_column(column), formula, "candidates")


def _compute(inputs: FeatureInput) -> Columns:
    columns: Columns = {}
    for name, values in inputs.candidates.columns.items():
        if name.endswith("_rank"):
            # The logarithm: the step from rank 1 to 2 says more than that from 101 to 102.
            columns[name] = np.where(values == NO_RANK, np.nan, np.log(values.astype(np.float32)))
        elif name.endswith(("_score", "_standard")):
            columns[name] = values
    return columns
