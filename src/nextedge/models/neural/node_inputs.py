"""Inputs of every node for networks over graphs, and the edges that carry messages.

A network must not read its labels off its input: the edges to predict leave the graph before
messages, degrees and spectral inputs are made from it. These are the latest share where edges
carry times, a random share elsewhere (Zhu et al.: "Pitfalls in Link Prediction with Graph Neural
Networks", 2024).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from nextedge.graph.aggregate import Neighbors, neighbor_means
from nextedge.graph.csr import Graph, build_graph
from nextedge.models.artifact import arrays_below
from nextedge.models.inference import IN_PROCESS, Inference, Layer
from nextedge.models.model import ModelConfig, TrainingData
from nextedge.models.neural.full_ranking import Edges
from nextedge.models.neural.losses import EdgeLoss, edge_loss
from nextedge.models.neural.negatives import CurriculumConfig
from nextedge.models.neural.trainer import TrainerConfig
from nextedge.models.spectral import Normalised, decompose
from nextedge.types import FloatArray, IntArray

if TYPE_CHECKING:
    from torch import Tensor

Inputs = Mapping[str, FloatArray]
"""float32[N, F] of each kind of node."""


class GraphSageConfig(ModelConfig):
    """Settings of the network and its training."""

    hidden: int = Field(256, ge=1)
    dimensions: int = Field(128, ge=1)
    fanout: int = Field(10, ge=1)
    dropout: float = Field(0.3, ge=0, lt=1)
    loss: EdgeLoss = "in_batch"
    """Softmax over the candidates of a batch, binary cross-entropy, or the triplet margin."""
    temperature: float = Field(0.07, gt=0)
    """Divides cosines in ``in_batch`` and ``bce``."""
    margin: float = Field(0.2, gt=0)
    """Cosine by which ``triplet`` wants an edge above its hardest negative."""
    spectral: int = Field(128, ge=0)
    """Spectral inputs of each node, beside its features and degrees."""
    predicted_share: float = Field(0.3, gt=0, lt=1)
    """Share of the edges that leave the graph and are predicted."""
    validation_share: float = Field(0.15, gt=0, lt=1)
    """Share of those that decides when to stop."""
    messages: Literal["predicted", "others", "both"] = "both"
    """Relations whose edges carry messages: the predicted one, the others, or both."""
    expansion: float = Field(1.5, ge=0)
    """Weight of the neighbours' mean beside the vector of a query, for people; 0 turns it off."""
    trainer: TrainerConfig = TrainerConfig(learning_rate=5e-4)
    curriculum: CurriculumConfig = CurriculumConfig()


def edge_loss_of(config: GraphSageConfig) -> Callable[..., Tensor]:
    """The loss of the settings: see ``edge_loss``."""
    return partial(edge_loss, config.loss, temperature=config.temperature, margin=config.margin)


@dataclass(frozen=True)
class Messages:
    """Edges along which nodes of kind ``out_of`` send messages to nodes of kind ``into``."""

    into: str
    out_of: str
    graph: Graph


def split_edges(data: TrainingData, config: GraphSageConfig) -> tuple[Graph, Edges, Edges]:
    """The graph without the edges to predict, and those for training and for validation."""
    graph = data.graph
    source = np.repeat(np.arange(len(graph), dtype=np.int32), graph.degree)
    target, first = np.asarray(graph.indices), np.asarray(graph.first)
    # Both directions of a pair fall on one side of the split: one would tell the other's label.
    once = source < target if data.relation.symmetric else np.ones(len(source), bool)
    source, target, first = source[once], target[once], first[once]
    shuffled = np.random.default_rng(data.seed).permutation(len(source))
    # An edge without a time has 0, and would count as the oldest.
    timed = len(first) > 0 and float((first > 0).mean()) > 0.99
    # Edges of one time are split at random, not by id.
    order = shuffled[np.argsort(first[shuffled], kind="stable")] if timed else shuffled
    predicted = int(len(order) * config.predicted_share)
    validating = int(predicted * config.validation_share)
    parts = np.split(order, [len(order) - predicted, len(order) - validating])
    sides = [(source[part], target[part]) for part in parts]
    if data.relation.symmetric:
        sides = [(np.concatenate(side), np.concatenate(side[::-1])) for side in sides]
    messages, training, validation = sides
    return build_graph(*messages, len(graph), graph.targets), training, validation


def messages_of(data: TrainingData, graph: Graph, config: GraphSageConfig) -> list[Messages]:
    """The relations whose edges carry messages.

    Args:
        graph: edges of the predicted relation that carry messages.
    """
    self_typed = data.relation.self_typed
    messages = []
    if config.messages != "others":
        if self_typed:
            messages.append(Messages("query", "query", graph))
        else:
            messages.append(Messages("query", "candidate", graph))
            messages.append(Messages("candidate", "query", graph.reverse))
    if config.messages != "predicted":
        # The weights have a block of columns for each relation, in this order.
        for name, other in sorted(data.others.items()):
            if other.edges == 0:
                continue
            if self_typed and name == "engagements":
                messages.append(Messages("query", "item", other))
                messages.append(Messages("item", "query", other.reverse))
            elif name == "connections":
                messages.append(Messages("query", "query", other))
    return messages


@dataclass(frozen=True)
class InputTransform:
    """Spectral bases and scaling of the training's inputs, applied to those of any graph."""

    basis: dict[str, tuple[FloatArray, FloatArray]]
    center: dict[str, FloatArray]
    scale: dict[str, FloatArray]

    def arrays(self) -> dict[str, FloatArray]:
        """All arrays by name, for the model's artifact."""
        arrays = {f"center.{kind}": values for kind, values in self.center.items()}
        arrays |= {f"scale.{kind}": values for kind, values in self.scale.items()}
        for name, (left, right) in self.basis.items():
            arrays |= {f"basis_into.{name}": left, f"basis_out_of.{name}": right}
        return arrays

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray]) -> InputTransform:
        """The transform whose ``arrays`` these are."""
        into, out_of = arrays_below(arrays, "basis_into."), arrays_below(arrays, "basis_out_of.")
        basis = {name: (into[name], out_of[name]) for name in into}
        return cls(basis, arrays_below(arrays, "center."), arrays_below(arrays, "scale."))


def fit_inputs(
    data: TrainingData, messages: list[Messages], config: GraphSageConfig
) -> InputTransform:
    """Fit bases and scaling to the graph of a training."""
    basis = {}
    for part in messages:
        # The reverse relation has the same vectors, with sides swapped.
        if config.spectral and f"{part.out_of}-{part.into}" not in basis and part.graph.edges:
            left, _, right = decompose(part.graph, config.spectral, seed=data.seed)
            basis[f"{part.into}-{part.out_of}"] = left, right
    raw = {
        kind: np.concatenate([part.rows(0, len(part)) for part in columns], axis=1)
        for kind, columns in _columns(data, messages, basis).items()
    }
    center = {kind: x.mean(axis=0) for kind, x in raw.items()}
    # A constant column has deviation 0.
    scale = {kind: 1.0 / np.maximum(x.std(axis=0), 1e-3) for kind, x in raw.items()}
    return InputTransform(basis, center, scale)


def node_inputs(
    data: TrainingData,
    messages: list[Messages],
    transform: InputTransform,
    inference: Inference = IN_PROCESS,
) -> Inputs:
    """float32[N, F] of each kind: features, log degrees, spectral vectors; normalised."""
    center, scale = transform.center, transform.scale
    return {
        kind: inference.run(f"inputs-{kind}", InputRows(tuple(parts), center[kind], scale[kind]))
        for kind, parts in _columns(data, messages, transform.basis).items()
    }


@dataclass(frozen=True, eq=False)
class Features:
    """Features of nodes, float32[N, F]; missing values read as 0."""

    values: FloatArray

    def __len__(self) -> int:
        return len(self.values)

    def rows(self, start: int, stop: int) -> FloatArray:
        """float32[stop - start, F]."""
        # Columns are normalised, so that 0 is their mean.
        return np.nan_to_num(self.values[start:stop])


@dataclass(frozen=True, eq=False)
class LogDegrees:
    """The logarithm of 1 + neighbours of each node; ``indptr`` is int64[N + 1]."""

    indptr: IntArray

    def __len__(self) -> int:
        return len(self.indptr) - 1

    def rows(self, start: int, stop: int) -> FloatArray:
        """float64[stop - start, 1]."""
        return np.log1p(np.diff(self.indptr[start : stop + 1]))[:, None]


@dataclass(frozen=True, eq=False)
class Projected:
    """Rows of a normalised adjacency times a basis, float32[M, d]."""

    adjacency: Normalised
    basis: FloatArray

    def __len__(self) -> int:
        return len(self.adjacency)

    def rows(self, start: int, stop: int) -> FloatArray:
        """float32[stop - start, d]."""
        return np.asarray(self.adjacency.matrix(start, stop) @ self.basis)


Columns = Features | LogDegrees | Projected


@dataclass(frozen=True, eq=False)
class InputRows(Layer):
    """Inputs of the nodes of one kind, scaled as those of the training."""

    columns: tuple[Columns, ...]
    center: FloatArray
    scale: FloatArray

    def __len__(self) -> int:
        return len(self.columns[0])

    def rows(self, start: int, stop: int) -> FloatArray:
        """float32[stop - start, F]."""
        raw = np.concatenate([part.rows(start, stop) for part in self.columns], axis=1)
        return np.clip((raw - self.center) * self.scale, -8, 8).astype(np.float32)


def _columns(
    data: TrainingData, messages: list[Messages], basis: Mapping[str, tuple[FloatArray, FloatArray]]
) -> dict[str, list[Columns]]:
    columns: dict[str, list[Columns]] = {"query": [], "candidate": []}
    if data.query_features is not None:
        columns["query"].append(Features(data.query_features))
    if data.candidate_features is not None and not data.relation.self_typed:
        columns["candidate"].append(Features(data.candidate_features))
    for part in messages:
        columns.setdefault(part.into, []).append(LogDegrees(part.graph.indptr))
        bases = basis.get(f"{part.into}-{part.out_of}")
        if bases is not None:
            # Projections on the basis of the training graph: the spectral vectors of a larger
            # graph, and of new nodes, lie in the space that the network was trained on.
            columns[part.into].append(Projected(Normalised.of(part.graph), bases[1]))
            if part.out_of != part.into:
                other = Projected(Normalised.reversed_of(part.graph), bases[0])
                columns.setdefault(part.out_of, []).append(other)
    return {kind: parts for kind, parts in columns.items() if parts}


@dataclass(frozen=True, eq=False)
class NeighborVectors:
    """The neighbours of N nodes among M nodes of one kind, and the vectors of these.

    Attributes:
        neighbors: N rows over M columns.
        x: float32[M, d].
    """

    neighbors: Neighbors
    x: FloatArray


@dataclass(frozen=True, eq=False)
class Neighborhood:
    """Vectors of the nodes of one kind, float32[N, d], and of their neighbours by relation."""

    x: FloatArray
    neighbors: tuple[NeighborVectors, ...]

    @classmethod
    def of(cls, kind: str, x: Inputs, messages: list[Messages]) -> Neighborhood:
        """The neighbourhood of the nodes of a kind, from the vectors of all kinds."""
        into = [part for part in messages if part.into == kind]
        neighbors = (NeighborVectors(Neighbors.of(part.graph), x[part.out_of]) for part in into)
        return cls(x[kind], tuple(neighbors))

    def __len__(self) -> int:
        return len(self.x)

    def rows(self, start: int, stop: int) -> list[FloatArray]:
        """float32[stop - start, …] each: the nodes' vectors, then the mean of every relation."""
        means = [neighbor_means(part.neighbors, part.x, start, stop) for part in self.neighbors]
        return [self.x[start:stop], *means]


def with_neighbor_means(x: Inputs, messages: list[Messages]) -> dict[str, FloatArray]:
    """The vector of each node beside the means over its neighbours, by relation."""
    return {
        kind: np.concatenate(Neighborhood.of(kind, x, messages).rows(0, len(values)), axis=1)
        for kind, values in x.items()
    }
