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

from nextedge.errors import TrainingError
from nextedge.graph.similarity import co_engagement
from nextedge.models.artifact import Artifact
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
    """Queries with more edges are left out: they tell little of a pair and cost the square of
    their edges."""


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
        graph = data.graph
        if graph.edges == 0:
            raise TrainingError("graph_filter: the graph has no edge; give it interactions")
        progress("graph filter", 0, 1)
        degree = np.maximum(graph.target_degree, 1).astype(np.float32)
        weight = np.maximum(graph.degree, 1).astype(np.float32) ** -config.query_exponent
        weight[graph.degree > config.longest] = 0.0
        similar = co_engagement(
            graph,
            weight,
            degree ** (1.0 - config.target_exponent),
            degree**config.target_exponent,
            shrinkage=0.0,
            neighbors=config.neighbors,
        )
        progress("graph filter", 1, 1)
        arrays: dict[str, np.ndarray] = {
            "similar_indptr": similar.indptr,
            "similar_indices": similar.indices,
            "similar_values": similar.values,
        }
        return Artifact.of_graph(self.name, config, graph, data.seed, arrays)
