"""Every source that is discovered keeps the contract; none is listed here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nextedge import Recommender
from nextedge.retrieval.model_source import ModelSource, training_data
from nextedge.retrieval.registry import source_classes
from nextedge.testing.sources import Retrieval, SourceContract, retrieve
from nextedge.types import Requests


@pytest.mark.parametrize("surface", ["people", "items"], scope="class")
@pytest.mark.parametrize("name", sorted(source_classes()), scope="class")
class TestSource(SourceContract):
    @pytest.fixture(scope="class")
    @classmethod
    def retrieval(cls, tenant: Path, surface: str, name: str) -> Retrieval:
        line = Recommender(tenant).release.surface(surface).line
        kind = source_classes()[name]
        if line.scope.relation not in kind.relations:
            assert name not in line.sources
            pytest.skip(f"{name} gives no candidates for {surface}")
        source = line.sources.get(name)
        if source is None:
            assert not kind.enabled
            assert issubclass(kind, ModelSource)
            config = kind.config_class.model_validate(
                {"trainer": {"epochs": 2}} if kind.model.trained else {}
            )
            fitted = kind.model().fit(training_data(line.scope), config, lambda *_: None)
            source = kind(line.scope, config, dict(fitted.arrays))
        queries = np.array([*range(0, 600, 37), -1], np.int32)
        return retrieve(source, Requests(queries, line.scope.snapshot.as_of, 10), 50)
