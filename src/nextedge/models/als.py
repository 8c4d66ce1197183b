"""Alternating least squares for implicit feedback, by the tuned recipe.

Hu, Koren, Volinsky: "Collaborative Filtering for Implicit Feedback Datasets", ICDM 2008, with
the loss, the initialisation and the regularisation of Rendle, Krichene, Zhang, Koren:
"Revisiting the Performance of iALS on Item Recommendation Benchmarks", RecSys 2022:

``Σ_{(q,c) in edges} (x_q·y_c - 1)² + α Σ_{q,c} (x_q·y_c)²
+ λ Σ_q (|row q| + α N)^ν ‖x_q‖² + λ Σ_c (|row c| + α Q)^ν ‖y_c‖²``

Each half-step is solved by a few conjugate gradient steps from the sweep before.
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from nextedge.errors import TrainingError
from nextedge.graph.csr import Graph
from nextedge.models._conjugate import least_squares_rows
from nextedge.models.artifact import Artifact, fingerprint
from nextedge.models.model import Model, ModelConfig, ModelProgress, TrainingData
from nextedge.types import ENGAGES, FloatArray


class AlsConfig(ModelConfig):
    """Settings of alternating least squares."""

    dimensions: int = Field(256, ge=1)
    """Width d of the embeddings; large ones serve when regularised."""
    sweeps: int = Field(10, ge=1)
    """How often both sides are solved."""
    unobserved_mass: float = Field(10.0, ge=0)
    """α·N: what all candidates weigh as negatives of a query, in multiples of the mean number
    of edges of a query, so that one setting serves catalogues of any size."""
    regularisation: float = Field(0.008, gt=0)
    """λ: of the squared length of the embeddings."""
    frequency_exponent: float = Field(1.0, ge=0, le=1)
    """ν: how much more those with many edges are regularised."""
    initial_deviation: float = Field(0.1, gt=0)
    """The first embeddings are normal with this standard deviation over √d."""
    steps: int = Field(4, ge=1)
    """Conjugate gradient steps in each half-sweep."""


class Als(Model[AlsConfig]):
    """Query and candidate embeddings whose dot product predicts 1 on edges and 0 elsewhere.

    The artifact also holds ``gramian`` float32[d, d] = α Σ_c y_c y_cᵀ and ``fold`` float64[3]
    (λ, α N, ν), with which new queries are folded in. Nodes without edges have zero embeddings.
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
        graph, back = data.graph, data.graph.reverse
        if graph.edges == 0:
            raise TrainingError("als: the graph has no edge to learn from; give it interactions")
        random = np.random.default_rng(data.seed)
        active = max(int((graph.degree > 0).sum()), 1)
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
        query = half_sweep(graph, candidate, query, alpha, config)
        gramian = _weighted_gramian(candidate, alpha)
        fold = np.array(
            [config.regularisation, alpha * graph.targets, config.frequency_exponent], np.float64
        )
        return Artifact(
            self.name,
            config.model_dump(),
            {"query": query, "candidate": candidate, "gramian": gramian, "fold": fold},
            {"seed": data.seed, "data": fingerprint(graph.indptr, graph.indices)},
        )


def half_sweep(
    graph: Graph, fixed: FloatArray, moving: FloatArray, alpha: float, config: AlsConfig
) -> FloatArray:
    """float32[rows, d]: the rows' embeddings solved with the other side held fixed."""
    frequency = graph.degree + alpha * len(fixed)
    ridge = config.regularisation * frequency**config.frequency_exponent
    return least_squares_rows(
        graph.indptr,
        graph.indices,
        fixed,
        _weighted_gramian(fixed, alpha),
        ridge.astype(np.float32),
        moving,
        steps=config.steps,
    )


def _weighted_gramian(fixed: FloatArray, alpha: float) -> FloatArray:
    return np.float32(alpha) * (fixed.T @ fixed)


def _initial(random: np.random.Generator, rows: int, config: AlsConfig) -> FloatArray:
    scale = np.float32(config.initial_deviation / np.sqrt(config.dimensions))
    return random.standard_normal((rows, config.dimensions), np.float32) * scale
