"""Sequences in closed form: the next items, regressed on the items before.

SLIT of Choi, Kim, Lee, Shim, Lee: "Session-aware Linear Item-Item Models for Session-based
Recommendation", WWW 2021, section 3.3: with X the histories before every step of every sequence
and Y the items after, each item fading with its distance from the step, ``B = (XᵀX + λI)⁻¹ XᵀY``.
Each column is solved on the m candidates that precede it most, as in ``ease``. The score of a
candidate is ``Σ_{i in history} decay^(position from the end) · B(i, c)``.
Cost: one pass over pairs of items at most ``window`` steps apart, then O(N m³).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from nextedge.graph.csr import Graph
from nextedge.graph.propagate import SparseRows
from nextedge.models._local_ridge import by_history, local_ridge
from nextedge.models.artifact import Artifact
from nextedge.models.model import Model, ModelConfig, ModelProgress, TrainingData
from nextedge.types import ENGAGES

if TYPE_CHECKING:
    from scipy import sparse


class SlistConfig(ModelConfig):
    """Settings of the regression."""

    neighbors: int = Field(150, ge=1)
    """m: candidates that each candidate is regressed on."""
    penalty: float = Field(15.0, gt=0)
    """λ: L2 penalty on the weights, in multiples of the mean of XᵀX's diagonal."""
    window: int = Field(20, ge=1)
    """Items before and after a step that count."""
    decay: float = Field(0.7, gt=0, le=1)
    """Weight of an item relative to the one a step nearer."""
    query_exponent: float = Field(0.4, ge=0)
    """Exponent by which a query's weight falls with its edges."""


class Slist(Model[SlistConfig]):
    """Sparse weights from items of a history to candidates."""

    name = "slist"
    relations = (ENGAGES,)
    reason = "because_you_liked"
    enabled = True
    needs_times = True

    def fit(self, data: TrainingData, config: SlistConfig, progress: ModelProgress) -> Artifact:
        """Solve every candidate's regression.

        Raises:
            TrainingError: the graph has no edge.
        """
        graph = self.learnable(data)
        before, after = _steps(graph, config)
        gram = (before.T.tocsr() @ before).tocsr()
        forward = (after.T.tocsr() @ before).tocsr()  # row j: what precedes candidate j
        near = _most_preceding(forward, gram.diagonal(), config.neighbors)
        seen = int((graph.target_degree > 0).sum())
        penalty = config.penalty * float(gram.diagonal().sum()) / max(seen, 1)
        tell = partial(progress, "slist regressions")
        values = local_ridge(gram, forward, near, penalty, tell)
        arrays = {**by_history(near, values), "decay": np.array(config.decay)}
        return Artifact.of_graph(self.name, config, graph, data.seed, arrays)


def _steps(graph: Graph, config: SlistConfig) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
    """Steps × items, twice: the items before and after each step, fading with distance."""
    from scipy import sparse

    row = np.repeat(np.arange(len(graph)), graph.degree)
    # Edges of one time are ordered by id, so that a graph has one sequence.
    order = np.lexsort((graph.indices, graph.last, row))
    item, row = graph.indices[order], row[order]
    # The root, since both Gram matrices multiply two weighted rows.
    weight = np.sqrt(np.maximum(graph.degree, 1).astype(np.float64) ** -config.query_exponent)
    steps = len(item)
    entries: tuple[list[tuple[np.ndarray, ...]], ...] = ([], [])  # (step, item, weight) each
    for distance in range(config.window):
        fade = config.decay**distance
        step = np.arange(distance + 1, steps)  # step s lies between item s - 1 and item s
        # Neighbours in the array may belong to another query's history.
        step = step[row[step - 1 - distance] == row[step]]
        entries[0].append((step, item[step - 1 - distance], fade * weight[row[step]]))
        step = np.arange(1, steps - distance)
        step = step[(row[step + distance] == row[step]) & (row[step - 1] == row[step])]
        entries[1].append((step, item[step + distance], fade * weight[row[step]]))
    before, after = (
        sparse.csr_matrix((values.astype(np.float32), (rows, columns)), (steps, graph.targets))
        for rows, columns, values in (
            map(np.concatenate, zip(*parts, strict=True)) for parts in entries
        )
    )
    return before, after


def _most_preceding(forward: sparse.csr_matrix, diagonal: np.ndarray, neighbors: int) -> SparseRows:
    """The candidates that precede each candidate most, relative to how often they precede any."""
    scale = 1.0 / np.sqrt(np.maximum(diagonal, 1e-12))
    counts = np.diff(forward.indptr)
    row = np.repeat(np.arange(forward.shape[0]), counts)
    strength = forward.data * scale[forward.indices]
    order = np.lexsort((-strength, row))
    rank = np.arange(len(order)) - np.repeat(forward.indptr[:-1].astype(np.int64), counts)
    best = order[rank < neighbors]
    indptr = np.concatenate(([0], np.cumsum(np.minimum(counts, neighbors))))
    indices = forward.indices[best].astype(np.int32)
    return SparseRows(indptr, indices, strength[best].astype(np.float32), forward.shape[0])
