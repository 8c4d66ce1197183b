"""Item-item regression in closed form, each candidate on its own neighbourhood.

Steck: "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019, minimises
``‖X − XB‖² + λ‖B‖²`` with a zero diagonal through one inverse of all N × N co-occurrences:
O(N³) time, O(N²) memory. With column j of B restricted to the m candidates most similar to j
(Steck: "Markov Random Fields for Collaborative Filtering", NeurIPS 2019, section 3.2) it is N
ridge regressions of m unknowns each, ``(G_SS + λI) b_S = G_Sj``: the same weights where m
reaches N, and O(N m³) time, O(N m) memory.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
from pydantic import Field
from scipy import sparse

from nextedge.errors import TrainingError
from nextedge.graph.csr import Graph
from nextedge.graph.similarity import co_engagement
from nextedge.graph.threads import thread_count
from nextedge.models.artifact import Artifact, fingerprint
from nextedge.models.model import Model, ModelConfig, ModelProgress, TrainingData
from nextedge.types import FloatArray, IndexArray

BLOCK_VALUES = 1 << 23
"""Values of the small systems that a thread holds at once: 32 MiB."""


class EaseConfig(ModelConfig):
    """Settings of the regression."""

    neighbors: int = Field(200, ge=1)
    """m: candidates that each candidate is regressed on."""
    penalty: float = Field(2.5, gt=0)
    """λ: L2 penalty on the weights, in multiples of the mean edges of a candidate."""
    query_exponent: float = Field(0.4, ge=0)
    """How much a query with many edges counts for less; 0 is the published form."""
    target_exponent: float = Field(0.1, ge=0)
    """How much the scores of candidates with many edges are lowered; 0 is the published form."""


class Ease(Model):
    """Sparse weights between candidates, positive and negative."""

    name = "ease"
    config_class = EaseConfig

    def fit(self, data: TrainingData, config: ModelConfig, progress: ModelProgress) -> Artifact:
        """Solve every candidate's regression.

        Raises:
            TrainingError: the graph has no edge.
        """
        assert isinstance(config, EaseConfig)
        graph = data.graph
        if graph.edges == 0:
            raise TrainingError("ease: the graph has no edge to learn from; give it interactions")
        weight = np.maximum(graph.degree, 1).astype(np.float32) ** -config.query_exponent
        # Weights are scaled to a mean of 1 an edge, so that the penalty stays in edges.
        weight *= graph.edges / float(weight @ graph.degree)
        common = _co_occurrences(graph, weight)
        length = np.sqrt(np.maximum(common.diagonal(), 1e-12)).astype(np.float32)
        near = co_engagement(
            graph, weight, length, length, shrinkage=0.0, neighbors=config.neighbors
        )
        penalty = config.penalty * graph.edges / max(int((graph.target_degree > 0).sum()), 1)
        columns = _Regressions(common, near.indptr, near.indices, penalty)
        values = np.zeros(len(near.indices), np.float32)
        step = max(1, BLOCK_VALUES // columns.width**2)
        starts = range(0, graph.targets, step)
        with ThreadPoolExecutor(thread_count()) as pool:
            for done, _ in enumerate(
                pool.map(lambda start: columns.solve(start, start + step, values), starts)
            ):
                progress("ease regressions", done + 1, len(starts))
        degree = np.maximum(graph.target_degree, 1).astype(np.float32)
        values *= np.repeat(degree**-config.target_exponent, np.diff(near.indptr))
        shape = (graph.targets, graph.targets)
        by_column = sparse.csr_matrix((values, near.indices, near.indptr), shape)
        weights = by_column.T.tocsr()
        weights.eliminate_zeros()
        return Artifact(
            self.name,
            config.model_dump(),
            {
                "similar_indptr": weights.indptr.astype(np.int64),
                "similar_indices": weights.indices.astype(np.int32),
                "similar_values": weights.data.astype(np.float32),
            },
            {"seed": data.seed, "data": fingerprint(graph.indptr, graph.indices)},
        )


def _co_occurrences(graph: Graph, weight: FloatArray) -> sparse.csr_matrix:
    """N × N: Σ of the weights of the queries that have both candidates."""
    by_edge = np.sqrt(np.repeat(weight, graph.degree)).astype(np.float32)
    shape = (len(graph), graph.targets)
    rows = sparse.csr_matrix((by_edge, graph.indices, graph.indptr), shape)
    return (rows.T.tocsr() @ rows).tocsr()


class _Regressions:
    """The candidates' small ridge systems, solved a block at a time."""

    def __init__(
        self, common: sparse.csr_matrix, indptr: np.ndarray, near: IndexArray, penalty: float
    ) -> None:
        self.common = common
        self.indptr = indptr
        self.near = near
        self.penalty = np.float32(penalty)
        self.width = max(1, int(np.diff(indptr).max(initial=1)))

    def solve(self, start: int, stop: int, values: FloatArray) -> None:
        """Write the weights of the candidates from ``start`` to ``stop``."""
        stop = min(stop, len(self.indptr) - 1)
        system = np.zeros((stop - start, self.width, self.width), np.float32)
        goal = np.zeros((stop - start, self.width, 1), np.float32)
        common = self.common
        _gather_systems(
            start, common.indptr, common.indices, common.data, self.indptr, self.near,
            self.penalty, system, goal,
        )  # fmt: skip
        weights = np.linalg.solve(system, goal)[:, :, 0]
        size = np.diff(self.indptr[start : stop + 1])
        filled = np.arange(self.width)[None, :] < size[:, None]
        values[self.indptr[start] : self.indptr[stop]] = weights[filled]


@numba.njit(cache=True, nogil=True)
def _gather_systems(start, c_indptr, c_indices, c_data, indptr, near, penalty, system, goal):  # type: ignore[no-untyped-def]
    slot = np.full(len(indptr), -1, np.int32)
    for row in range(len(system)):
        item = start + row
        low, high = indptr[item], indptr[item + 1]
        for place in range(low, high):
            slot[near[place]] = place - low
        for place in range(low, high):
            other = near[place]
            for entry in range(c_indptr[other], c_indptr[other + 1]):
                at = slot[c_indices[entry]]
                if at >= 0:
                    system[row, place - low, at] = c_data[entry]
                elif c_indices[entry] == item:
                    goal[row, place - low, 0] = c_data[entry]
            system[row, place - low, place - low] += penalty
        for place in range(high - low, system.shape[1]):
            system[row, place, place] = 1.0
        for place in range(low, high):
            slot[near[place]] = -1
