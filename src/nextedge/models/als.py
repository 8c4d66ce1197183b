"""Alternating least squares for implicit feedback, by the tuned recipe.

Hu, Koren, Volinsky: "Collaborative Filtering for Implicit Feedback Datasets", ICDM 2008, with
the loss, the initialisation and the regularisation of Rendle, Krichene, Zhang, Koren:
"Revisiting the Performance of iALS on Item Recommendation Benchmarks", RecSys 2022, section 3:

``Σ_{(q,c) in edges} (x_q·y_c - 1)² + α Σ_{q,c} (x_q·y_c)²
+ λ Σ_q (|row q| + α N)^ν ‖x_q‖² + λ Σ_c (|row c| + α Q)^ν ‖y_c‖²``

A few conjugate gradient steps from the previous sweep solve each half-sweep.
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from nextedge.errors import TrainingError
from nextedge.graph.csr import Graph
from nextedge.models._conjugate import least_squares_rows
from nextedge.models.artifact import Artifact
from nextedge.models.model import Model, ModelConfig, ModelProgress, TrainingData
from nextedge.types import ENGAGES, FloatArray


class AlsConfig(ModelConfig):
    """Settings of alternating least squares."""

    dimensions: int = Field(256, ge=1)
    """Width d of the embeddings; large widths pay when regularised."""
    sweeps: int = Field(10, ge=1)
    """Number of times that both sides are solved."""
    unobserved_mass: float = Field(10.0, ge=0)
    """α·N: weight of all candidates as negatives of a query, in multiples of the mean number
    of edges of a query, so that one value fits catalogues of any size."""
    regularisation: float = Field(0.008, gt=0)
    """λ: of the squared length of the embeddings."""
    frequency_exponent: float = Field(1.0, ge=0, le=1)
    """ν: exponent by which regularisation grows with the number of edges."""
    initial_deviation: float = Field(0.1, gt=0)
    """Standard deviation of the first embeddings, times √d."""
    steps: int = Field(4, ge=1)
    """Conjugate gradient steps in each half-sweep."""


class Als(Model[AlsConfig]):
    """Query and candidate embeddings whose dot product predicts 1 on edges and 0 elsewhere.

    Nodes without edges have zero embeddings.
    """

    name = "als"
    relations = (ENGAGES,)
    reason = "people_like_you"
    enabled = True

    def fit(self, data: TrainingData, config: AlsConfig, progress: ModelProgress) -> Artifact:
        """Fit both embeddings.

        Raises:
            TrainingError: the graph has no edge, or the embeddings are no longer finite.
        """
        graph, back = self.learnable(data), data.graph.reverse
        random = np.random.default_rng(data.seed)
        active = max(int((graph.degree > 0).sum()), 1)
        # In mean degrees, one value serves dense and sparse sets; the published 0.1 does not.
        alpha = config.unobserved_mass * graph.edges / active / graph.targets
        query, candidate = (_initial(random, rows, config) for rows in (len(graph), len(back)))
        for sweep in range(config.sweeps):
            query = half_sweep(graph, candidate, query, alpha, config)
            candidate = half_sweep(back, query, candidate, alpha, config)
            if not (np.isfinite(query).all() and np.isfinite(candidate).all()):
                raise TrainingError(
                    f"als: sweep {sweep + 1} gave embeddings that are not finite; raise "
                    f"regularisation (given: {config.regularisation})"
                )
            progress("als sweeps", sweep + 1, config.sweeps)
        # A sweep ends with the candidates: scores multiply them by queries solved against them.
        query = half_sweep(graph, candidate, query, alpha, config)
        arrays = {"query": query, "candidate": candidate}
        return Artifact.of_graph(self.name, config, graph, data.seed, arrays)


def half_sweep(
    graph: Graph, fixed: FloatArray, moving: FloatArray, alpha: float, config: AlsConfig
) -> FloatArray:
    """float32[rows, d]: embeddings of the rows, solved while the other side stays fixed."""
    frequency = graph.degree + alpha * len(fixed)
    ridge = config.regularisation * frequency**config.frequency_exponent
    gramian = np.float32(alpha) * (fixed.T @ fixed)
    ridge = ridge.astype(np.float32)
    return least_squares_rows(graph.adjacency, fixed, gramian, ridge, moving, steps=config.steps)


def _initial(random: np.random.Generator, rows: int, config: AlsConfig) -> FloatArray:
    scale = np.float32(config.initial_deviation / np.sqrt(config.dimensions))
    return random.standard_normal((rows, config.dimensions), np.float32) * scale
