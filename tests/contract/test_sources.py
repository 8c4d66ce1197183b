"""Every source that is discovered keeps the contract; none is listed here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nextedge import Recommender
from nextedge.stages.source import source_classes
from nextedge.testing.sources import check_source
from nextedge.types import Requests


@pytest.mark.parametrize("surface", ["people", "items"])
@pytest.mark.parametrize("name", sorted(source_classes()))
def test_source_keeps_its_contract(tenant: Path, surface: str, name: str) -> None:
    line = Recommender(tenant).release.surface(surface).line
    relations = source_classes()[name].relations
    if line.scope.relation not in relations:
        assert name not in line.sources
        return
    queries = np.array([*range(0, 600, 37), -1], np.int32)
    check_source(line.sources[name], Requests(queries, line.scope.snapshot.as_of, 10), 50)
