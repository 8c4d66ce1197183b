"""GraphSAGE: inductive node embeddings from features and neighbourhoods.

Hamilton, Ying, Leskovec: "Inductive Representation Learning on Large Graphs", NeurIPS 2017:
two layers, each a linear map of the node's own vector beside the mean of its neighbours', one
mean for every relation, with batch norm and ReLU; outputs of unit length. Nodes of one kind
(people) or two (people and items), joined by any of the tenant's relations.

What is learned must not be read off the input: the edges to predict are taken out of the graph
before messages, degrees and spectral inputs are made from it (the latest share where edges carry
times, a random one elsewhere; Zhu et al.: "Pitfalls in Link Prediction with Graph Neural
Networks", 2024). The first layer's means are over all neighbours, made once, since inputs do not
change; the second's over a sample, new in every batch. Embeddings of all nodes are then made
layer by layer over the whole graph, in O(E · d), with NumPy alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from nextedge.errors import TooLittleDataError, TrainingError
from nextedge.graph.aggregate import neighbor_means
from nextedge.graph.csr import Graph, build_graph
from nextedge.graph.sampler import sample_neighbors
from nextedge.models.artifact import Artifact
from nextedge.models.losses import log_frequency, sampled_softmax, scores_of_drawn
from nextedge.models.model import Model, ModelConfig, ModelProgress, TrainingData
from nextedge.models.negatives import CurriculumConfig, Negatives
from nextedge.models.quality import full_ranking_ndcg
from nextedge.models.spectral import decompose, normalised_adjacency
from nextedge.models.trainer import (
    EdgeBatch,
    Task,
    TrainerConfig,
    edge_batches,
    import_torch,
    train,
    training_facts,
)
from nextedge.types import FloatArray, IndexArray

if TYPE_CHECKING:
    from torch import Tensor, nn

_CHUNK = 1 << 16
_SMALLEST_BATCH = 256
FEWEST_EDGES = 200
"""Edges to predict below which nothing can be learned and told from chance."""


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
class _Messages:
    """Edges along which nodes of kind ``into`` hear from nodes of kind ``out_of``."""

    into: str
    out_of: str
    graph: Graph


Inputs = Mapping[str, FloatArray]


class GraphSage(Model):
    """Embeddings whose dot product is the cosine that the network learned."""

    name = "graphsage"
    config_class = GraphSageConfig
    extra = "train"
    trained = True
    inductive = True

    def fit(self, data: TrainingData, config: ModelConfig, progress: ModelProgress) -> Artifact:
        """Train on the edges taken out, then embed all nodes over the whole graph.

        Raises:
            TooLittleDataError: too few edges.
            TrainingError: no edge carries messages, or the training diverged.
            MissingDependencyError: torch is not installed.
        """
        assert isinstance(config, GraphSageConfig)
        torch = import_torch(self.name)
        kept, training, validation = take_out(data, config)
        if len(training[0]) < FEWEST_EDGES:
            raise TooLittleDataError(
                f"graphsage: {len(training[0])} edges to learn from, expected {FEWEST_EDGES} or more"
            )
        messages = messages_of(data, kept, config)
        if not messages:
            raise TrainingError(
                f"graphsage: no edges carry messages (messages = {config.messages!r}); "
                "give the tables of other relations, or take messages = 'predicted'"
            )
        prepared = prepare(data, messages, config)
        inputs = node_inputs(data, messages, prepared)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(data.seed)
            module = _module(inputs, messages, config)
            task = _task(module, data, kept, messages, inputs, training, validation, config)
            log = train(
                task,
                config.trainer,
                facts=training_facts(self.name, config, data),
                directory=data.directory,
                progress=progress,
            )
        weights = {
            name: value.detach().cpu().numpy() for name, value in module.state_dict().items()
        }
        arrays = {f"weight.{name}": value for name, value in weights.items()}
        about = {"seed": data.seed, "log": log.to_json()}
        fitted = Artifact(
            self.name, config.model_dump(mode="json"), {**arrays, **prepared.arrays()}, about
        )
        return self.embed(fitted, data)

    def embed(self, artifact: Artifact, data: TrainingData) -> Artifact:
        config = GraphSageConfig.model_validate(artifact.config)
        messages = messages_of(data, data.graph, config)
        inputs = node_inputs(data, messages, Preparation.of(artifact.arrays))
        weights = {
            name.removeprefix("weight."): values
            for name, values in artifact.arrays.items()
            if name.startswith("weight.")
        }
        vectors = embed_all(weights, inputs, messages)
        query = vectors["query"]
        own = data.relation.self_typed
        made = {"query": query, "candidate": query if own else vectors["candidate"]}
        if own and config.expansion:
            made["query"] = expanded(query, data.graph, config.expansion)
        return Artifact(self.name, artifact.config, {**artifact.arrays, **made}, artifact.about)


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


def messages_of(data: TrainingData, graph: Graph, config: GraphSageConfig) -> list[_Messages]:
    own = data.relation.self_typed
    found = []
    if config.messages != "others":
        if own:
            found.append(_Messages("query", "query", graph))
        else:
            found.append(_Messages("query", "candidate", graph))
            found.append(_Messages("candidate", "query", graph.reverse))
    if config.messages != "predicted":
        for name, other in sorted(data.others.items()):
            if other.edges == 0:
                continue
            if own and name == "engagements":
                found.append(_Messages("query", "item", other))
                found.append(_Messages("item", "query", other.reverse))
            elif name == "connections":
                found.append(_Messages("query", "query", other))
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


def prepare(data: TrainingData, messages: list[_Messages], config: GraphSageConfig) -> Preparation:
    basis = {}
    for part in messages:
        if config.spectral and f"{part.out_of}-{part.into}" not in basis and part.graph.edges:
            left, _, right = decompose(part.graph, config.spectral, seed=data.seed)
            basis[f"{part.into}-{part.out_of}"] = left, right
    raw = _raw_inputs(data, messages, basis)
    center = {kind: x.mean(axis=0) for kind, x in raw.items()}
    scale = {kind: 1.0 / np.maximum(x.std(axis=0), 1e-3) for kind, x in raw.items()}
    return Preparation(basis, center, scale)


def node_inputs(data: TrainingData, messages: list[_Messages], prepared: Preparation) -> Inputs:
    """float32[N, F] of each kind: features, log degrees, spectral vectors; normalised."""
    raw = _raw_inputs(data, messages, prepared.basis)
    return {
        kind: np.clip((x - prepared.center[kind]) * prepared.scale[kind], -8, 8).astype(np.float32)
        for kind, x in raw.items()
    }


def _raw_inputs(
    data: TrainingData,
    messages: list[_Messages],
    basis: Mapping[str, tuple[FloatArray, FloatArray]],
) -> dict[str, FloatArray]:
    """Spectral vectors are projections on the training graph's basis, so that those of a
    larger graph, or of a node that is new, lie in the same space.
    """
    columns: dict[str, list[FloatArray]] = {"query": [], "candidate": []}
    if data.query_features is not None:
        columns["query"].append(np.nan_to_num(data.query_features))
    if data.candidate_features is not None and not data.relation.self_typed:
        columns["candidate"].append(np.nan_to_num(data.candidate_features))
    for part in messages:
        columns.setdefault(part.into, []).append(np.log1p(part.graph.degree)[:, None])
        found = basis.get(f"{part.into}-{part.out_of}")
        if found is not None:
            normalised = normalised_adjacency(part.graph)
            columns[part.into].append(np.asarray(normalised @ found[1]))
            if part.out_of != part.into:
                columns.setdefault(part.out_of, []).append(np.asarray(normalised.T @ found[0]))
    return {kind: np.concatenate(parts, axis=1) for kind, parts in columns.items() if parts}


def with_means(x: Inputs, messages: list[_Messages]) -> dict[str, FloatArray]:
    """Each node's vector beside the means over its neighbours, relation by relation."""
    out = {kind: [values] for kind, values in x.items()}
    for part in messages:
        out[part.into].append(neighbor_means(part.graph, x[part.out_of]))
    return {kind: np.concatenate(parts, axis=1) for kind, parts in out.items()}


def _module(inputs: Inputs, messages: list[_Messages], config: GraphSageConfig) -> nn.Module:
    from torch import nn

    heard = {kind: [part.out_of for part in messages if part.into == kind] for kind in inputs}
    layers = nn.ModuleDict()
    for kind, x in inputs.items():
        width = x.shape[1] + sum(inputs[other].shape[1] for other in heard[kind])
        second = config.hidden * (1 + len(heard[kind]))
        layers[kind] = nn.ModuleDict(
            {
                "first": nn.Linear(width, config.hidden),
                "norm": nn.BatchNorm1d(config.hidden),
                "second": nn.Linear(second, config.dimensions),
            }
        )
    return layers


class _Forward:
    """Embeddings of a batch's nodes, sampling the neighbours of the second layer."""

    def __init__(
        self, module: Any, messages: list[_Messages], inputs: Inputs, config: GraphSageConfig
    ) -> None:
        import torch

        self.module, self.messages, self.config = module, messages, config
        self.inputs = {
            kind: torch.from_numpy(x) for kind, x in with_means(inputs, messages).items()
        }

    def __call__(self, nodes: dict[str, IndexArray], seed: int) -> dict[str, Tensor]:
        """Unit vectors [n, d] of the given distinct nodes of each kind."""
        import torch
        from torch.nn.functional import dropout, embedding_bag, normalize, relu

        sampled = [
            (part, *sample_neighbors(part.graph, nodes[part.into], self.config.fanout, seed + at))
            for at, part in enumerate(self.messages)
            if part.into in nodes
        ]
        needed: dict[str, list[IndexArray]] = {kind: [own] for kind, own in nodes.items()}
        for part, _, neighbors in sampled:
            needed.setdefault(part.out_of, []).append(neighbors)
        hidden, place = {}, {}
        for kind, parts in needed.items():
            rows = np.unique(np.concatenate(parts))
            place[kind] = rows
            layer = self.module[kind]
            x = self.inputs[kind][torch.from_numpy(rows.astype(np.int64))]
            h = relu(layer["norm"](layer["first"](x)))
            hidden[kind] = dropout(h, self.config.dropout, self.module.training)
        out = {}
        for kind, own in nodes.items():
            at = torch.from_numpy(np.searchsorted(place[kind], own))
            near = [hidden[kind][at]]
            for part, indptr, neighbors in sampled:
                if part.into == kind:
                    flat = torch.from_numpy(np.searchsorted(place[part.out_of], neighbors))
                    offsets = torch.from_numpy(indptr[:-1])
                    near.append(embedding_bag(flat, hidden[part.out_of], offsets, mode="mean"))
            out[kind] = normalize(self.module[kind]["second"](torch.cat(near, dim=1)), dim=1)
        return out


def _task(
    module: Any,
    data: TrainingData,
    kept: Graph,
    messages: list[_Messages],
    inputs: Inputs,
    training: tuple[IndexArray, IndexArray],
    validation: tuple[IndexArray, IndexArray],
    config: GraphSageConfig,
) -> Task:
    import torch

    forward = _Forward(module, messages, inputs, config)
    own = data.relation.self_typed
    size = batch_size(config.trainer.batch, len(training[0]))
    frequency = log_frequency(training[1], data.graph.targets)
    negatives = Negatives(data.graph, config.curriculum)

    side = "query" if own else "candidate"

    def embed_now() -> tuple[FloatArray, FloatArray]:
        weights = {name: value.detach().numpy() for name, value in module.state_dict().items()}
        found = embed_all(weights, inputs, messages)
        return found["query"], found[side]

    def loss(batch: EdgeBatch, done: float) -> Tensor:
        seed, source, target = batch
        drawn = negatives.draw(source, seed, done, embed_now, data.seed)
        wanted = [target, drawn.ravel()]
        if own:
            nodes = {"query": np.unique(np.concatenate([source, *wanted]))}
        else:
            nodes = {"query": np.unique(source), "candidate": np.unique(np.concatenate(wanted))}
        vectors = forward(nodes, seed)

        def of(kind: str, ids: IndexArray) -> Tensor:
            return vectors[kind][torch.from_numpy(np.searchsorted(nodes[kind], ids))]

        query = of("query", source)
        others = scores_of_drawn(query, of(side, drawn.ravel()), drawn)
        return sampled_softmax(
            query, of(side, target),
            torch.from_numpy(source.astype(np.int64)), torch.from_numpy(target.astype(np.int64)),
            frequency[torch.from_numpy(target.astype(np.int64))],
            temperature=config.temperature, extra=others,
        )  # fmt: skip

    def validate() -> float:
        positives = build_graph(*validation, len(data.graph), data.graph.targets)
        return full_ranking_ndcg(*embed_now(), kept, positives, seed=data.seed, own=own)

    return Task(
        module, edge_batches(training, size, data.seed), len(training[0]) // size, loss, validate
    )


def expanded(vectors: FloatArray, graph: Graph, weight: float) -> FloatArray:
    """float32[N, d]: each vector beside its neighbours' mean, brought to unit length.

    Query expansion: searching with the neighbours' vectors too finds candidates whom the
    query's own vector, made of few edges, does not reach (Shi et al.: "Embedding Based Retrieval
    in Friend Recommendation", SIGIR 2023; and FriendSeedSelection, SIGIR 2024).
    """
    mixed = vectors + np.float32(weight) * neighbor_means(graph, vectors)
    length = np.linalg.norm(mixed, axis=1, keepdims=True)
    return (mixed / np.maximum(length, 1e-12)).astype(np.float32)


def batch_size(most: int, edges: int) -> int:
    """Smaller batches for small graphs: a network that takes few steps learns nothing.

    >>> batch_size(2048, 1_000_000), batch_size(2048, 1000)
    (2048, 256)
    """
    return min(most, max(_SMALLEST_BATCH, edges // 32), edges)


def embed_all(
    weights: Mapping[str, np.ndarray], inputs: Inputs, messages: list[_Messages]
) -> dict[str, FloatArray]:
    """Unit vectors of all nodes of every kind, layer by layer over the whole graph.

    Args:
        weights: the network's parameters by name.
        inputs: float32[N, F] of each kind, normalised.
        messages: all edges.
    """
    hidden = {}
    for kind, x in inputs.items():
        scale = weights[f"{kind}.norm.weight"] / np.sqrt(weights[f"{kind}.norm.running_var"] + 1e-5)
        shift = weights[f"{kind}.norm.bias"] - weights[f"{kind}.norm.running_mean"] * scale
        hidden[kind] = np.empty((len(x), len(scale)), np.float32)
        for rows, raw in _layer(weights, f"{kind}.first", kind, inputs, messages):
            hidden[kind][rows] = np.maximum(raw * scale + shift, 0.0)
    embedded = {}
    for kind, x in inputs.items():
        width = len(weights[f"{kind}.second.bias"])
        embedded[kind] = np.empty((len(x), width), np.float32)
        for rows, raw in _layer(weights, f"{kind}.second", kind, hidden, messages):
            length = np.linalg.norm(raw, axis=1, keepdims=True)
            embedded[kind][rows] = raw / np.maximum(length, 1e-12)
    return embedded


def _layer(
    weights: Mapping[str, np.ndarray],
    name: str,
    kind: str,
    x: Inputs,
    messages: list[_Messages],
) -> Iterator[tuple[slice, FloatArray]]:
    """A linear layer over each node's vector and its neighbours' means, some rows at a time."""
    weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
    for start in range(0, len(x[kind]), _CHUNK):
        rows = slice(start, min(start + _CHUNK, len(x[kind])))
        parts = [x[kind][rows]]
        parts += [
            neighbor_means(part.graph, x[part.out_of], rows.start, rows.stop)
            for part in messages
            if part.into == kind
        ]
        ends = np.cumsum([0, *(part.shape[1] for part in parts)])
        raw = bias + parts[0] @ weight[:, : ends[1]].T
        for part, low, high in zip(parts[1:], ends[1:-1], ends[2:], strict=True):
            raw += part @ weight[:, low:high].T
        yield rows, raw
