"""GraphSAGE: inductive node embeddings from features and neighbourhoods.

Hamilton, Ying, Leskovec: "Inductive Representation Learning on Large Graphs", NeurIPS 2017,
section 3.1: two layers, each a linear map of a node's vector beside the mean of its neighbours',
one mean for every relation, with batch norm and ReLU; outputs of unit length. Nodes are of one
kind (people) or two (people and items), joined by any relation of the tenant.

The first layer's means cover all neighbours and are made once, since inputs do not change; the
second layer's cover a sample, drawn anew in every batch. The embeddings of all nodes are then made
layer by layer over the whole graph, in O(E · d), with NumPy alone. See ``node_inputs`` for the
edges that the network may read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nextedge.graph.aggregate import Neighbors
from nextedge.models.artifact import Artifact, arrays_below
from nextedge.models.distributed.collectives import batch_norm, current_ranks, dropout
from nextedge.models.inference import IN_PROCESS, Inference
from nextedge.models.model import TrainingData
from nextedge.models.neural.full_ranking import validation_of
from nextedge.models.neural.graph_partition import Partitioned, Replicated
from nextedge.models.neural.losses import log_frequency, negative_scores
from nextedge.models.neural.negatives import Negatives
from nextedge.models.neural.node_inputs import (
    GraphSageConfig,
    Inputs,
    InputTransform,
    Messages,
    NeighborVectors,
    edge_loss_of,
    messages_of,
    node_inputs,
)
from nextedge.models.neural.sage_layers import Expanded, embed_all
from nextedge.models.neural.trainer import (
    EdgeBatch,
    GradientModel,
    Task,
    edge_batches,
    stored_parameters,
)
from nextedge.models.neural.training_graph import training_graph
from nextedge.models.pytorch import as_index, parameter_arrays
from nextedge.types import CONNECTS, FloatArray, IndexArray

if TYPE_CHECKING:
    from torch import Tensor, nn

_MIN_BATCH = 256


class GraphSage(GradientModel[GraphSageConfig]):
    """Embeddings whose dot product is the cosine that the network learned."""

    name = "graphsage"
    relations = (CONNECTS,)
    reason = "close_in_network"
    inductive = True

    def task(self, data: TrainingData, config: GraphSageConfig) -> Task:
        return _task(data, config)

    def embed(
        self, artifact: Artifact, data: TrainingData, inference: Inference = IN_PROCESS
    ) -> Artifact:
        config = GraphSageConfig.model_validate(artifact.config)
        messages = messages_of(data, data.graph, config)
        inputs = node_inputs(data, messages, InputTransform.of(artifact.arrays), inference)
        weights = arrays_below(artifact.arrays, "weight.")
        self_typed = data.relation.self_typed
        kinds = ("query",) if self_typed else ("query", "candidate")
        vectors = embed_all(weights, inputs, messages, inference, kinds)
        query = vectors["query"]
        arrays = {"query": query, "candidate": query if self_typed else vectors["candidate"]}
        # Query expansion: 0.110 with it, 0.092 without (docs/log.md).
        if self_typed and config.expansion:
            near = NeighborVectors(Neighbors.of(data.graph), query)
            arrays["query"] = inference.run("expanded", Expanded(near, config.expansion))
        return Artifact(self.name, artifact.config, {**artifact.arrays, **arrays}, artifact.about)


def _module(inputs: Inputs, messages: list[Messages], config: GraphSageConfig) -> nn.Module:
    from torch import nn

    senders = {kind: [part.out_of for part in messages if part.into == kind] for kind in inputs}
    layers = nn.ModuleDict()
    for kind, x in inputs.items():
        width = x.shape[1] + sum(inputs[other].shape[1] for other in senders[kind])
        second = config.hidden * (1 + len(senders[kind]))
        first, norm = nn.Linear(width, config.hidden), nn.BatchNorm1d(config.hidden)
        last = nn.Linear(second, config.dimensions)
        layers[kind] = nn.ModuleDict({"first": first, "norm": norm, "second": last})
    return layers


class _Forward:
    """Embeds the nodes of a batch; samples the neighbours of the second layer."""

    def __init__(self, module: Any, partition: Replicated, config: GraphSageConfig) -> None:
        self.module, self.partition, self.config = module, partition, config

    def __call__(self, nodes: dict[str, IndexArray], seed: int) -> dict[str, Tensor]:
        """Unit vectors [n, d] of the given distinct nodes of each kind, ascending."""
        import torch
        from torch.nn.functional import embedding_bag, normalize, relu

        partition, messages, training = (
            self.partition,
            self.partition.messages,
            self.module.training,
        )
        shares = {kind: partition.share(kind, ids) for kind, ids in nodes.items()}
        computed = {kind: ids[shares[kind].rows] for kind, ids in nodes.items()}
        sampled = [
            # A draw depends on seed and node alone: ``at`` makes those of two relations differ.
            (part, *partition.neighbors(at, computed[part.into], self.config.fanout, seed + at))
            for at, part in enumerate(messages)
            if part.into in computed
        ]
        needed: dict[str, list[IndexArray]] = {kind: [ids] for kind, ids in computed.items()}
        for part, _, neighbors in sampled:
            needed.setdefault(part.out_of, []).append(neighbors)
        hidden, first_layer = {}, {}
        for kind, parts in needed.items():
            first_layer[kind] = np.unique(np.concatenate(parts))
            rows, layer = partition.rows(kind, first_layer[kind]), self.module[kind]
            h = batch_norm(layer["norm"], layer["first"](rows.x), partition.ranks, rows.weight)
            hidden[kind] = dropout(relu(h), self.config.dropout, rows.share, training=training)
        out = {}
        for kind, ids in computed.items():
            columns = [hidden[kind][torch.from_numpy(np.searchsorted(first_layer[kind], ids))]]
            for part, indptr, neighbors in sampled:
                if part.into == kind:
                    row = torch.from_numpy(np.searchsorted(first_layer[part.out_of], neighbors))
                    offsets = torch.from_numpy(indptr[:-1])
                    columns.append(embedding_bag(row, hidden[part.out_of], offsets, mode="mean"))
            vectors = normalize(self.module[kind]["second"](torch.cat(columns, dim=1)), dim=1)
            out[kind] = partition.ranks.whole(vectors, shares[kind])
        return out


def _task(data: TrainingData, config: GraphSageConfig) -> Task:
    graph = training_graph(GraphSage.name, data, config)
    module = _module(graph.inputs, graph.messages, config)
    ranks = current_ranks()
    kind = Partitioned if data.partitioned and ranks.size > 1 else Replicated
    partition = kind(graph.messages, graph.means, ranks)
    forward = _Forward(module, partition, config)
    self_typed, edges = data.relation.self_typed, len(graph.training[0])
    side = "query" if self_typed else "candidate"
    size = batch_size(config.trainer.batch, edges)
    frequency = log_frequency(graph.training[1], data.graph.targets)
    negatives = Negatives(data.graph, config.curriculum)
    loss_of = edge_loss_of(config)

    def embed_now() -> tuple[FloatArray, FloatArray]:
        weights = parameter_arrays(module)
        vectors = embed_all(weights, graph.inputs, graph.messages, kinds=("query", side))
        return vectors["query"], vectors[side]

    def loss(batch: EdgeBatch, done: float) -> Tensor:
        seed, source, target = batch
        sampled = negatives.draw(source, seed, done, embed_now, data.seed)
        candidates = [target, sampled.ravel()]
        if self_typed:
            nodes = {"query": np.unique(np.concatenate([source, *candidates]))}
        else:
            nodes = {"query": np.unique(source), "candidate": np.unique(np.concatenate(candidates))}
        vectors = forward(nodes, seed)

        def of(kind: str, ids: IndexArray) -> Tensor:
            return vectors[kind][as_index(np.searchsorted(nodes[kind], ids))]

        share = ranks.share(len(source))
        query, positive = of("query", source[share.rows]), as_index(target)
        sampled = sampled[share.rows] if sampled.ndim == 2 else sampled
        extra = negative_scores(query, of(side, sampled.ravel()), sampled)
        candidate = of(side, target)
        return loss_of(query, candidate, positive, frequency[positive], extra=extra, share=share)

    return Task(
        module,
        edge_batches(graph.training, size, data.seed),
        edges // size,
        loss,
        validation_of(data, graph.graph, graph.validation, embed_now),
        arrays=lambda: {**stored_parameters(module), **graph.transform.arrays()},
        footprint=partition.footprint(),
    )


def batch_size(largest: int, edges: int) -> int:
    """Size of a batch, smaller for small graphs.

    >>> batch_size(2048, 1_000_000), batch_size(2048, 1000)
    (2048, 256)
    """
    # Too few steps teach nothing: 0.038 with batches of 2,048, 0.083 with 256 (docs/log.md).
    return min(largest, max(_MIN_BATCH, edges // 32), edges)
