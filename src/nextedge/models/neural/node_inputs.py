"""What networks over graphs read: the edges kept for messages, and the inputs of every node.

What is learned must not be read off the input: the edges to predict are taken out of the graph
before messages, degrees and spectral inputs are made from it (the latest share where edges carry
times, a random one elsewhere; Zhu et al.: "Pitfalls in Link Prediction with Graph Neural
Networks", 2024).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field

from nextedge.graph.aggregate import Neighbors, neighbor_means
from nextedge.graph.csr import Graph, build_graph
from nextedge.models.inference import IN_PROCESS, Inference, Layer
from nextedge.models.model import ModelConfig, TrainingData
from nextedge.models.neural.negatives import CurriculumConfig
from nextedge.models.neural.trainer import TrainerConfig
from nextedge.models.spectral import Normalised, decompose
from nextedge.types import FloatArray, IndexArray, IntArray


class GraphSageConfig(ModelConfig):
    """Settings of the network and its training."""

    hidden: int = Field(256, ge=1)
    dimensions: int = Field(128, ge=1)
    fanout: int = Field(10, ge=1)
    dropout: float = Field(0.3, ge=0, lt=1)
    temperature: float = Field(0.07, gt=0)
    spectral: int = Field(128, ge=0)
    """Spectral inputs of each node, beside its features and degrees."""
    predicted_share: float = Field(0.3, gt=0, lt=1)
    """Edges taken out of the graph, to be predicted."""
    validation_share: float = Field(0.15, gt=0, lt=1)
    """Share of those that decides when to stop."""
    messages: Literal["predicted", "others", "both"] = "both"
    """Relations whose edges carry messages: the predicted one, the others, or both."""
    expansion: float = Field(1.5, ge=0)
    """Weight of the mean of a query's neighbours beside its own vector, for people; 0 = off."""
    trainer: TrainerConfig = TrainerConfig(learning_rate=5e-4)
    curriculum: CurriculumConfig = CurriculumConfig()


@dataclass(frozen=True)
class Messages:
    """Edges along which nodes of kind ``into`` hear from nodes of kind ``out_of``."""

    into: str
    out_of: str
    graph: Graph


Inputs = Mapping[str, FloatArray]


def take_out(
    data: TrainingData, config: GraphSageConfig
) -> tuple[Graph, tuple[IndexArray, IndexArray], tuple[IndexArray, IndexArray]]:
    """The graph without the edges to predict, those to train on, and those to validate on."""
    graph = data.graph
    source = np.repeat(np.arange(len(graph), dtype=np.int32), graph.degree)
    target, first = np.asarray(graph.indices), np.asarray(graph.first)
    once = source < target if data.relation.symmetric else np.ones(len(source), bool)
    source, target, first = source[once], target[once], first[once]
    shuffled = np.random.default_rng(data.seed).permutation(len(source))
    timed = len(first) > 0 and float((first > 0).mean()) > 0.99
    order = shuffled[np.argsort(first[shuffled], kind="stable")] if timed else shuffled
    predicted = int(len(order) * config.predicted_share)
    held = int(predicted * config.validation_share)
    parts = np.split(order, [len(order) - predicted, len(order) - held])
    kept, training, validation = ((source[part], target[part]) for part in parts)
    if data.relation.symmetric:
        both = np.concatenate(kept), np.concatenate(kept[::-1])
        training = np.concatenate(training), np.concatenate(training[::-1])
        validation = np.concatenate(validation), np.concatenate(validation[::-1])
    else:
        both = kept
    return build_graph(*both, len(graph), graph.targets), training, validation


def messages_of(data: TrainingData, graph: Graph, config: GraphSageConfig) -> list[Messages]:
    own = data.relation.self_typed
    found = []
    if config.messages != "others":
        if own:
            found.append(Messages("query", "query", graph))
        else:
            found.append(Messages("query", "candidate", graph))
            found.append(Messages("candidate", "query", graph.reverse))
    if config.messages != "predicted":
        for name, other in sorted(data.others.items()):
            if other.edges == 0:
                continue
            if own and name == "engagements":
                found.append(Messages("query", "item", other))
                found.append(Messages("item", "query", other.reverse))
            elif name == "connections":
                found.append(Messages("query", "query", other))
    return found


@dataclass(frozen=True)
class Preparation:
    """How inputs are made of any graph as they were of the training's: bases and scaling."""

    basis: dict[str, tuple[FloatArray, FloatArray]]
    center: dict[str, FloatArray]
    scale: dict[str, FloatArray]

    def arrays(self) -> dict[str, FloatArray]:
        """All of it by name, to be kept with the model."""
        found = {f"center.{kind}": values for kind, values in self.center.items()}
        found |= {f"scale.{kind}": values for kind, values in self.scale.items()}
        for name, (left, right) in self.basis.items():
            found |= {f"basis_into.{name}": left, f"basis_out_of.{name}": right}
        return found

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray]) -> Preparation:
        """What ``arrays`` kept."""

        def named(prefix: str) -> dict[str, FloatArray]:
            return {n[len(prefix) :]: v for n, v in arrays.items() if n.startswith(prefix)}

        into, out_of = named("basis_into."), named("basis_out_of.")
        basis = {name: (into[name], out_of[name]) for name in into}
        return cls(basis, named("center."), named("scale."))


def prepare(data: TrainingData, messages: list[Messages], config: GraphSageConfig) -> Preparation:
    basis = {}
    for part in messages:
        if config.spectral and f"{part.out_of}-{part.into}" not in basis and part.graph.edges:
            left, _, right = decompose(part.graph, config.spectral, seed=data.seed)
            basis[f"{part.into}-{part.out_of}"] = left, right
    raw = {
        kind: _beside([part.rows(0, len(part)) for part in columns])
        for kind, columns in _columns(data, messages, basis).items()
    }
    center = {kind: x.mean(axis=0) for kind, x in raw.items()}
    scale = {kind: 1.0 / np.maximum(x.std(axis=0), 1e-3) for kind, x in raw.items()}
    return Preparation(basis, center, scale)


def node_inputs(
    data: TrainingData,
    messages: list[Messages],
    prepared: Preparation,
    inference: Inference = IN_PROCESS,
) -> Inputs:
    """float32[N, F] of each kind: features, log degrees, spectral vectors; normalised."""
    return {
        kind: inference.run(
            f"inputs-{kind}", InputRows(tuple(columns), prepared.center[kind], prepared.scale[kind])
        )
        for kind, columns in _columns(data, messages, prepared.basis).items()
    }


@dataclass(frozen=True, eq=False)
class Features:
    """What is known of nodes, float32[N, F]; 0 where it is not."""

    values: FloatArray

    def __len__(self) -> int:
        return len(self.values)

    def rows(self, start: int, stop: int) -> FloatArray:
        """float32[stop - start, F]."""
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
    """Inputs of the nodes of one kind, scaled as those of the training's were."""

    columns: tuple[Columns, ...]
    center: FloatArray
    scale: FloatArray

    def __len__(self) -> int:
        return len(self.columns[0])

    def rows(self, start: int, stop: int) -> FloatArray:
        """float32[stop - start, F]."""
        raw = _beside([part.rows(start, stop) for part in self.columns])
        return np.clip((raw - self.center) * self.scale, -8, 8).astype(np.float32)


def _columns(
    data: TrainingData, messages: list[Messages], basis: Mapping[str, tuple[FloatArray, FloatArray]]
) -> dict[str, list[Columns]]:
    """Spectral vectors are projections on the training graph's basis, so that those of a
    larger graph, or of a node that is new, lie in the same space.
    """
    columns: dict[str, list[Columns]] = {"query": [], "candidate": []}
    if data.query_features is not None:
        columns["query"].append(Features(data.query_features))
    if data.candidate_features is not None and not data.relation.self_typed:
        columns["candidate"].append(Features(data.candidate_features))
    for part in messages:
        columns.setdefault(part.into, []).append(LogDegrees(part.graph.indptr))
        found = basis.get(f"{part.into}-{part.out_of}")
        if found is not None:
            columns[part.into].append(Projected(Normalised.of(part.graph), found[1]))
            if part.out_of != part.into:
                other = Projected(Normalised.reversed_of(part.graph), found[0])
                columns.setdefault(part.out_of, []).append(other)
    return {kind: parts for kind, parts in columns.items() if parts}


@dataclass(frozen=True, eq=False)
class Heard:
    """What nodes hear from those of one kind.

    Attributes:
        neighbors: N nodes over M of the other kind.
        x: float32[M, d], vectors of those.
    """

    neighbors: Neighbors
    x: FloatArray


@dataclass(frozen=True, eq=False)
class Neighborhood:
    """Vectors of the nodes of one kind, float32[N, d], and what these hear, relation by relation."""

    own: FloatArray
    heard: tuple[Heard, ...]

    @classmethod
    def of(cls, kind: str, x: Inputs, messages: list[Messages]) -> Neighborhood:
        """Of the nodes of a kind, from the vectors of all kinds."""
        heard = [
            Heard(Neighbors.of(part.graph), x[part.out_of])
            for part in messages
            if part.into == kind
        ]
        return cls(x[kind], tuple(heard))

    def __len__(self) -> int:
        return len(self.own)

    def rows(self, start: int, stop: int) -> list[FloatArray]:
        """float32[stop - start, …] each: own vectors, then a mean for every relation."""
        means = [neighbor_means(part.neighbors, part.x, start, stop) for part in self.heard]
        return [self.own[start:stop], *means]


def with_means(x: Inputs, messages: list[Messages]) -> dict[str, FloatArray]:
    """Each node's vector beside the means over its neighbours, relation by relation."""
    return {
        kind: _beside(Neighborhood.of(kind, x, messages).rows(0, len(values)))
        for kind, values in x.items()
    }


def _beside(parts: list[FloatArray]) -> FloatArray:
    return np.concatenate(parts, axis=1)
