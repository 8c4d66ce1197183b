"""A model, which is a source of the same name too: preferential attachment as embeddings."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from nextedge.errors import TrainingError
from nextedge.models.artifact import Artifact
from nextedge.models.model import Model, ModelConfig, ModelProgress, TrainingData


class DegreeProductConfig(ModelConfig):
    """Settings of the model."""

    exponent: float = Field(0.5, gt=0)
    """Exponent of both degrees in the score."""


class DegreeProduct(Model[DegreeProductConfig]):
    """Embeddings of one dimension whose product grows with both degrees."""

    name = "degree_product"
    reason = "popular"

    def fit(
        self, data: TrainingData, config: DegreeProductConfig, progress: ModelProgress
    ) -> Artifact:
        """Read the degrees; raises TrainingError where there is no edge."""
        if not data.graph.edges:
            raise TrainingError("degree_product: the graph has no edge")
        query, candidate = (
            (degree[:, None] ** config.exponent).astype(np.float32)
            for degree in (data.graph.degree, data.graph.target_degree)
        )
        return Artifact(self.name, config.model_dump(), {"query": query, "candidate": candidate})
