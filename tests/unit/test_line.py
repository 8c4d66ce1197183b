"""The line: standardised scores, sources that are off, columns bound by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nextedge import Recommender
from nextedge.config import SourceConfig
from nextedge.errors import ConfigError, ReleaseError
from nextedge.ranking.pipeline import declared_features, enabled_sources, fit_source, fitted_sources
from nextedge.retrieval.merge import with_standard_scores
from nextedge.types import Candidates


def test_standard_scores_are_within_each_query() -> None:
    score = np.float32([1, 2, 3, 10, np.nan, 7])
    found = with_standard_scores(
        Candidates(np.int64([0, 3, 5, 6]), np.arange(6, dtype=np.int32), {"x_score": score})
    ).columns["x_score_standard"]
    first = np.array([1.0, 2, 3])
    np.testing.assert_allclose(found[:3], (first - 2) / first.std(), rtol=1e-6)
    np.testing.assert_allclose(found[3:5], [1, -1], rtol=1e-6)  # an absent score counts as 0
    assert found[5] == 0  # one candidate stands out from nobody


def test_a_model_that_is_off_costs_nothing_and_one_that_is_on_is_a_column(tenant: Path) -> None:
    surface = Recommender(tenant).release.surface("items")
    scope, settings = surface.line.scope, surface.settings
    assert "bpr" not in enabled_sources(scope, settings)
    assert "bpr_score" not in declared_features(scope, settings).names
    on = settings.model_copy(update={"sources": {"bpr": SourceConfig()}})
    assert "bpr" in enabled_sources(scope, on)
    assert "bpr_score" in declared_features(scope, on).names
    # Nothing was trained: the line goes without it.
    assert "bpr" not in fitted_sources(scope, on, {})
    assert "bpr" in fitted_sources(scope, on, {"bpr"})


def test_an_unknown_option_of_a_model_is_named(tenant: Path) -> None:
    surface = Recommender(tenant).release.surface("items")
    wrong = SourceConfig(options={"dimension": 8})
    settings = surface.settings.model_copy(update={"sources": {"als": wrong}})
    with pytest.raises(ConfigError, match=r"als.*dimension"):
        fit_source(surface.line.scope, settings, "als")


def test_a_ranker_of_features_that_are_gone_is_refused(tenant: Path) -> None:
    features = Recommender(tenant).release.surface("items").line.features
    turned = features.names[::-1]
    assert features.ordered_as(turned).names == turned
    with pytest.raises(ReleaseError, match="gone"):
        features.ordered_as(["gone"])
