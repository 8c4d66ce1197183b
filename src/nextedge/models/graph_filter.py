"""A closed-form low-pass filter of the bipartite graph, stored as sparse similarities.

The first-order filter of normalised adjacency, ``R̃ᵀR̃`` (Shen et al.: "How Powerful is Graph
Convolution for Recommendation?", CIKM 2021, section 4), with other exponents of the candidates'
degrees on either side (as in Park et al.: "Turbo-CF", SIGIR 2024, section 3.2):

``P(i, j) = n_i^(β-1) n_j^(-β) · Σ_{q has i and j} deg(q)^(-γ)``

The score of a candidate j is ``Σ_{i in history} P(i, j)``. Each row keeps its best neighbours.
Cost: one multiply-add for every pair of edges of a query, as for common neighbours.
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from nextedge.graph.similarity import co_engagement, query_weight
from nextedge.models.artifact import Artifact, similar_arrays
from nextedge.models.model import Model, ModelConfig, ModelProgress, TrainingData
from nextedge.types import ENGAGES


class GraphFilterConfig(ModelConfig):
    """Settings of the graph filter."""

    neighbors: int = Field(400, ge=1)
    """Most similarities of a candidate."""
    target_exponent: float = Field(0.2, ge=0, le=1)
    """β: exponent by which scores fall with the edges of a candidate."""
    query_exponent: float = Field(1.0, ge=0)
    """γ: exponent by which a query's weight falls with its edges."""
    longest: int = Field(10_000, ge=1)
    """Most edges of a query that counts: a longer one says little of a pair and costs the square
    of its edges."""


class GraphFilter(Model[GraphFilterConfig]):
    """Sparse similarities between candidates; nothing is trained."""

    name = "graph_filter"
    relations = (ENGAGES,)
    reason = "because_you_liked"
    enabled = True

    def fit(
        self, data: TrainingData, config: GraphFilterConfig, progress: ModelProgress
    ) -> Artifact:
        """Count and normalise.

        Raises:
            TrainingError: the graph has no edge.
        """
        graph = self.learnable(data)
        progress("graph filter", 0, 1)
        degree = np.maximum(graph.target_degree, 1).astype(np.float32)
        weight = query_weight(graph, config.query_exponent, config.longest)
        left, right = degree ** (1.0 - config.target_exponent), degree**config.target_exponent
        # First order alone: higher ones gain 0.001 of recall@20 on Gowalla (docs/log.md).
        similar = co_engagement(
            graph, weight, left, right, shrinkage=0.0, neighbors=config.neighbors
        )
        progress("graph filter", 1, 1)
        arrays = similar_arrays(similar.indptr, similar.indices, similar.values)
        return Artifact.of_graph(self.name, config, graph, data.seed, arrays)
