"""Vectors of all nodes: the same in this process, by the local engine's blocks and by Spark's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nextedge.engines.duckdb.engine import LocalEngine
from nextedge.engines.spark.engine import SparkEngine
from nextedge.models.artifact import Artifact
from nextedge.models.inference import ByEngine, InProcess
from nextedge.models.model import Model, TrainingData, model_classes
from nextedge.testing.models import planted
from nextedge.types import CONNECTS, ENGAGES

pytest.importorskip("torch")

AT_ONCE = 50
"""Rows of a block: several blocks of each layer, the last of them short."""
WITHIN = 1e-6
SIDES = ("query", "candidate")
MODELS = ("graphsage", "two_tower", "lightgcn")
QUICK = (MODELS[0], ENGAGES.name)


@pytest.fixture(scope="module")
def engine() -> Iterator[SparkEngine]:
    with SparkEngine() as opened:
        yield opened


def data_of(relation: str) -> TrainingData:
    """A planted graph with features, and another graph beside it."""
    people, engaged = planted(CONNECTS)[0], planted(ENGAGES)[0]
    random = np.random.default_rng(0)
    of_people = random.standard_normal((len(people.graph), 3)).astype(np.float32)
    of_items = random.standard_normal((engaged.graph.targets, 2)).astype(np.float32)
    of_people[0, 0] = np.nan
    if relation == CONNECTS.name:
        return replace(
            people,
            query_features=of_people,
            candidate_features=of_people,
            others={"engagements": engaged.graph},
        )
    return replace(
        engaged,
        query_features=of_people,
        candidate_features=of_items,
        others={"connections": people.graph},
    )


def trained(name: str, data: TrainingData, folder: Path) -> tuple[Model, Artifact]:
    """A model after an epoch, as a later step finds it."""
    model = model_classes()[name]()
    config = model.config_class.model_validate({"trainer": {"epochs": 1}})
    model.fit(data, config, lambda *_: None).save(folder)
    return model, Artifact.load(folder)


@pytest.mark.parametrize(
    ("name", "relation"),
    [
        # one of them is enough to see the path; Spark takes half a minute for the others
        pytest.param(name, relation, marks=[] if (name, relation) == QUICK else pytest.mark.slow)
        for name in MODELS
        for relation in (CONNECTS.name, ENGAGES.name)
    ],
)
def test_vectors_are_the_same_wherever_they_are_made(
    name: str, relation: str, engine: SparkEngine, tmp_path: Path
) -> None:
    data = data_of(relation)
    model, artifact = trained(name, data, tmp_path / "model")
    whole = model.embed(artifact, data).arrays
    here = model.embed(artifact, data, InProcess(AT_ONCE)).arrays
    with LocalEngine(threads=1) as local_engine:
        local = model.embed(
            artifact, data, ByEngine(local_engine, tmp_path / "local", AT_ONCE)
        ).arrays
    engine.spent()
    spark = model.embed(artifact, data, ByEngine(engine, tmp_path / "spark", AT_ONCE)).arrays
    assert engine.spent()["tasks"] >= 5
    for side in SIDES:
        assert len(here[side]) > AT_ONCE
        np.testing.assert_array_equal(local[side], here[side])
        for other in (whole, spark):
            np.testing.assert_allclose(other[side], here[side], rtol=0, atol=WITHIN)
    assert model.embed(artifact, data, ByEngine(engine, tmp_path / "spark", AT_ONCE)).arrays
    assert not engine.spent(), "a layer that was done was made again"
