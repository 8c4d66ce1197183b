"""Item-item regression in closed form, each candidate on the candidates most similar to it.

Steck: "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019, minimises
``‖X − XB‖² + λ‖B‖²`` with a zero diagonal through one inverse of all N × N co-occurrences:
O(N³) time, O(N²) memory. With column j of B restricted to the m candidates most similar to j
(Steck: "Markov Random Fields for Collaborative Filtering", NeurIPS 2019, section 3.2) it is N
ridge regressions of m unknowns each, ``(G_SS + λI) b_S = G_Sj``: the same weights where m
reaches N, and O(N m³) time, O(N m) memory.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from nextedge.graph.csr import Graph
from nextedge.graph.similarity import co_engagement, query_weight
from nextedge.models._local_ridge import by_history, local_ridge
from nextedge.models.artifact import Artifact
from nextedge.models.model import Model, ModelConfig, ModelProgress, TrainingData
from nextedge.types import ENGAGES, FloatArray

if TYPE_CHECKING:
    from scipy import sparse


class EaseConfig(ModelConfig):
    """Settings of the regression."""

    neighbors: int = Field(200, ge=1)
    """m: candidates that each candidate is regressed on."""
    penalty: float = Field(2.5, gt=0)
    """λ: L2 penalty on the weights, in multiples of the mean edges of a candidate."""
    query_exponent: float = Field(0.4, ge=0)
    """Exponent by which a query's weight falls with its edges; 0 is the published form."""
    longest: int = Field(5000, ge=1)
    """Most edges of a query that counts: a longer one says little of a pair and costs the square
    of its edges."""
    target_exponent: float = Field(0.1, ge=0)
    """Exponent by which scores fall with the edges of a candidate; 0 is the published form."""


class Ease(Model[EaseConfig]):
    """Sparse weights between candidates, positive and negative."""

    name = "ease"
    relations = (ENGAGES,)
    reason = "because_you_liked"
    enabled = True

    def fit(self, data: TrainingData, config: EaseConfig, progress: ModelProgress) -> Artifact:
        """Solve every candidate's regression.

        Raises:
            TrainingError: the graph has no edge.
        """
        graph = self.learnable(data)
        weight = query_weight(graph, config.query_exponent, config.longest)
        # A mean weight of 1 an edge keeps the unit of the penalty: edges.
        weight *= graph.edges / max(float(weight @ graph.degree), 1e-12)
        common = _co_occurrences(graph, weight)
        length = np.sqrt(np.maximum(common.diagonal(), 1e-12)).astype(np.float32)
        size = affordable(config, graph)
        near = co_engagement(graph, weight, length, length, shrinkage=0.0, neighbors=size)
        # A penalty in edges fits one set: 50 is best on Gowalla, 200 to 600 on MovieLens 1M.
        penalty = config.penalty * graph.edges / max(int((graph.target_degree > 0).sum()), 1)
        tell = partial(progress, "ease regressions")
        values = local_ridge(common, common, near, penalty, tell)
        degree = np.maximum(graph.target_degree, 1).astype(np.float32)
        values *= np.repeat(degree**-config.target_exponent, np.diff(near.indptr))
        return Artifact.of_graph(self.name, config, graph, data.seed, by_history(near, values))


def affordable(config: EaseConfig, graph: Graph) -> int:
    """Neighbours of each candidate: fewer in huge catalogues, so that a fit takes minutes."""
    # N systems of m unknowns cost N m³: 2e12 is a quarter of an hour on two cores.
    return min(config.neighbors, max(32, int((2e12 / max(graph.targets, 1)) ** (1 / 3))))


def _co_occurrences(graph: Graph, weight: FloatArray) -> sparse.csr_matrix:
    """N × N: sum of the weights of the queries that have edges to both candidates."""
    from scipy import sparse

    # The root, since the product of two rows multiplies it by itself.
    by_edge = np.sqrt(np.repeat(weight, graph.degree)).astype(np.float32)
    shape = (len(graph), graph.targets)
    # A copy, since ``eliminate_zeros`` writes into the arrays, which are those of the graph.
    rows = sparse.csr_matrix((by_edge, graph.indices, graph.indptr), shape, copy=True)
    rows.eliminate_zeros()
    return (rows.T.tocsr() @ rows).tocsr()
