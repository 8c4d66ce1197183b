"""Spectral embeddings: the leading singular vectors of the normalised adjacency.

``D_q^-½ A D_c^-½ ≈ U Σ Vᵀ`` (Ng, Jordan, Weiss, NIPS 2001, for the normalisation; Halko,
Martinsson, Tropp, SIAM Review 2011, for the randomised decomposition). Two nodes are near when
many short paths join them, with or without a common neighbour. Cost: O(E · d) a power iteration.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from pydantic import Field

from nextedge.graph.aggregate import Neighbors
from nextedge.graph.csr import Graph
from nextedge.models.artifact import Artifact
from nextedge.models.model import Model, ModelConfig, ModelProgress, TrainingData
from nextedge.types import FloatArray

if TYPE_CHECKING:
    from scipy import sparse


class SpectralConfig(ModelConfig):
    """Settings of the decomposition."""

    dimensions: int = Field(128, ge=1)
    power: float = Field(0.5, ge=0)
    """Exponent of the singular values on each side of the score."""
    degree_exponent: float = Field(0.5, ge=0, le=0.5)
    """Exponent by which scores rise with degree; 0.5 gives the plain low-rank adjacency."""
    iterations: int = Field(4, ge=1)


class Spectral(Model[SpectralConfig]):
    """Query and candidate embeddings from one randomised decomposition."""

    name = "spectral"
    reason = "close_in_network"

    def fit(self, data: TrainingData, config: SpectralConfig, progress: ModelProgress) -> Artifact:
        """Decompose.

        Raises:
            TrainingError: the graph has no edge.
        """
        graph = self.learnable(data)
        progress("spectral decomposition", 0, 1)
        iterations, seed = config.iterations, data.seed
        left, value, right = decompose(graph, config.dimensions, iterations=iterations, seed=seed)
        scale = (value**config.power).astype(np.float32)
        degree = np.maximum(graph.target_degree, 1).astype(np.float32) ** config.degree_exponent
        progress("spectral decomposition", 1, 1)
        arrays = {"query": left * scale, "candidate": right * scale * degree[:, None]}
        return Artifact.of_graph(self.name, config, graph, data.seed, arrays)


def decompose(
    graph: Graph, dimensions: int, *, iterations: int = 4, seed: int = 0
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Leading singular vectors of the normalised adjacency, the largest first.

    Returns:
        (float32[Q, d], float32[d], float32[N, d]); d is smaller where the graph is.
        Columns have the sign that makes their largest entry positive.
    """
    from sklearn.utils.extmath import randomized_svd

    normalised = normalised_adjacency(graph)
    # More vectors would only reproduce the existing edges.
    size = max(1, min(dimensions, min(normalised.shape) // 8))
    # The decomposition leaves the signs of vectors open: a rule fixes them.
    left, value, right = randomized_svd(
        normalised, size, n_iter=iterations, random_state=seed, flip_sign=True
    )
    parts = (left, value, right.T)
    return tuple(np.ascontiguousarray(part, np.float32) for part in parts)  # type: ignore[return-value]


@dataclass(frozen=True, eq=False)
class Normalised:
    """Rows of a normalised adjacency: 1 / √(degree of the row × degree of the column) at each edge.

    Attributes:
        neighbors: N rows over M columns.
        row: float64[N], 1 / √degree of each row; of one without neighbours, 1.
        column: float64[M], likewise.
    """

    neighbors: Neighbors
    row: npt.NDArray[np.float64]
    column: npt.NDArray[np.float64]

    @classmethod
    def of(cls, graph: Graph) -> Normalised:
        """Of a graph, queries by candidates."""
        # A node without edges has no entry to scale, so any finite factor serves.
        row = 1.0 / np.sqrt(np.maximum(graph.degree, 1))
        column = 1.0 / np.sqrt(np.maximum(graph.target_degree, 1))
        return cls(Neighbors.of(graph), row, column)

    @classmethod
    def reversed_of(cls, graph: Graph) -> Normalised:
        """Its transpose, candidates by queries."""
        straight = cls.of(graph)
        return cls(Neighbors.of(graph.reverse), straight.column, straight.row)

    def __len__(self) -> int:
        return len(self.neighbors)

    def matrix(self, start: int, stop: int) -> sparse.csr_matrix:
        """float32[stop - start, M] of some rows."""
        from scipy import sparse

        indptr = np.asarray(self.neighbors.indptr[start : stop + 1])
        indices = self.neighbors.indices[indptr[0] : indptr[-1]]
        values = np.repeat(self.row[start:stop], np.diff(indptr)) * self.column[indices]
        shape = (stop - start, len(self.column))
        parts = values.astype(np.float32), indices, indptr - indptr[0]
        return sparse.csr_matrix(parts, shape)


def normalised_adjacency(graph: Graph) -> sparse.csr_matrix:
    """float32 Q × N: 1 / √(degree of the query × degree of the candidate) at each edge."""
    return Normalised.of(graph).matrix(0, len(graph))
