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

from typing import TYPE_CHECKING, Any

import numpy as np

from nextedge.graph.aggregate import Neighbors
from nextedge.graph.csr import build_graph
from nextedge.models.artifact import Artifact
from nextedge.models.distributed.collectives import batch_norm, current_ranks, dropout, shared_by
from nextedge.models.inference import IN_PROCESS, Inference
from nextedge.models.model import Model, ModelProgress, TrainingData
from nextedge.models.neural.graph_partition import Partitioned, Replicated
from nextedge.models.neural.losses import log_frequency, sampled_softmax, scores_of_drawn
from nextedge.models.neural.negatives import Negatives
from nextedge.models.neural.node_inputs import (
    GraphSageConfig,
    Heard,
    Inputs,
    Messages,
    Preparation,
    messages_of,
    node_inputs,
)
from nextedge.models.neural.sage_layers import Expanded, embed_all
from nextedge.models.neural.trainer import (
    EdgeBatch,
    Task,
    edge_batches,
    import_torch,
    train,
    training_facts,
)
from nextedge.models.neural.training_graph import Layout, lay_out
from nextedge.models.rankers.ndcg import full_ranking_ndcg
from nextedge.types import CONNECTS, FloatArray, IndexArray

if TYPE_CHECKING:
    from torch import Tensor, nn

_SMALLEST_BATCH = 256


class GraphSage(Model[GraphSageConfig]):
    """Embeddings whose dot product is the cosine that the network learned."""

    name = "graphsage"
    relations = (CONNECTS,)
    reason = "close_in_network"
    extra = "train"
    trained = True
    inductive = True

    def fit(self, data: TrainingData, config: GraphSageConfig, progress: ModelProgress) -> Artifact:
        """Train on the edges taken out, then embed all nodes over the whole graph.

        Raises:
            TooLittleDataError: too few edges.
            TrainingError: no edge carries messages, or the training diverged.
            MissingDependencyError: torch is not installed.
        """
        torch = import_torch(self.name)
        layout = lay_out(self.name, data, config)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(data.seed)
            module = _module(layout.inputs, layout.messages, config)
            task, holding = _task(module, data, layout, config)
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
        about = {"seed": data.seed, "log": log.to_json(), **shared_by(holding.facts())}
        fitted = Artifact(
            self.name, config.model_dump(mode="json"), {**arrays, **layout.prepared.arrays()}, about
        )
        return self.embed(fitted, data) if current_ranks().first else fitted

    def embed(
        self, artifact: Artifact, data: TrainingData, inference: Inference = IN_PROCESS
    ) -> Artifact:
        config = GraphSageConfig.model_validate(artifact.config)
        messages = messages_of(data, data.graph, config)
        inputs = node_inputs(data, messages, Preparation.of(artifact.arrays), inference)
        weights = {
            name.removeprefix("weight."): values
            for name, values in artifact.arrays.items()
            if name.startswith("weight.")
        }
        own = data.relation.self_typed
        kinds = ("query",) if own else ("query", "candidate")
        vectors = embed_all(weights, inputs, messages, inference, kinds)
        query = vectors["query"]
        made = {"query": query, "candidate": query if own else vectors["candidate"]}
        if own and config.expansion:
            heard = Heard(Neighbors.of(data.graph), query)
            made["query"] = inference.run("expanded", Expanded(heard, config.expansion))
        return Artifact(self.name, artifact.config, {**artifact.arrays, **made}, artifact.about)


def _module(inputs: Inputs, messages: list[Messages], config: GraphSageConfig) -> nn.Module:
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

    def __init__(self, module: Any, holding: Replicated, config: GraphSageConfig) -> None:
        self.module, self.holding, self.config = module, holding, config

    def __call__(self, nodes: dict[str, IndexArray], seed: int) -> dict[str, Tensor]:
        """Unit vectors [n, d] of the given distinct nodes of each kind, ascending."""
        import torch
        from torch.nn.functional import embedding_bag, normalize, relu

        holding, messages = self.holding, self.holding.messages
        shares = {kind: holding.share(kind, ids) for kind, ids in nodes.items()}
        own = {kind: ids[shares[kind].rows] for kind, ids in nodes.items()}
        sampled = [
            (part, *holding.neighbors(at, own[part.into], self.config.fanout, seed + at))
            for at, part in enumerate(messages)
            if part.into in own
        ]
        needed: dict[str, list[IndexArray]] = {kind: [ids] for kind, ids in own.items()}
        for part, _, neighbors in sampled:
            needed.setdefault(part.out_of, []).append(neighbors)
        hidden, place = {}, {}
        for kind, parts in needed.items():
            place[kind] = np.unique(np.concatenate(parts))
            rows, layer = holding.rows(kind, place[kind]), self.module[kind]
            h = batch_norm(layer["norm"], layer["first"](rows.x), holding.ranks, rows.weight)
            training = self.module.training
            hidden[kind] = dropout(relu(h), self.config.dropout, rows.share, training=training)
        out = {}
        for kind, ids in own.items():
            at = torch.from_numpy(np.searchsorted(place[kind], ids))
            near = [hidden[kind][at]]
            for part, indptr, neighbors in sampled:
                if part.into == kind:
                    flat = torch.from_numpy(np.searchsorted(place[part.out_of], neighbors))
                    offsets = torch.from_numpy(indptr[:-1])
                    near.append(embedding_bag(flat, hidden[part.out_of], offsets, mode="mean"))
            vectors = normalize(self.module[kind]["second"](torch.cat(near, dim=1)), dim=1)
            out[kind] = holding.ranks.whole(vectors, shares[kind])
        return out


def _task(
    module: Any, data: TrainingData, layout: Layout, config: GraphSageConfig
) -> tuple[Task, Replicated]:
    import torch

    ranks = current_ranks()
    hold = Partitioned if data.partitioned and ranks.size > 1 else Replicated
    holding = hold(layout.messages, layout.means, ranks)
    forward = _Forward(module, holding, config)
    training, own = layout.training, data.relation.self_typed
    size = batch_size(config.trainer.batch, len(training[0]))
    frequency = log_frequency(training[1], data.graph.targets)
    negatives = Negatives(data.graph, config.curriculum)

    side = "query" if own else "candidate"

    def embed_now() -> tuple[FloatArray, FloatArray]:
        weights = {name: value.detach().numpy() for name, value in module.state_dict().items()}
        kinds = ("query", side)
        found = embed_all(weights, layout.inputs, layout.messages, kinds=kinds)
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

        share = ranks.share(len(source))
        query = of("query", source[share.rows])
        drawn = drawn[share.rows] if drawn.ndim == 2 else drawn
        others = scores_of_drawn(query, of(side, drawn.ravel()), drawn)
        return sampled_softmax(
            query,
            of(side, target),
            torch.from_numpy(source.astype(np.int64)),
            torch.from_numpy(target.astype(np.int64)),
            frequency[torch.from_numpy(target.astype(np.int64))],
            temperature=config.temperature,
            extra=others,
            share=share,
        )

    def validate() -> float:
        kept = layout.kept
        positives = build_graph(*layout.validation, len(data.graph), data.graph.targets)
        return full_ranking_ndcg(*embed_now(), kept, positives, seed=data.seed, own=own)

    batches = edge_batches(training, size, data.seed)
    return Task(module, batches, len(training[0]) // size, loss, validate), holding


def batch_size(most: int, edges: int) -> int:
    """Smaller batches for small graphs: a network that takes few steps learns nothing.

    >>> batch_size(2048, 1_000_000), batch_size(2048, 1000)
    (2048, 256)
    """
    return min(most, max(_SMALLEST_BATCH, edges // 32), edges)
